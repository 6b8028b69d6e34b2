"""The best settings as a proposal for fleet.yaml: a file of its own, and the difference to what is there."""

from __future__ import annotations

import difflib
import io
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pawl.fleet.training import TrainingSpec
from pawl.training.search import values_of
from pawl.training.search_report import SearchReport, conclusion, limits


def block(proposed: TrainingSpec) -> dict[str, Any]:
    """The `training` block: what was searched, and what else is not at its default."""
    everything = proposed.model_dump(mode="json")
    named = set(proposed.model_dump(exclude_defaults=True)) | values_of(proposed).keys() | {"alpha"}
    return {k: v for k, v in everything.items() if k in named}


def diff(text: str, agent: str, proposed: TrainingSpec, name: str = "fleet.yaml") -> str:
    """A unified diff of fleet.yaml as it is (`text`) and as it would be; empty where nothing changes.

    Only keys whose values change are written; comments and everything else stay. KeyError without the agent.
    """
    before, after = _tree(text), _tree(text)
    spec = next((a for a in after["agents"] if a["name"] == agent), None)
    if spec is None:
        raise KeyError(agent)
    training = spec.setdefault("training", CommentedMap())
    has = TrainingSpec.model_validate(_plain(training)).model_dump(mode="json")
    for key, value in block(proposed).items():
        if has[key] != value:
            training[key] = value
    if not training:
        del spec["training"]
    one, two = (_dump(tree).splitlines(keepends=True) for tree in (before, after))
    return "".join(difflib.unified_diff(one, two, name, f"{name}, proposed"))


def proposal(report: SearchReport) -> str:
    """The proposal as YAML: the block to copy, the verdict, the evidence."""
    comment = [
        f"Proposed training settings of {report.agent}. Nothing reads this file: copy `training` into the agent's",
        "entry of fleet.yaml to take them over.",
        conclusion(report),
        *limits(report),
    ]
    content = {
        "agent": report.agent,
        "verdict": report.verdict,
        "training": block(report.best.spec),
        "evidence": {
            "dataset": report.dataset,
            "fingerprint": report.fingerprint,
            "code_version": report.code_version,
            "validation": {"examples": report.examples, "sources": report.sources, "tokens": report.tokens},
            "nats_a_token": {
                "present": msgspec.to_builtins(report.present),
                "proposed": msgspec.to_builtins(report.proposed),
                "difference": {**msgspec.to_builtins(report.change), "level": 1 - report.level},
            },
            "trials": [
                {
                    "number": t.number,
                    "state": t.state,
                    **values_of(t.spec),
                    **({"loss": t.loss} if t.loss is not None else {}),
                    "seconds": round(t.seconds, 1),
                    **({"present": True} if t.present else {}),
                    **({"why": t.why} if t.why else {}),
                }
                for t in report.trials
            ],
        },
    }
    return "".join(f"# {line}\n" for line in comment) + _dump(content)


def _yaml() -> YAML:
    found = YAML(typ="rt")
    found.preserve_quotes = True
    found.width = 10_000  # no line is broken anew
    found.indent(mapping=2, sequence=4, offset=2)
    return found


def _tree(text: str) -> Any:
    return _yaml().load(text)


def _dump(tree: Any) -> str:
    out = io.StringIO()
    _yaml().dump(tree, out)
    return out.getvalue()


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(k): _plain(v) for k, v in node.items()}
    return [_plain(v) for v in node] if isinstance(node, list) else node
