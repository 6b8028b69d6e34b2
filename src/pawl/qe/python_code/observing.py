"""What running a piece of code apart tells of it: calls with what they reach and which mutants they notice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import orjson

from pawl import sandbox
from pawl.qe.item import CannotGrade
from pawl.qe.python_code.snippet import Snippet

MIB = 1024 * 1024
_BATCH = 24  # pieces of code that share one start of the sandbox
_AT_A_TIME = 2
_KEPT = 4096  # observations kept in memory
_MAIN = "from inside.driver import main\nmain()\n"
# What pytest consists of; tests that use it get it, and nothing else that is installed here.
PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")


class BrokeOff(CannotGrade):
    """The sandbox started, and what ran in it ended without a result: by a fault of this machine, or on purpose."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One call, what must come of it, and what it reaches and notices. Mutants go by number."""

    kind: str  # value, raises, assertion
    call: str
    expected: str = ""
    lines: tuple[int, ...] = ()
    branches: tuple[str, ...] = ()
    kills: tuple[int, ...] = ()

    def text(self) -> str:
        """The statement of a test."""
        from pawl.qe.python_code.inside.observe import Check as Inside

        return Inside(self.kind, self.call, self.expected).text()


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a piece of code. `lines` and `branches` are all that it has, reached or not."""

    lines: tuple[int, ...]
    branches: tuple[str, ...]
    mutants: int
    checks: tuple[Check, ...]

    @property
    def killable(self) -> frozenset[int]:
        """Mutants that some check notices: no other one is known to differ from the code at all."""
        return frozenset(n for c in self.checks for n in c.kills)

    @property
    def reachable(self) -> frozenset[str]:
        """Outcomes of decisions that some check reaches."""
        return frozenset(b for c in self.checks for b in c.branches)

    @property
    def reachable_lines(self) -> frozenset[int]:
        """Lines that some check reaches."""
        return frozenset(n for c in self.checks for n in c.lines)


def observe(snippets: Sequence[Snippet]) -> list[Observation | None]:
    """What is known of each; None where nothing came of any call. The same code gives the same each time.

    Raises:
        CannotGrade: the sandbox does not start, or broke off.
    """
    batches = [tuple(snippets[n : n + _BATCH]) for n in range(0, len(snippets), _BATCH)]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return [o for batch in pool.map(_observed, batches) for o in batch]


@lru_cache(maxsize=_KEPT)
def observation(snippet: Snippet) -> Observation | None:
    """What is known of one piece of code."""
    return _observed((snippet,))[0]


@lru_cache(maxsize=_KEPT)
def _observed(batch: tuple[Snippet, ...]) -> tuple[Observation | None, ...]:
    asked = [{"code": s.code, "entry": s.entry, "seeds": s.seeds, "assertions": s.assertions} for s in batch]
    found = in_sandbox({"do": "observe", "items": asked})
    known = [msgspec.convert(o, Observation) if o else None for o in found]
    # In a process with other hashes: what depends on the order of a set is nothing to test for.
    again = [
        {"code": s.code, "checks": [[c.kind, c.call, c.expected] for c in o.checks] if o else []}
        for s, o in zip(batch, known, strict=True)
    ]
    held = in_sandbox({"do": "confirm", "items": again}, hash_seed=1)
    return tuple(_steady(o, h) for o, h in zip(known, held, strict=True))


def _steady(known: Observation | None, held: list[bool] | None) -> Observation | None:
    if known is None or held is None or not any(held):
        return None
    return msgspec.structs.replace(known, checks=tuple(c for c, ok in zip(known.checks, held, strict=True) if ok))


def in_sandbox(
    job: dict[str, Any], *, hash_seed: int = 0, packages: Sequence[str] = (), level: sandbox.Level | None = None
) -> Any:
    """The result of a job of `inside/driver.py`; at the sandbox's best level, if none is given.

    Raises:
        CannotGrade: the sandbox does not start.
        BrokeOff: it ended without a result.
    """
    files: dict[str, str | bytes] = {"main.py": _MAIN, "job.json": orjson.dumps(job), **_inside()}
    limits = sandbox.Limits(wall_s=90.0, cpu_s=60, output=16 * MIB)
    done = sandbox.run(files, ["main.py"], limits=limits, packages=packages, hash_seed=hash_seed, level=level)
    if not done.ok:
        why = done.killed_by or f"status {done.status}: {done.stderr[-300:].strip()}"
        raise BrokeOff(f"the sandbox ended without a result: {why}")
    return orjson.loads(done.stdout)


@lru_cache(maxsize=1)
def _inside() -> dict[str, str]:
    folder = Path(__file__).parent / "inside"
    return {f"inside/{p.name}": p.read_text() for p in sorted(folder.glob("*.py"))}
