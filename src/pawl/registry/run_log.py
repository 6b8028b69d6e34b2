"""The port of experiment runs that are written while work goes on, and what is written of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

from pawl.training.result import Progress

Status = Literal["FINISHED", "FAILED", "KILLED"]


class RunLog(Protocol):
    """One run. Nothing here raises, waits for the server (but `close`), or loses what the server may still take:
    without a server there is one warning, and the work goes on."""

    @property
    def run_id(self) -> str:
        """The run's id; empty until the server has made it."""
        ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def tag(self, key: str, value: str) -> None: ...
    def file(self, path: Path) -> None:
        """Hang a file on the run, as it is when the run's log comes to it."""
        ...

    def close(self, status: Status = "FINISHED") -> None:
        """Write what is left and end the run; gives up after some seconds. Later calls change nothing."""
        ...


class Known(Protocol):
    """A run of which no more than the id is known."""

    @property
    def run_id(self) -> str:
        """Empty until the server has it."""
        ...


class Kept(NamedTuple):
    """A run that another process may have begun: its id is in the file that it keeps it in."""

    file: Path

    @property
    def run_id(self) -> str:
        return kept_id(self.file)


class RunLogs(Protocol):
    """Where runs are kept."""

    def open(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        keep: Path | None = None,
        parent: Known | None = None,
    ) -> RunLog:
        """Begin a run; where the file `keep` holds the id of one that still exists, that one goes on.

        `parent`: the run that this one is shown under.
        """
        ...


def flat(spec: BaseModel) -> dict[str, str]:
    """A spec's fields by dotted name, as text; of a file pattern that begins at this machine's root only the name."""
    found: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        elif isinstance(value, list | tuple):
            found[prefix] = ", ".join(_plain(v) for v in value)
        else:
            found[prefix] = _plain(value)

    walk("", spec.model_dump())
    return found


def progress_metrics(p: Progress) -> dict[str, float]:
    """One step's figures, named by the stage they come from: `examples/loss`."""
    found = {
        f"{p.stage}/loss": p.loss,
        f"{p.stage}/learning_rate": p.learning_rate,
        f"{p.stage}/tokens_per_s": p.tokens_per_s,
    }
    return found | ({f"{p.stage}/memory_mb": p.memory_mb} if p.memory_mb else {})


def kept_id(path: Path) -> str:
    """The run id that a file keeps; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _plain(value: Any) -> str:
    text = "" if value is None else str(value)
    return PurePath(text).name if text.startswith(("/", "~")) else text
