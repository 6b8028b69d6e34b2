"""Adds an agent to fleet.yaml; comments and the order of everything stay as they are."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pawl.errors import ConfigError
from pawl.fleet.load_yaml import load


def shown(entry: Mapping[str, Any]) -> str:
    """An agent's entry as it stands below `agents:`."""
    return _dumped(_yaml(), [_flowing(entry)])


def append(path: Path, entry: Mapping[str, Any], tasks: Collection[str]) -> None:
    """Write the entry at the end of `agents`; the file is replaced in one step, and only by one that is good.

    Raises:
        ConfigError: the file is not good as it is or with the entry, or has an agent of that name.
    """
    known = {a.name for a in load(path, tasks).agents}
    if entry["name"] in known:
        raise ConfigError(str(path), [f"an agent is called {entry['name']} already: choose another name"])
    text = path.read_text(encoding="utf-8")
    # As the file is indented: the first way that gives back what is there, or else comments and order alone.
    yaml = next((y for y in map(_yaml, (2, 0)) if _dumped(y, y.load(text)) == text), _yaml())
    tree = yaml.load(text)
    tree["agents"].append(_flowing(entry))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(_dumped(yaml, tree), encoding="utf-8")
        load(beside, tasks)
        beside.chmod(path.stat().st_mode)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _dumped(yaml: YAML, tree: Any) -> str:
    told = StringIO()
    yaml.dump(tree, told)
    return told.getvalue()


def _yaml(offset: int = 2) -> YAML:
    """A reader and writer of YAML that puts the hyphens of a list that far to the right."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096  # lines stay as they were broken
    yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    return yaml


def _flowing(entry: Mapping[str, Any]) -> CommentedMap:
    """The entry with what is inside it in one line each, as people write it."""
    made = CommentedMap()
    for key, value in entry.items():
        if isinstance(value, Mapping):
            inner = CommentedMap(value)
            inner.fa.set_flow_style()
            made[key] = inner
        else:
            made[key] = CommentedSeq(value) if isinstance(value, list) else value
    return made
