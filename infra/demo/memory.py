"""What the demo has done already, so that an interrupted one continues where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Memory:
    """A small JSON file, replaced atomically; a step that is written there is not done again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str) -> Any:
        """What was kept under that name, None where nothing was."""
        return self._data.get(name)

    def keep(self, name: str, value: Any) -> Any:
        """Keep a JSON value; returns it."""
        self._data[name] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._data, indent=1))
        part.replace(self._path)
        return value

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The kept value, made at the first call."""
        known = self.get(name)
        return known if known is not None else self.keep(name, make())
