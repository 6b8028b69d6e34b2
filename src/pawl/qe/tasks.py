"""Which task an agent's spec names."""

from __future__ import annotations

from pawl.errors import SourceError
from pawl.qe.functional_negative.task import FunctionalNegative
from pawl.qe.task import GenericTask, Task

_TASKS: tuple[Task, ...] = (FunctionalNegative(), GenericTask())
_BUILT_IN: dict[str, Task] = {task.name: task for task in _TASKS}


def task_of(name: str) -> Task:
    """The task of that name; `generic` is that of an agent without an oracle.

    Raises:
        SourceError: there is no such task.
    """
    found = _BUILT_IN.get(name)
    if found is None:
        raise SourceError(f"no task is called {name!r}: in fleet.yaml write one of {', '.join(_BUILT_IN)}")
    return found
