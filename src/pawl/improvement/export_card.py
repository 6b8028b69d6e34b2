"""The card that leaves with a model: what it learnt from, how it did, whose licence it is under (pure)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import msgspec

from pawl.curation.dataset import DatasetVersion, name_of
from pawl.evaluation.report import Comparison, Interval
from pawl.registry.port import Version
from pawl.training.result import TrainResult
from pawl.training.round_trip import RoundTrip, told

_PATH = re.compile(r"""(?<![\w:/.<])(?:~?/|[A-Za-z]:[\\/])[^\s"'<>|]*[^\s"'<>|,;.)]""")
_LEFT_OUT = {"adapter_dir"}
_LINEAGE = ("candidate", "parent", "parent_version", "dataset", "dataset_fingerprint", "base_sha256", "adapter_sha256",
            "code_version", "evidence", "gate", "run_id", "rollout")  # fmt: skip


class BaseModel(msgspec.Struct, frozen=True):
    """What it was trained on."""

    name: str
    licence: str
    sha256: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine still knows of a version; None where it is not here any more."""

    dataset: DatasetVersion | None = None
    comparison: Comparison | None = None
    trained: TrainResult | None = None
    spec: dict[str, Any] | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """`card.json`."""

    v: int = 1
    name: str
    agent: str
    version: str
    form: str  # adapter, merged, gguf
    weights: str  # float32, bfloat16, f16, ...
    exported: str  # UTC
    base: BaseModel
    data: dict[str, Any]
    metrics: dict[str, Any]
    training: dict[str, Any]
    lineage: dict[str, str]
    round_trip: RoundTrip | None = None
    files: dict[str, str] = {}  # name -> sha256


def card(
    version: Version,
    form: str,
    weights: str,
    exported: str,
    base: BaseModel,
    evidence: Evidence,
    round_trip: RoundTrip | None,
    files: dict[str, str],
) -> Card:
    """The card of an export. What was evidence on another machine is left empty, never made up."""
    return Card(
        name=version.adapter,
        agent=version.agent,
        version=version.number,
        form=form,
        weights=weights,
        exported=exported,
        base=base,
        data=_data(version, evidence.dataset),
        metrics=_metrics(evidence.comparison),
        training=without_paths(_training(evidence)),
        lineage=without_paths({k: version.tags[k] for k in _LINEAGE if k in version.tags}),
        round_trip=round_trip,
        files=files,
    )


def without_paths(value: Any) -> Any:
    """The same, of each path of a machine only the last name."""
    if isinstance(value, dict):
        return {k: without_paths(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(v) for v in value]
    return _PATH.sub(_last, value) if isinstance(value, str) else value


def readme(made: Card) -> str:
    """`README.md`: the card for people, with the front matter that model hubs read."""
    front = ["---", "library_name: " + {"adapter": "peft", "gguf": "gguf"}.get(made.form, "transformers")]
    front += [f"base_model: {_quoted(made.base.name)}", f"license: {_quoted(made.base.licence.lower() or 'unknown')}"]
    front += ["pipeline_tag: text-generation", f"tags: [pawl, {made.form}]", "---"]
    what = {
        "adapter": "A LoRA adapter for the base model, as peft and vLLM load it.",
        "merged": "The base model with the adapter merged into its weights.",
        "gguf": "The base model with the adapter merged into its weights, for llama.cpp and Ollama.",
    }[made.form]
    lines = [*front, "", f"# {made.name}", "", f"{what} For the agent `{made.agent}`, version {made.version}.", ""]
    lines += ["| | |", "|---|---|", f"| base model | {made.base.name}, sha256 `{made.base.sha256[:12]}` |"]
    lines += [f"| licence of the base model | {made.base.licence or 'unknown'} |", f"| weights | {made.weights} |"]
    lines += [f"| exported | {made.exported} |", "", "## Data"]
    lines += _table(made.data)
    lines += ["", "## How it did", *_did(made.metrics), "", "## Training", *_table(made.training.get("result", {}))]
    spec = made.training.get("spec")
    lines += ["", "```json", msgspec.json.format(msgspec.json.encode(spec)).decode(), "```"] if spec else []
    lines += ["", "## Where it comes from", *_table(made.lineage)]
    if made.round_trip is not None:
        lines += ["", "## Checked against the original", f"{told(made.round_trip)}."]
    return "\n".join(lines) + "\n"


def _data(version: Version, dataset: DatasetVersion | None) -> dict[str, Any]:
    if dataset is None:
        known = {"name": version.tags.get("dataset", ""), "fingerprint": version.tags.get("dataset_fingerprint", "")}
        return {**known, "note": "the dataset is not on the machine that exported"}
    return {
        "name": name_of(dataset),
        "fingerprint": dataset.fingerprint,
        "examples": dataset.by_split,
        "pairs": len(dataset.pairs),
        "sources": len(dataset.sources),
        "licence": dataset.licence or "not stated",
        "scrubbed": dataset.scrubbed,
    }


def _metrics(found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return {"note": "the comparison is not on the machine that exported"}
    return {
        "score": found.challenger.score,
        "conforms": found.challenger.conforms,
        "before": {"name": found.champion.name, "score": found.champion.score},
        "difference": found.difference,
        "p_better": found.p_better,
        "verdict": found.verdict,
        "items": found.pairs,
        "sources": found.sources,
        "confidence": 1 - found.alpha,
        "digest": found.digest(),
    }


def _training(evidence: Evidence) -> dict[str, Any]:
    result = msgspec.to_builtins(evidence.trained) if evidence.trained else {}
    return {"spec": evidence.spec, "result": {k: v for k, v in result.items() if k not in _LEFT_OUT}}


def _did(metrics: dict[str, Any]) -> list[str]:
    if "score" not in metrics:
        return [metrics["note"]]
    sure = f"{metrics['confidence']:.0%}"
    return [
        f"On {metrics['items']} tasks of {metrics['sources']} sources that training never saw, with {sure} intervals:",
        "",
        "| | score |",
        "|---|---|",
        f"| this version | {_interval(metrics['score'])} |",
        f"| before ({metrics['before']['name']}) | {_interval(metrics['before']['score'])} |",
        f"| difference, paired | {_interval(metrics['difference'])} |",
        "",
        f"Verdict: {metrics['verdict'].replace('_', ' ')}, p(better) {metrics['p_better']:.4f}. Report "
        f"`{metrics['digest'][:12]}`.",
    ]


def _interval(found: Interval) -> str:
    return f"{found.mean:.3f} [{found.lower:.3f}, {found.upper:.3f}]"


def _table(values: dict[str, Any]) -> list[str]:
    shown = {k: v for k, v in values.items() if v not in (None, "", [], {}, ())}
    return ["| | |", "|---|---|", *(f"| {k.replace('_', ' ')} | {_cell(v)} |" for k, v in shown.items())]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "; ".join(_cell(v) for v in value)
    return str(value).replace("|", "/").replace("\n", " ")


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # JSON's strings are YAML's


def _last(match: re.Match[str]) -> str:
    kind = PureWindowsPath if "\\" in match[0] else PurePosixPath
    return kind(match[0]).name
