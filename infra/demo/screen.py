"""What is drawn on the demo's screen while a step takes its time."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Bar:
    """A progress bar that is told how far it is and a note. Its clock stops for good once it is full: what comes in
    several parts is told as 99 of 100 at most."""

    def __init__(self, console: Console, name: str, total: int | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
        self._task = self._progress.add_task(name, total=total, note="")

    def __enter__(self) -> Callable[[int, str], None]:
        self._progress.start()
        return lambda done, note: self._progress.update(self._task, completed=done, note=note)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
