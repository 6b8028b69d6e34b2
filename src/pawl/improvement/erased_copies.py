"""Copies of what the lake holds no more: prompts of clients and answers to them, where evaluations left them.

Comparisons keep the recorded prompts of agents without an oracle and those of regression suites; pages and the
registry's tables show them. Their texts are taken out, item by item; ids, scores and all figures stay, so that what was
decided on them can still be computed again. What goes is asked of the lake and the suites and not of an erasure: one
that was cut off, or found no registry, is finished by the next.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation import regression
from pawl.curation.files import write_whole
from pawl.errors import LakeError, PawlError
from pawl.improvement.recorded import held_ids
from pawl.lake.parquet_lake import ParquetLake

if TYPE_CHECKING:
    from pawl.registry.port import Registry

ERASED = "(erased)"
_TEXTS = ("prompt", "completion", "problem")  # of an item's result
_COLUMNS = ("prompt", "champion_answer", "challenger_answer", "problem")  # of the registry's table
_PRE = re.compile(r"<pre>.*?</pre>", re.DOTALL)
_SAMPLE_ENDS = '(?=<div class="sample">|</section>)'


class Copies(msgspec.Struct, frozen=True, kw_only=True):
    """Where texts were taken out, and what still has to be."""

    comparisons: list[str]  # candidates
    pages: list[str]  # files
    registry: list[str]  # links to what hangs on runs
    answers: int  # kept answers of models that were dropped
    unreached: list[str]  # in words; the next erasure tries again


def forget_copies(
    lake: ParquetLake, home: Path, suites: Path, reports: Path, registry: Registry, *, erased: bool
) -> Copies:
    """Take the texts of what is gone out of comparisons, pages and the registry.

    `erased`: something has just gone, so the kept answers of models go as well: they may repeat what they were asked,
    do not tell whose prompt it was, and are given again when they are needed.

    Raises:
        LakeError: a comparison or a page cannot be read or written.
    """
    asked = cache(lambda agent: held_ids(lake, agent))
    tested = cache(lambda agent: {i.id for i in regression.load(suites, agent).items})
    gone: dict[str, set[str]] = {}
    comparisons = []
    for path in sorted((home / "candidates").glob("*/comparison.json")):
        found = _read(path)
        agent = str(found.get("agent", ""))
        items = gone_items(found, lambda agent=agent: asked(agent), lambda agent=agent: tested(agent))  # type: ignore[misc]
        if not items:
            continue
        gone.setdefault(agent, set()).update(items)
        if without_texts(found, items):
            _write(path, msgspec.json.encode(found, order="deterministic"))
            comparisons.append(path.parent.name)
    every = set().union(*gone.values()) if gone else set()
    pages = [str(p) for p in sorted(reports.glob("*.html")) if every and _rewritten(p, every)]
    linked, unreached = [], []
    for agent, items in sorted(gone.items()):
        try:
            linked += registry.rewrite(agent, changer(items))
        except PawlError as error:
            unreached.append(f"runs of {agent} in the registry may still show texts of theirs: {error}")
    answers = _dropped(home / "answers") if erased or comparisons else 0
    return Copies(comparisons=comparisons, pages=pages, registry=linked, answers=answers, unreached=unreached)


def gone_items(
    comparison: dict[str, Any], asked: Callable[[], Collection[str]], tested: Callable[[], Collection[str]]
) -> set[str]:
    """Items of a comparison whose prompt is a client's that is gone (pure, but for what it asks).

    `asked`: ids of the recorded prompts that the lake holds; `tested`: of the items that the regression suite holds.
    """
    found: set[str] = set()
    if comparison.get("judge"):  # only agents without an oracle are asked recorded prompts
        sides = (comparison.get("champion") or {}, comparison.get("challenger") or {})
        ids = {str(i["item"]) for side in sides for i in side.get("items", ())}
        found |= ids - set(asked()) if ids else set()
    if suite := comparison.get("suite"):
        ids = {str(i["item"]) for side in ("champion", "challenger") for i in suite.get(side, ())}
        found |= ids - set(tested()) if ids else set()
    return found


def without_texts(node: Any, gone: Collection[str]) -> bool:
    """Take prompts, answers and problems of these items out of a tree of results, in place; whether any was there."""
    if isinstance(node, list):
        return any([without_texts(n, gone) for n in node])
    if not isinstance(node, dict):
        return False
    if "completion" in node and node.get("item") in gone:
        had = [name for name in _TEXTS if node.get(name) not in (None, "", ERASED)]
        node.update(dict.fromkeys(had, ERASED))
        return bool(had)
    return any([without_texts(n, gone) for n in node.values()])


def changer(gone: Collection[str]) -> Callable[[str, bytes], bytes | None]:
    """What to make of a file by its name and content so that it shows no text of these items; None: leave it (pure)."""

    def changed(name: str, data: bytes) -> bytes | None:
        made = page_without(data, gone) if name.endswith(".html") else table_without(data, gone)
        return None if made == data else made

    return changed


def page_without(page: bytes, gone: Collection[str]) -> bytes:
    """A page of Pawl's without the texts of these items: each stands in a block of its own, below its id."""
    html = page.decode(errors="surrogateescape")
    for item in gone:
        if (head := f"<h3>{item}</h3>") in html:
            block = re.compile(f"{re.escape(head)}.*?{_SAMPLE_ENDS}", re.DOTALL)
            html = block.sub(lambda found: _PRE.sub(f"<pre>{ERASED}</pre>", found[0]), html)
    return html.encode(errors="surrogateescape")


def table_without(data: bytes, gone: Collection[str]) -> bytes:
    """A table as MLflow keeps it (columns, and rows under data) without the texts of these items; all else as it is."""
    if not any(item.encode() in data for item in gone):
        return data
    try:
        table = msgspec.json.decode(data)
        at = {str(name): n for n, name in enumerate(table["columns"])}
        rows, places = table["data"], [at[c] for c in _COLUMNS if c in at]
        changed = False
        for row in rows:
            if row[at["item"]] in gone:
                for n in places:
                    if row[n] not in (None, "", ERASED):
                        row[n], changed = ERASED, True
    except (msgspec.DecodeError, LookupError, TypeError):
        return data
    return msgspec.json.encode(table) if changed else data


def batches_of(folder: Path, gone: Collection[str]) -> list[str]:
    """Batches in whose results answers of these interactions stand."""
    wanted, found = set(gone), []
    for results in sorted(folder.glob("batch_*/*.jsonl")):
        for line in results.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError, LookupError, TypeError):
                if msgspec.json.decode(line)["response"]["request_id"] in wanted:
                    found.append(results.parent.name)
                    break
    return sorted(set(found))


def _rewritten(path: Path, gone: Collection[str]) -> bool:
    try:
        made = changer(gone)(path.name, path.read_bytes())
    except OSError as e:
        raise LakeError(f"{path} cannot be read: {e.strerror}; make it readable and erase again") from e
    if made is not None:
        _write(path, made)
    return made is not None


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"{path} cannot be read ({e}): whose prompts it holds is not known; delete it") from e


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as e:
        raise LakeError(f"{path} cannot be written: {e.strerror or e}; free disk space and erase again") from e


def _dropped(answers: Path) -> int:
    """Files alone: an evaluation under way goes on with the folders."""
    kept = list(answers.glob("*/*.json"))
    for path in kept:
        path.unlink(missing_ok=True)
    return len(kept)
