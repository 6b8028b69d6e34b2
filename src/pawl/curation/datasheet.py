"""The datasheet of a dataset version, and what changed between two (pure; after Gebru et al. 2021, Datasheets)."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from pawl.curation.dataset import DatasetVersion, Example, name_of
from pawl.validation.report import ValidationReport

_SHOWN = 20


def datasheet(made: DatasetVersion, reports: Sequence[ValidationReport] = ()) -> str:
    """Markdown: what is in it, where it comes from, what each step dropped and why, and whether it is enough."""
    train = made.train
    sources, classes, kinds = (_count(made.train, field) for field in ("source", "scenario", "kind"))
    lines = [
        f"# Dataset {name_of(made)}",
        "",
        f"For the agent `{made.agent}`. Fingerprint `{made.fingerprint}`.",
        "",
        "| | |",
        "|---|---|",
        f"| examples | {', '.join(f'{n:,} {split}' for split, n in made.by_split.items())} |",
        f"| preference pairs | {len(made.pairs):,} ({_listed(Counter(p.origin for p in made.pairs))}) |",
        f"| recorded | {_day(made.since)} to {_day(made.until)} |",
        f"| sources that train | {len(sources):,}; the largest: {_listed(sources, 5)} |",
        f"| scenario classes | {_listed(classes)} |",
        f"| room for what fails | {_focus(made)} |",
        f"| how they came | {_listed(kinds)}; {sum(e.replayed for e in train):,} replayed |",
        f"| replaced by scrubbing | {_listed(Counter(made.scrubbed))} |",
        f"| privacy of the interactions | {_listed(_count(made.examples, 'privacy'))} |",
        f"| consent to learning | {_listed(Counter(e.consent or 'assumed' for e in made.examples))} |",
        f"| licence | {made.licence or 'not stated: data.licence in fleet.yaml'} |",
        "",
        "No source is in two splits. Personal data and secrets were looked for in every text; names and addresses of "
        "persons are found as well as rules can (docs/data.md has the measured share).",
        "",
        "## Steps",
        "| step | left | dropped | why |",
        "|---|---:|---:|---|",
        *(f"| {s.name} | {s.left:,} | {s.dropped:,} | {s.why} |" for s in made.steps),
        "",
        "## Readiness",
        *_card(made),
    ]
    if reports:
        lines += ["", "## Validation", *_validation(reports)]
    return "\n".join(lines) + "\n"


def _focus(made: DatasetVersion) -> str:
    share = float(made.spec.get("failing_share", 0.0))
    if not made.focus:
        return "none: no comparison of what serves now has classes that it fails in"
    return f"up to {share:.0%}: {'; '.join(c.told for c in made.focus)} held-out items"


def _card(made: DatasetVersion) -> list[str]:
    if made.card is None:
        return ["Not judged."]
    rows = [f"| {c.name} | {c.light} | {c.value} | {c.needed} |" for c in made.card.checks]
    return ["| | light | found | needed |", "|---|---|---|---|", *rows]


def _validation(reports: Iterable[ValidationReport]) -> list[str]:
    lines = ["| suite | rows | rules | not held |", "|---|---:|---:|---|"]
    for r in reports:
        found = "; ".join(f"{f.severity}: {f.rule} ({f.observed or f'{f.unexpected:,} rows'})" for f in r.failures)
        lines.append(f"| {r.suite} | {r.rows:,} | {r.rules} | {found or 'none'} |")
    return lines


class Change(msgspec.Struct, frozen=True):
    """One figure in two versions."""

    name: str
    before: float
    after: float


class Diff(msgspec.Struct, frozen=True):
    """What changed from one dataset version to another. Ids are those of examples."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]  # the same prompt, another answer or another split
    moved_sources: tuple[str, ...]  # in another split than before: a mixture of what was held out and what trains
    figures: tuple[Change, ...]


def diff(before: DatasetVersion, after: DatasetVersion) -> Diff:
    """From `before` to `after`."""
    old, new = ({e.id: e for e in d.examples} for d in (before, after))
    places = [{e.source: e.split for e in d.examples} for d in (before, after)]
    changed = (n for n in old.keys() & new.keys() if _core(old[n]) != _core(new[n]))
    moved = (s for s in places[0].keys() & places[1].keys() if places[0][s] != places[1][s])
    figures = [Change(f"{split} examples", n, after.by_split[split]) for split, n in before.by_split.items()]
    figures.append(Change("preference pairs", len(before.pairs), len(after.pairs)))
    figures.append(Change("sources that train", len(before.sources), len(after.sources)))
    figures.append(Change("mean quality", _quality(before), _quality(after)))
    for field in ("scenario", "kind"):
        one, two = _count(before.train, field), _count(after.train, field)
        figures += [Change(f"{field} {n or 'none'}", one[n], two[n]) for n in sorted(one.keys() | two.keys())]
    return Diff(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(changed)),
        moved_sources=tuple(sorted(moved)),
        figures=tuple(figures),
    )


def told(found: Diff, before: str, after: str) -> str:
    """A diff for people."""
    lines = [f"{before} -> {after}", ""]
    width = max(len(c.name) for c in found.figures)
    lines += [f"  {c.name:{width}}  {_figure(c.before):>10} -> {_figure(c.after):>10}" for c in found.figures]
    for name, ids in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
        lines += ["", f"{name}: {len(ids):,} {', '.join(ids[:_SHOWN])}{more}".rstrip()]
    if found.moved_sources:
        names = ", ".join(found.moved_sources[:_SHOWN])
        lines += ["", f"sources in another split than before: {names}; a comparison across them is not clean"]
    return "\n".join(lines)


def _core(e: Example) -> tuple[object, ...]:
    return e.messages, e.completion, e.source, e.split


def _quality(d: DatasetVersion) -> float:
    return sum(e.quality for e in d.train) / len(d.train) if d.train else 0.0


def _count(examples: Iterable[Example], field: str) -> Counter[str]:
    return Counter(getattr(e, field) for e in examples)


def _listed(counts: Counter[str], most: int = 12) -> str:
    rest = len(counts) - most
    shown = ", ".join(f"{name or 'unnamed'} {n:,}" for name, n in counts.most_common(most))
    return (shown + (f" and {rest:,} more" if rest > 0 else "")) or "none"


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _day(at: float | None) -> str:
    return "-" if at is None else dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
