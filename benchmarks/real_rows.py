"""The data sets of PAWL_DATA_DIR as sources of the fleet's tasks: as they are where a task reads such rows, converted
where it does not. Nothing is added to them but what a task's form asks for."""

from __future__ import annotations

import difflib
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pawl.fleet.source import TaskSourceSpec

Rows = list[dict[str, Any]]
_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+(\d+)")


class Real(NamedTuple):
    """Where real items of a task come from."""

    data: str  # what people call it
    file: str  # in PAWL_DATA_DIR
    convert: Callable[[Rows], str] | None = None  # into a file of the task's own kind; None: it is one
    kind: str = "jsonl"


def openapi(rows: Rows) -> str:
    """One OpenAPI 3.1 document of all operations; an operation's tag, its source, is the provider: versions of an API
    are near-duplicates."""
    paths: dict[str, dict[str, Any]] = {}
    names: set[tuple[str, str]] = set()
    for row in rows:
        provider, method = row["api"].split("/")[0].split(":")[0], row["method"].lower()
        path = row["path"] if method not in paths.get(row["path"], {}) else f"/{row['api']}{row['path']}"
        if method in paths.get(path, {}):
            path = f"/{row['version']}{path}"
        body = {"content": {"application/json": {"schema": row["schema"]}}}
        made: dict[str, Any] = {"tags": [provider], "requestBody": body, "responses": {}}
        name = (provider, row["operation_id"] or "")
        if name[1] and name not in names:  # else it is named by method and path
            names.add(name)
            made["operationId"] = name[1]
        paths.setdefault(path, {})[method] = made
    document = {"openapi": "3.1.0", "info": {"title": "real operations", "version": "1"}, "paths": paths}
    return json.dumps(document)


def handlers(rows: Rows) -> str:
    """Pairs of functions that take a request: what an endpoint calls, or is."""
    return _lines(
        {**row, "form": "endpoint"} for row in rows if re.search(r"\brequest\b", row["vulnerable"].split(":\n")[0])
    )


def reviews(rows: Rows) -> str:
    """Two changes of each function with a fix: the fix undone, which is at fault where the fix changed it back; and the
    fix itself, which is clean."""
    return _lines(change for row in rows for change in changes(row))


def changes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    project = "/".join(row["commit"].split("/")[1:3])
    for before, after, faulty in ((row["fixed"], row["vulnerable"], True), (row["vulnerable"], row["fixed"], False)):
        lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "a", "b", lineterm=""))
        if lines:
            findings = [{"line": n} for n in groups(lines)] if faulty else []
            yield {"project": project, "diff": "\n".join(lines), "findings": findings}


def groups(lines: Iterable[str]) -> list[int]:
    """Where each run of changed lines of a unified diff begins in the new file; what was only removed, what follows."""
    found: list[int] = []
    at, inside = 0, False
    for line in lines:
        if line.startswith(("---", "+++")) and not at:
            continue
        if head := _HUNK.match(line):
            at, inside = int(head[1]), False
            continue
        changed = line[:1] in ("+", "-")
        if changed and not inside:
            found.append(at)
        inside = changed
        at += line[:1] != "-"
    return found


_OPERATIONS = Real("operations of public APIs", "openapi_bodies.jsonl.gz", openapi, "openapi")
_MBPP = Real("MBPP", "mbpp.jsonl.gz")
REAL: dict[str, Real] = {
    "functional-negative": _OPERATIONS,
    "functional-positive": _OPERATIONS,
    "spec-analyzer": _OPERATIONS,
    "test-validator": _OPERATIONS,
    "unit-test-generation": _MBPP,
    "coverage-analysis": _MBPP,
    "flaky-detection": Real("FlakeFlagger", "flaky.jsonl.gz"),
    "security-review": Real("SVEN", "security_sven.jsonl.gz"),
    "security-auth": Real("SVEN, functions that take a request", "security_sven.jsonl.gz", handlers),
    "performance-analyzer": Real("Numenta's cloud metrics", "perf_nab.jsonl.gz"),
    "code-review": Real("SVEN, fixes and fixes undone", "security_sven.jsonl.gz", reviews),
}
NONE = {"accessibility-advocate": "no pages are among the data: axe-core in the browser judges any page of one's own"}


def source(task: str, data: Path, scratch: Path) -> TaskSourceSpec | None:
    """The task's real source; None where its file is not in the folder. Converted files go to `scratch`."""
    real = REAL[task]
    path = data / real.file
    if not path.exists():
        return None
    if real.convert is not None:
        made = scratch / f"{task}.{'json' if real.kind == 'openapi' else 'jsonl'}"
        with gzip.open(path, "rt", encoding="utf-8") as packed:
            made.write_text(real.convert([json.loads(line) for line in packed]), encoding="utf-8")
        path = made
    return TaskSourceSpec.model_validate({"kind": real.kind, "location": str(path)})


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
