"""The peer of the data benchmark: the same work as one would write it with pandas, Great Expectations and datasketch.

The same steps on the same lake files: collect and join, validate, score, one answer a prompt, near-duplicates by
MinHash and LSH (128 permutations, three-word shingles), split by source, select, scrub what was selected with Presidio.
Vectorised pandas where pandas has it; no tricks, no sloppiness.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from pawl.lake.parquet_lake import ParquetLake

_WORDS = re.compile(r"\w+")


def run(root: Path, most: int, threshold: float, validation_percent: int, test_percent: int) -> dict[str, Any]:
    """Make the dataset; returns counts and the seconds of each step."""
    steps: dict[str, float] = {}
    began = last = time.perf_counter()

    def done(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        steps[name] = now - last
        last = now

    lake = ParquetLake(root / "lake", root / "journal")
    seen = pd.concat([pd.read_parquet(f) for f in lake.files("interactions")], ignore_index=True)
    said = pd.concat([pd.read_parquet(f) for f in lake.files("feedback")], ignore_index=True)
    done("collect")
    _validate(seen, said)
    done("validate")
    said = said[said["score"].notna() & (said["kind"] != "correction")].sort_values(["at", "id"])
    latest = said.drop_duplicates(["interaction", "source", "kind"], keep="last")
    weights = {"outcome": 1.0, "accepted": 0.5, "rating": 0.5}
    latest = latest.assign(weight=latest["kind"].map(weights))
    by_kind = latest.groupby(["interaction", "kind"], as_index=False).agg(
        score=("score", "mean"), weight=("weight", "first")
    )
    by_kind["sum"] = by_kind["score"] * by_kind["weight"]
    sums = by_kind.groupby("interaction")[["sum", "weight"]].sum()
    quality = (sums["sum"] / sums["weight"]).rename("quality")
    found = seen.merge(quality, left_on="id", right_index=True)
    found = found[
        (found["arm_kind"] == "cloud") & (found["status"] == 200) & ~found["broken"] & (found["completion"] != "")
    ]
    found = found[found["quality"] >= 0.99]
    done("score")
    found = found.sort_values(["quality", "at"], ascending=False).drop_duplicates("messages")
    distinct = len(found)
    keep = _near(found["messages"].map(_content), threshold)
    found = found[keep]
    near = len(found)
    done("deduplicate")
    source = found["task"].map(lambda t: json.loads(t)["source"])
    place = source.map(lambda s: int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest(), "big") % 100)
    found = found.assign(source=source, split="train")
    found.loc[place < test_percent + validation_percent, "split"] = "validation"
    found.loc[place < test_percent, "split"] = "test"
    share = {"train": most, "validation": most * validation_percent // 70, "test": most * test_percent // 70}
    parts = [_spread(found[found["split"] == name], room) for name, room in share.items()]
    chosen = pd.concat(parts, ignore_index=True)
    done("select")
    chosen["messages"] = _scrub(chosen["messages"].tolist())
    chosen["completion"] = _scrub(chosen["completion"].tolist())
    done("scrub")
    out = root / "plain.json"
    chosen[["id", "messages", "completion", "quality", "source", "split"]].to_json(out, orient="records")
    done("write")
    train = int((chosen["split"] == "train").sum())
    return {"seconds": time.perf_counter() - began, "steps": steps, "distinct": distinct, "near": near, "train": train}


def _validate(seen: pd.DataFrame, said: pd.DataFrame) -> None:
    import great_expectations as gx
    import great_expectations.expectations as e

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    frames = context.data_sources.add_pandas("frames")
    about = [
        e.ExpectTableRowCountToBeBetween(min_value=1),
        *(e.ExpectColumnValuesToNotBeNull(column=c) for c in ("id", "agent", "session")),
        e.ExpectColumnValuesToBeUnique(column="id"),
        e.ExpectColumnValuesToBeInSet(column="role", value_set=["answer", "shadow", "draft"]),
        e.ExpectColumnValuesToBeInSet(column="arm_kind", value_set=["local", "cloud"]),
        *(e.ExpectColumnValuesToBeBetween(column=c, min_value=0) for c in ("cost_usd", "prompt_tokens", "latency_s")),
        e.ExpectColumnValuesToBeBetween(column="status", min_value=0, max_value=599),
        e.ExpectColumnValueLengthsToBeBetween(column="completion", max_value=65_536),
        e.ExpectColumnValuesToBeJsonParseable(column="messages"),
    ]
    told = [
        e.ExpectColumnValuesToBeUnique(column="id"),
        e.ExpectColumnValuesToNotBeNull(column="interaction"),
        e.ExpectColumnValuesToBeInSet(column="kind", value_set=["outcome", "rating", "accepted", "correction"]),
        e.ExpectColumnValuesToBeBetween(column="score", min_value=0, max_value=1),
        e.ExpectColumnValuesToBeInSet(column="known", value_set=[True]),
    ]
    said = said.assign(known=said["interaction"].isin(set(seen["id"])))
    for name, frame, rules in (("interactions", seen, about), ("feedback", said, told)):
        batch = frames.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        result = batch.get_batch({"dataframe": frame}).validate(gx.ExpectationSuite(name=name, expectations=rules))
        if not result.success:
            raise RuntimeError(f"{name}: {[r.expectation_config.type for r in result.results if not r.success]}")


def _content(messages: str) -> str:
    return " ".join(m["content"] for m in json.loads(messages) if m["role"] == "user")


def _near(texts: pd.Series, threshold: float) -> list[bool]:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=threshold, num_perm=128)
    keep = []
    for n, text in enumerate(texts):
        words = _WORDS.findall(text.lower())
        made = MinHash(num_perm=128)
        made.update_batch([" ".join(words[k : k + 3]).encode() for k in range(max(1, len(words) - 2))])
        fresh = not lsh.query(made)
        keep.append(fresh)
        if fresh:
            lsh.insert(n, made, check_duplication=False)
    return keep


def _spread(found: pd.DataFrame, room: int) -> pd.DataFrame:
    turn = found.groupby("source").cumcount()
    return found.assign(turn=turn).sort_values(["turn", "at"], ascending=[True, False]).head(room).drop(columns="turn")


def _scrub(texts: list[str]) -> list[str]:
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        UsSsnRecognizer,
    )  # fmt: skip

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    registry = RecognizerRegistry(supported_languages=["en"])
    for kind in (CreditCardRecognizer, EmailRecognizer, IbanRecognizer, IpRecognizer, PhoneRecognizer, UsSsnRecognizer):
        registry.add_recognizer(kind())
    blank = NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
    blank.load()
    engine = AnalyzerEngine(registry=registry, nlp_engine=blank, supported_languages=["en"])
    made = []
    for text in texts:
        for r in sorted(engine.analyze(text, language="en", score_threshold=0.4), key=lambda r: -r.start):
            text = f"{text[: r.start]}<{r.entity_type}>{text[r.end :]}"
        made.append(text)
    return made


if __name__ == "__main__":
    where, room, similar, for_validation, for_test = sys.argv[1:6]
    found = run(Path(where), int(room), float(similar), int(for_validation), int(for_test))
    print(json.dumps(found))
