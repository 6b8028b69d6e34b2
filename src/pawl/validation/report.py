"""What a check found, and what follows from it: which rows are set aside, and whether the run goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from pawl.errors import DataRejected

Severity = Literal["critical", "warning"]
MOST_NAMED = 100_000  # ids kept a rule; the count stays exact
FEW = 100  # so many rows are set aside whatever their share
MOST_SET_ASIDE = 0.5


class Failure(msgspec.Struct, frozen=True):
    """A rule that did not hold. `rows` are ids, at most MOST_NAMED of them; none where it is about the table."""

    rule: str  # in words
    severity: Severity
    unexpected: int
    rows: tuple[str, ...] = ()
    observed: str = ""
    sets_aside: bool = True  # its rows are at fault, and the next run can do without them


class ValidationReport(msgspec.Struct, frozen=True):
    """What became of one suite."""

    suite: str
    rows: int
    rules: int
    failures: tuple[Failure, ...]
    docs: str = ""  # its page in Data Docs
    seconds: float = 0.0

    @property
    def critical(self) -> tuple[Failure, ...]:
        """Those that stop a run."""
        return tuple(f for f in self.failures if f.severity == "critical")

    def set_aside(self) -> dict[str, str]:
        """Ids for the quarantine, each with the first critical rule that it breaks.

        A rule that more than half of the rows break (and more than a hundred) speaks of a broken source: with those
        rows set aside the next run would learn from a remnant and say nothing, so that it sets none aside.
        """
        found: dict[str, str] = {}
        for f in self.critical:
            if f.sets_aside and (f.unexpected <= FEW or f.unexpected <= MOST_SET_ASIDE * self.rows):
                for row in f.rows:
                    found.setdefault(row, f.rule)
        return found

    def demand(self) -> None:
        """DataRejected where a critical rule failed; the text names the rows and how to look at them."""
        critical = self.critical
        if not critical:
            return
        look = " `pawl lake quarantine` lists the rows that the next run leaves out." if self.set_aside() else ""
        page = f" The whole check is on {self.docs}." if self.docs else ""
        raise DataRejected(
            f"{self.suite}: {len(critical)} of {self.rules} rules failed on {self.rows} rows: "
            f"{'; '.join(_line(f) for f in critical)}. Nothing was trained.{look}{page} "
            "Mend their source, run again"
        )


def warnings_of(reports: Iterable[ValidationReport]) -> tuple[str, ...]:
    """What was found and did not stop the run, a line each."""
    return tuple(f"{r.suite}: {_line(f)}" for r in reports for f in r.failures if f.severity == "warning")


def _line(f: Failure) -> str:
    if not f.rows:
        return f"{f.rule} ({f.observed or f'{f.unexpected} row(s)'})"
    more = ", ..." if f.unexpected > 5 else ""
    return f"{f.rule}: {f.unexpected} row(s), e.g. {', '.join(f.rows[:5])}{more}"
