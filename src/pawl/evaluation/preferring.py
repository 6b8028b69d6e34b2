"""A judge's preferences between two answers, asked in both orders, and how far people share them (pure).

Models prefer what stands first or last (Zheng et al., "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena",
arXiv 2306.05685, sec. 3.4), so each pair is asked twice, and a preference that turns with the order is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from pawl.evaluation.clustered import clustered_mean
from pawl.evaluation.report import Interval, JudgeCard

_UNSEEN = 1.0  # pairs: that all of a few were shared does not say that the next one is (`resampling.standard_errors`)
Word = Literal["first", "second", "tie"]
Prefer = Callable[[str, str, str], Word]  # what was asked, first answer, second answer


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge says of two answers: 1 for the second, 0 for the first, 0.5 for neither."""

    value: float
    turned: bool = False  # the judge went by the order, so that it said nothing
    problem: str = ""  # it could not be asked: there is no value


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers of which people said which is better."""

    source: str
    prompt: str
    chosen: str
    rejected: str


def preferred(prefer: Prefer, prompt: str, first: str, second: str) -> Preference:
    """Ask in both orders. The same answer twice is a tie and is not asked; a judge that fails says nothing."""
    if first.strip() == second.strip():
        return Preference(value=0.5)
    try:
        forth, back = prefer(prompt, first, second), prefer(prompt, second, first)
    except Exception as e:  # whatever a server or a library does: the item is invalid, no answer is worse for it
        return Preference(value=0.5, problem=f"the judge failed: {type(e).__name__}: {e}"[:200])
    return both_orders(forth, back)


def both_orders(forth: Word, back: Word) -> Preference:
    """One preference from the words in both orders; `back` is of the answers exchanged."""
    turned_back: Word = {"first": "second", "second": "first", "tie": "tie"}[back]  # type: ignore[assignment]
    if forth == turned_back:
        return Preference(value={"first": 0.0, "second": 1.0, "tie": 0.5}[forth])
    # A preference in one order and a tie in the other is half of one.
    if "tie" in (forth, back):
        sure = turned_back if forth == "tie" else forth
        return Preference(value=0.25 if sure == "first" else 0.75)
    return Preference(value=0.5, turned=True)


def card(
    judge: str, known: Sequence[Known], said: Sequence[Preference], alpha: float, least: float, wanted: int
) -> JudgeCard:
    """How far the judge shares people's preferences: `said` are its words on (rejected, chosen), in that order."""
    asked = [(k, p) for k, p in zip(known, said, strict=True) if not p.problem]
    agreement: Interval = clustered_mean([(k.source, p.value) for k, p in asked], alpha, (0.0, 1.0), _UNSEEN)
    return JudgeCard(
        judge=judge,
        pairs=len(asked),
        agreement=agreement,
        turned=sum(p.turned for _, p in asked) / max(1, len(asked)),
        failed=len(known) - len(asked),
        trusted=len(asked) >= wanted and agreement.lower >= least,
        least=least,
        wanted=wanted,
    )
