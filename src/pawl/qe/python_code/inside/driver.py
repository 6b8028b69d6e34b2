"""Reads a job, does it, and writes the result to what was its standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from .evaluate import apart, evaluated, reached
from .observe import Check, Module, holds, observed

_ITEM_S = 4


def main() -> None:
    """Does the job in job.json."""
    out, err = os.dup(1), os.dup(2)
    # Nothing that the code prints can be taken for a result.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.setrecursionlimit(600)
    job = json.loads(Path("job.json").read_text())
    Path("job.json").unlink()
    try:
        result = _done(job)
    except BaseException:
        os.dup2(err, 2)
        raise
    with os.fdopen(out, "wb") as file:
        file.write(json.dumps(result).encode())


def _done(job: dict[str, Any]) -> Any:
    match job["do"]:
        case "observe":
            return [_observe(item) for item in job["items"]]
        case "confirm":
            return [_confirm(item) for item in job["items"]]
        case "evaluate":
            return evaluated(job["code"], job["tests"], job["mutants"])
        case "reach":
            return [reached(r["code"], r["statements"]) for r in job["items"]]
    raise ValueError(job["do"])


def _observe(item: dict[str, Any]) -> Any:
    return apart(
        lambda: {"found": observed(item["code"], item["entry"], item["seeds"], item["assertions"])}, _ITEM_S
    ).get("found")


def _confirm(item: dict[str, Any]) -> Any:
    """Which of the checks hold in this process as well."""

    def run() -> dict[str, Any]:
        import ast

        module = Module(ast.parse(item["code"]))
        return {"held": [holds(module, Check(*c), 10**6) for c in item["checks"]]}

    return apart(run, _ITEM_S).get("held")
