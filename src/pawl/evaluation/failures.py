"""How answers fail, named and counted, and what of it is new (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pawl.evaluation.report import ItemResult, Pattern

MOST, EXAMPLES = 20, 5
UNNAMED, REST = "unnamed", "other"


def failures(
    champion: Sequence[ItemResult],
    challenger: Sequence[ItemResult],
    name_of: Callable[[ItemResult], str],
    pass_score: float,
) -> tuple[Pattern, ...]:
    """Ways of failing over the items that both were graded on, most of them newly broken first.

    An answer failed where it scores below `pass_score`; `name_of` is the task's word for how (`Task.cluster_key`).
    Beyond MOST patterns the rarest are put together.
    """
    before = {i.item: i for i in champion if i.score is not None}
    pairs = [(before[i.item], i) for i in challenger if i.score is not None and i.item in before]
    pairs.sort(key=lambda pair: pair[1].item)
    failed: dict[str, dict[str, list[ItemResult]]] = {}

    def note(name: str, side: str, answer: ItemResult) -> None:
        failed.setdefault(name, {"old": [], "new": [], "broken": [], "mended": []})[side].append(answer)

    def name(answer: ItemResult) -> str:
        return name_of(answer) or ("no answer" if not answer.completion.strip() else UNNAMED)

    for old, new in pairs:
        was, now = ((a.score or 0.0) < pass_score for a in (old, new))
        if was:
            note(name(old), "old", old)
            if not now:
                note(name(old), "mended", old)
        if now:
            note(name(new), "new", new)
            if not was:
                note(name(new), "broken", new)
    size = {n: len(sides["old"]) + len(sides["new"]) for n, sides in failed.items()}
    kept = sorted(size, key=lambda n: (-size[n], n))
    for rare in kept[MOST:]:
        for side, answers in failed.pop(rare).items():
            for answer in answers:
                note(REST, side, answer)
    return tuple(
        sorted((_pattern(n, sides) for n, sides in failed.items()), key=lambda p: (-p.broken, -p.challenger, p.name))
    )


def _pattern(name: str, sides: dict[str, list[ItemResult]]) -> Pattern:
    shown = dict.fromkeys(a.item for side in ("broken", "new", "old") for a in sides[side])
    return Pattern(
        name=name,
        champion=len(sides["old"]),
        challenger=len(sides["new"]),
        broken=len(sides["broken"]),
        mended=len(sides["mended"]),
        sources=len({a.source for side in ("old", "new") for a in sides[side]}),
        examples=tuple(shown)[:EXAMPLES],
        champion_classes=_classes(sides["old"]),
        challenger_classes=_classes(sides["new"]),
    )


def _classes(answers: Sequence[ItemResult]) -> dict[str, int]:
    return dict(sorted(Counter(a.scenario for a in answers if a.scenario).items()))
