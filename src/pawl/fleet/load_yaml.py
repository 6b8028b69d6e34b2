"""Reads fleet.yaml and reports every problem of it at once, each with its line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pawl.errors import ConfigError
from pawl.fleet.prices_genai import with_prices
from pawl.fleet.spec import FleetSpec


def load(path: Path, tasks: Collection[str] = ()) -> FleetSpec:
    """The fleet declared in `path`, every upstream priced. ConfigError lists every problem with its line.

    `tasks` are the names of the built-in tasks; where given, an agent's must be one of them, or `module:Class`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(str(path), [f"cannot be read ({e.strerror}); set PAWL_FLEET or run from the project"]) from e
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise ConfigError(str(path), [f"line {line}: not YAML: {e.problem}"]) from e
    if not isinstance(tree, dict):
        raise ConfigError(str(path), ["line 1: must be a mapping with base_model, upstreams and agents"])
    try:
        spec = with_prices(FleetSpec.model_validate(_plain(tree)), str(path))
    except ValidationError as e:
        problems = []
        for error in e.errors():
            place = ".".join(str(p) for p in error["loc"]) or "the fleet"
            message = error["msg"].removeprefix("Value error, ")
            for part in message.split("; "):
                problems.append(f"line {_line(tree, error['loc'])}: {place}: {part}")
        raise ConfigError(str(path), problems) from e
    unknown = [
        f"line {_line(tree, ('agents', n, 'task'))}: agents.{n}.task: no task is called {a.task!r}; write one of "
        f"{', '.join(tasks)}, or module:Class of your own"
        for n, a in enumerate(spec.agents)
        if tasks and a.task not in tasks and ":" not in a.task
    ]
    if unknown:
        raise ConfigError(str(path), unknown)
    return spec


def _line(tree: Any, loc: tuple[int | str, ...]) -> int:
    """The line of the deepest node on the way to `loc` that exists in the file."""
    line = 1
    node = tree
    for step in loc:
        try:
            marks: Any = node.lc
            line = (marks.key(step) if isinstance(node, dict) else marks.item(step))[0] + 1
            node = node[step]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return line


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    return node
