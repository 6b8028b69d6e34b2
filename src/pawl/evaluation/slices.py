"""The comparison on parts of the items: by scenario, and by whether the answers have the promised form (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace

from pawl.evaluation.clustered import difference, difference_bounds, holm, sign_flip
from pawl.evaluation.report import ItemResult, Slice

Pair = tuple[ItemResult, ItemResult]  # champion, challenger; both graded
By = Literal["scenario", "conforms"]
FORMS = ("neither conforms", "one conforms", "both conform")


def slices_of(
    pairs: Sequence[Pair], alpha: float, protected: Sequence[str] = (), beyond: Sequence[Pair] = ()
) -> tuple[Slice, ...]:
    """All slices that have an item, those by scenario first.

    By form an item is in the slice that says how many of its two answers conform, whichever: a slice of one model's
    own successes would always show the other to be worse. Holm's correction is over the slices by scenario and by form
    together, without those that could not reach alpha however they went (Tarone, "A modified Bonferroni method for
    discrete data", Biometrics 46, 1990). Protected slices are corrected among themselves.
    `beyond`: items that were asked for the protected scenario classes alone. They are in no other slice: those by form
    would else be about other items than the comparison.
    """
    parts: dict[tuple[By, str], list[Pair]] = {}
    for old, new in pairs:
        if new.scenario:
            parts.setdefault(("scenario", new.scenario), []).append((old, new))
        parts.setdefault(("conforms", FORMS[old.conforms + new.conforms]), []).append((old, new))
    more = Counter(new.scenario for _, new in beyond if new.scenario in protected)
    for old, new in beyond:
        if new.scenario in protected:
            parts.setdefault(("scenario", new.scenario), []).append((old, new))
    keys = sorted(parts, key=lambda key: (key[0] != "scenario", key[1]))
    found = [_slice(by, name, parts[by, name], alpha, name in protected) for by, name in keys]
    adjusted: dict[int, tuple[float, float]] = {}
    for family in (True, False):
        able = [n for n, (s, least) in enumerate(found) if s.protected is family and least < alpha]
        better = holm([found[n][0].p_better for n in able])
        worse = holm([found[n][0].p_worse for n in able])
        adjusted |= dict(zip(able, zip(better, worse, strict=True), strict=True))
    return tuple(
        replace(s, holm_better=better, holm_worse=worse, beyond=more[s.name] if s.by == "scenario" else 0)
        for (s, _), (better, worse) in zip(found, (adjusted.get(n, (1.0, 1.0)) for n in range(len(found))), strict=True)
    )


def _slice(by: By, name: str, pairs: Sequence[Pair], alpha: float, protected: bool) -> tuple[Slice, float]:
    """The slice without its correction, and the smallest p-value that it could have had."""
    rows = [(new.source, float(new.score or 0.0) - float(old.score or 0.0)) for old, new in pairs]
    sums: dict[str, float] = {}
    for source, value in rows:
        sums[source] = sums.get(source, 0.0) + value
    differing = sum(abs(v) > 1e-9 for v in sums.values())
    p_better, p_worse = sign_flip(rows)
    made = Slice(
        name=name,
        by=by,
        items=len(pairs),
        sources=len(sums),
        champion=sum(float(old.score or 0.0) for old, _ in pairs) / len(pairs),
        challenger=sum(float(new.score or 0.0) for _, new in pairs) / len(pairs),
        difference=difference(rows, alpha),
        loss_at_most=0.0 - difference_bounds(rows, alpha).lower,
        p_better=p_better,
        p_worse=p_worse,
        holm_better=1.0,
        holm_worse=1.0,
        protected=protected,
    )
    return made, 0.5**differing
