"""Checks of the data: Pawl's against Great Expectations alone, over the same interactions and rules, on one core.

    python -m benchmarks.validation [--quick] [--json]

Ours measures in SQL and asks Great Expectations about a narrow frame; the peer reads the same Parquet files into
pandas, texts included, and asks the library's own expectations (uniqueness, lengths, JSON schema, compound
uniqueness) with the result format that names rows. Both start with the files and end with the ids of the rows that
break a rule; one row in a thousand does. Imports are not counted. Each runs in a process of its own, in turns. The
library's JSON schema rule alone takes most of the peer's time, so that there is a second peer without it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.claims import Claim, table

ROWS, QUICK_ROWS = 1_000_000, 40_000
FILE_ROWS = 100_000  # a day's
PAIRS = 3
BEGIN = 1_790_000_000.0
STEP_S = 0.6
ROLES, KINDS = ["answer", "shadow", "draft"], ["local", "cloud"]
ENDPOINTS = ["chat", "completions", "responses", "embeddings"]
PEERS = {"plain": "Great Expectations alone", "plain-no-json": "Great Expectations alone, without its JSON rule"}


def main() -> int:
    """Run the pairs and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows instead of {ROWS:,}")
    parser.add_argument("--json", action="store_true", help="one claim a line")
    parser.add_argument("--side", choices=["ours", *PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(_measured(args.side, args.files)))
        return 0
    rows = QUICK_ROWS if args.quick else ROWS
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        generate(files, rows)
        for peer, name in PEERS.items():
            # The peer's JSON rule takes minutes a round, many times the spread of the machine.
            pairs = 1 if peer == "plain" else PAIRS  # minutes a time, and far from close
            runs = [(_run("ours", files), _run(peer, files)) for _ in range(pairs)]
            for ours, theirs in runs:
                if ours["broken"] != theirs["broken"]:
                    print(f"not the same rows: {ours['broken']} and {theirs['broken']}", file=sys.stderr)
                    return 1
            claims += [
                _claim(f"seconds for {rows:,} interactions, vs {name}", [(a["s"], b["s"]) for a, b in runs], "s"),
                _claim(f"peak memory of the process, vs {name}", [(a["mb"], b["mb"]) for a, b in runs], "MB"),
            ]
            if args.json:
                print("\n".join(c.json() for c in claims[-2:]), flush=True)
    if not args.json:
        shown = table(claims)
        shown.title = "Checks of the data on one core"
        Console().print(shown)
    return 0


def generate(folder: Path, rows: int) -> None:
    """Interactions of some 1.4 KB, each its own, in files as the lake writes them; every thousandth breaks a rule."""
    with duckdb.connect() as db:
        for first in range(0, rows, FILE_ROWS):
            made = db.sql(f"""
                SELECT 'interaction' AS record, 1::BIGINT AS v, 'chatcmpl-' || md5(i::VARCHAR) AS id,
                    {BEGIN} + i * {STEP_S}::DOUBLE AS "at", 'functional-negative' AS agent, 's' || (i // 20) AS session,
                    'base' AS arm, CASE WHEN i % 3 = 0 THEN 'local' ELSE 'cloud' END AS arm_kind, 'answer' AS role,
                    CASE WHEN i % 10 = 0 THEN 'responses' ELSE 'chat' END AS endpoint,
                    CASE WHEN i % 3000 = 1000 THEN '[{{"content":"of whom?"}}]'
                    ELSE '[{{"role":"system","content":"You write negative tests. '
                        || repeat('Follow the rules of the team, quote \\"this\\" well. ', 8)
                        || '"}},{{"role":"user","content":"Please write tests for operation number ' || i || ': '
                        || repeat(' the parameters are a name of letters and an age that is a whole number; ', 6)
                        || '"}}]' END AS messages,
                    '{{"cases":[' || repeat('{{"name":"x","value":"' || md5((i * 7)::VARCHAR) || '"}},', 8)
                        || '{{"name":"' || i || '"}}]}}' AS completion,
                    CASE WHEN i % 3000 = 0 THEN 700 ELSE 200 END::BIGINT AS status, 200::BIGINT AS prompt_tokens,
                    100::BIGINT AS completion_tokens,
                    CASE WHEN i % 3000 = 2000 THEN -1.0 ELSE 0.001 END::DOUBLE AS cost_usd, 0.5::DOUBLE AS latency_s
                FROM range({first}, {min(first + FILE_ROWS, rows)}) t(i)
            """)
            name = folder / f"{first:08}.parquet"
            pq.write_table(made.to_arrow_table(), name, compression="zstd", use_dictionary=["record", "agent", "arm"])


def _claim(name: str, pairs: Sequence[tuple[float, float]], unit: str) -> Claim:
    ratios = [ours / peer for ours, peer in pairs]
    ours, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Claim(name, ours, peer, statistics.median(ratios), (min(ratios), max(ratios)), unit)


def _run(side: str, files: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.validation", "--side", side, "--files", str(files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(side: str, files: Path) -> dict[str, float]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    work = _ours() if side == "ours" else _plain(json_rule=side == "plain")
    began = time.perf_counter()
    broken = work(files)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return {"s": seconds, "mb": int(peak) / 1024, "broken": broken}


def _ours() -> Callable[[Path], int]:
    from pawl.lake.window_duckdb import MEMORY
    from pawl.validation import great_expectations_suite as suites
    from pawl.validation import languages_langid
    from pawl.validation.frames_duckdb import interactions
    from pawl.validation.rules import DAY, Context

    suites._library()
    languages_langid.languages(["a text of some words, so that the model of languages is read"])

    def work(files: Path) -> int:
        with duckdb.connect(config={"memory_limit": MEMORY, "preserve_insertion_order": False}) as db:
            db.execute(f"CREATE VIEW interactions AS SELECT * FROM read_parquet('{files}/*.parquet')")
            frame = interactions(db)
            end = BEGIN + STEP_S * len(frame)
            daily = int(DAY / STEP_S)
            context = Context(now=end, days=len(frame) * STEP_S / DAY, history=[daily] * 9, languages=("en",))
            report = suites.validate_interactions(frame, context)
        return _only_wanted(len({i for f in report.critical for i in f.rows}), len(report.failures))

    return work


def _plain(json_rule: bool) -> Callable[[Path], int]:
    os.environ |= {"GX_ANALYTICS_ENABLED": "false", "TQDM_DISABLE": "1"}
    import logging

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd

    message = {"type": "object", "required": ["role"], "properties": {"role": {"type": "string", "minLength": 1}}}

    def work(files: Path) -> int:
        frame = pd.read_parquet(files)
        end = BEGIN + STEP_S * len(frame)
        asked = [
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
            gxe.ExpectTableRowCountToBeBetween(min_value=len(frame) // 2, max_value=3 * len(frame)),
            gxe.ExpectColumnValuesToBeUnique(column="id"),
            *(gxe.ExpectColumnValuesToNotBeNull(column=c) for c in ("id", "agent", "session")),
            gxe.ExpectColumnValuesToBeBetween(column="at", min_value=1.5e9, max_value=end + 300),
            gxe.ExpectColumnMaxToBeBetween(column="at", min_value=end - 3 * 86_400),
            gxe.ExpectColumnValuesToBeInSet(column="role", value_set=ROLES),
            gxe.ExpectColumnValuesToBeInSet(column="arm_kind", value_set=KINDS),
            gxe.ExpectColumnValuesToBeInSet(column="endpoint", value_set=ENDPOINTS),
            gxe.ExpectColumnValuesToBeBetween(column="status", min_value=0, max_value=599),
            *(
                gxe.ExpectColumnValuesToBeBetween(column=c, min_value=0)
                for c in ("cost_usd", "prompt_tokens", "completion_tokens", "latency_s")
            ),
            gxe.ExpectColumnValueLengthsToBeBetween(column="messages", max_value=400_000),
            gxe.ExpectColumnValueLengthsToBeBetween(column="completion", max_value=65_536),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["session", "messages", "completion", "arm"], mostly=0.8),
        ]
        if json_rule:
            schema = {"type": "array", "items": message}
            asked.append(gxe.ExpectColumnValuesToMatchJsonSchema(column="messages", json_schema=schema))
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("frames").add_dataframe_asset("interactions")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": frame})
        checked = batch.validate(
            gx.ExpectationSuite(name="interactions", expectations=asked),
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]},
        )
        failed = [r for r in checked.results if not r.success]
        ids = {row["id"] for r in failed for row in r.result["unexpected_index_list"]}
        if not json_rule:  # it cannot see these
            ids |= set(frame["id"][1000::3000])
        return _only_wanted(len(ids), len(failed) + (not json_rule))

    return work


def _only_wanted(broken: int, failures: int) -> int:
    """Both sides must have found the three planted faults and nothing else."""
    return broken if failures == 3 else -failures


if __name__ == "__main__":
    sys.exit(main())
