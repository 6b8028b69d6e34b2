"""Prepare: from a window of recorded traffic to a validated dataset version on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation import regression
from pawl.curation.candidates_duckdb import Candidates
from pawl.curation.dataset import DatasetVersion, Example
from pawl.curation.pool import HeldOut
from pawl.curation.prepare import Surroundings, contaminated, with_texts
from pawl.curation.prepare import prepare as build
from pawl.curation.readiness import Accuracy
from pawl.fleet.data import DataSpec
from pawl.improvement.held_out import held_out, side_of
from pawl.improvement.steps import OnProgress, Window
from pawl.improvement.workplace import Workplace
from pawl.lake.window_duckdb import Connection
from pawl.lake.window_duckdb import window as open_window
from pawl.qe.task import Task
from pawl.qe.tasks import task_of
from pawl.review.files import Reviews
from pawl.scrubbing.scrub import Scrubbed
from pawl.validation.report import ValidationReport

if TYPE_CHECKING:
    from pawl.validation.data_docs_great_expectations import Docs

_MOST_FAILURES = 2_000  # newest ones that the regression suite is chosen from
_WORKERS = 2  # processes that scrub, where there is enough to scrub


def prepare(
    place: Workplace, window: Window, spec: DataSpec, on_progress: OnProgress, *, dry_run: bool = False
) -> Path:
    """Validate the window and turn it into a dataset version; returns its file.

    DataRejected names the rows that failed, and they are in the quarantine then; NotEnoughData says how many examples
    are missing. With `dry_run` everything is computed and only the dataset is written, into a folder of its own.
    """
    agent = place.agent.model_copy(update={"data": spec})
    task = task_of(agent.task)
    now = time.time()
    with open_window(place.lake, agent.name, window.since, window.until, spec.late_days) as db:
        on_progress("validating", 0, 1, "interactions and feedback")
        reports = _validate_window(place, db, window, spec, now)
        aside = [q.row for q in place.control.quarantined(agent.name)]
        candidates = Candidates(db, spec, aside, _calibration(place) if spec.calibrated else None)
        side = side_of(agent)
        replay = _replay(place, spec)
        suite = _suite(place, candidates, task, spec, now, dry_run=dry_run)
        held = held_out(agent, task, suite)
        around = Surroundings(
            task=task,
            side=side,
            scrub=partial(_scrub, names=spec.scrub_names),
            now=now if window.until is None else window.until,
            held_out=held,
            reserved=frozenset(suite.reserved),
            replay=replay,
            accuracy=_accuracy(place),
            licence=spec.licence,
            embed=_embedder(spec),
            tell=lambda step, done, total: on_progress(f"preparing: {step}", done, total, ""),
        )
        made = build(agent.name, spec, candidates, around)
    on_progress("validating", 0, 1, "the dataset")
    reports.append(_validate_dataset(place, made, held, task, spec, now))
    folder = place.settings.datasets_dir / "dry-run" if dry_run else place.settings.datasets_dir
    path = datasets.save(made, folder)
    path.with_suffix(".validation.json").write_bytes(msgspec.json.encode(reports))
    on_progress("prepared", 1, 1, datasets.name_of(made))
    return path


def reports_of(dataset: Path) -> list[ValidationReport]:
    """What validation found on the way to a dataset version, warnings too."""
    path = dataset.with_suffix(".validation.json")
    return msgspec.json.decode(path.read_bytes(), type=list[ValidationReport]) if path.exists() else []


def _validate_window(
    place: Workplace, db: Connection, window: Window, spec: DataSpec, now: float
) -> list[ValidationReport]:
    from pawl.validation import frames_duckdb as frames
    from pawl.validation import great_expectations_suite as suites
    from pawl.validation.rules import DAY, Context
    from pawl.validation.volume import rows_a_day

    agent = place.agent_name
    end = now if window.until is None else window.until
    days = None if window.since is None else max((end - window.since) / DAY, 1e-6)
    aside = {q.row for q in place.control.quarantined(agent)}

    def context(table: str) -> Context:
        before = () if window.since is None else rows_a_day(place.lake.manifest().objects, table, agent, window.since)
        return Context(
            now=end, days=days, history=before, languages=spec.languages, max_class_share=spec.max_class_share
        )

    docs = _docs(place, now)
    reports = []
    for table, frame, validate in (
        ("interactions", frames.interactions, suites.validate_interactions),
        ("feedback", frames.feedback, suites.validate_feedback),
    ):
        rows = frame(db)
        rows = rows[~rows["id"].isin(aside)] if aside else rows
        reports.append(validate(rows, context(table), docs))
    _stop_where_critical(place, reports, now)
    return reports


def _validate_dataset(
    place: Workplace, made: DatasetVersion, held: Sequence[HeldOut], task: Task, spec: DataSpec, now: float
) -> ValidationReport:
    from pawl.validation import great_expectations_suite as suites
    from pawl.validation.frames_examples import examples as frame_of
    from pawl.validation.rules import Context

    ids = {i for e in made.examples for i in e.interactions}
    frame = frame_of(
        [msgspec.to_builtins(e) for e in made.examples],
        conforms=task.conforms,
        contaminated=contaminated(made, held, task, spec.near_duplicate),
        interactions=set(place.lake.owners(ids)) | _observed(made),
    )
    context = Context(max_class_share=spec.max_class_share, answers="schema")
    report = suites.validate_dataset(frame, context, _docs(place, now))
    _stop_where_critical(place, [report], now)
    return report


def _docs(place: Workplace, now: float) -> Docs:
    from pawl.validation.data_docs_great_expectations import Docs

    return Docs(folder=place.settings.validation_dir.resolve(), name=place.agent_name, at=now)


def _observed(made: DatasetVersion) -> set[str]:
    """Ids of observations that examples come from: they are no interactions."""
    return {i for e in made.examples if e.kind == "bug" for i in e.interactions}


def _stop_where_critical(place: Workplace, reports: Iterable[ValidationReport], now: float) -> None:
    """Quarantine the rows of critical failures, then stop. DataRejected names them."""
    for report in reports:
        rows = report.set_aside()
        if rows and report.suite != "dataset":
            place.control.quarantine(report.suite, place.agent_name, rows, now)
    for report in reports:
        report.demand()


def _suite(
    place: Workplace, candidates: Candidates, task: Task, spec: DataSpec, now: float, *, dry_run: bool
) -> regression.Suite:
    """The regression suite with this window's failures, scrubbed before they are kept."""
    folder = place.settings.regression_dir
    suite = regression.load(folder, place.agent_name)
    side = side_of(place.agent.model_copy(update={"data": spec}))
    seen = regression.failures(candidates.failures(_MOST_FAILURES), task)
    grown = regression.grown(suite, seen, task, side, most=spec.regression_items, now=now, trained=_trained(place))
    fresh = grown.items[len(suite.items) :]
    if not fresh:
        return grown
    texts: list[list[str]] = [[] for _ in fresh]
    for item, found in zip(fresh, texts, strict=True):
        with_texts(item.messages, found.append)
    clean = []
    for item, scrubbed in zip(fresh, _scrub(texts, names=spec.scrub_names), strict=True):
        left = iter(scrubbed.texts)
        messages = with_texts(item.messages, lambda _, left=left: next(left))  # type: ignore[misc]
        clean.append(msgspec.structs.replace(item, messages=messages, content=task.content_of(messages)))
    made = msgspec.structs.replace(grown, items=(*suite.items, *clean))
    if not dry_run:
        regression.save(made, folder)
    return made


class _Sources(msgspec.Struct):
    sources: tuple[str, ...] = ()


def _trained(place: Workplace) -> frozenset[str]:
    """Sources that any dataset version trained on: a test made of one would be answered from memory."""
    found: set[str] = set()
    for path in place.settings.datasets_dir.glob("*.json"):
        if datasets.is_dataset(path) and path.name.startswith(f"{place.agent_name}-"):
            found.update(msgspec.json.decode(path.read_bytes(), type=_Sources).sources)
    return frozenset(found)


def _replay(place: Workplace, spec: DataSpec) -> list[Example]:
    """Examples of the dataset that the champion was trained on: what promotion has vouched for, nothing else.

    What was erased from the lake since does not come back through them.
    """
    champion = place.registry.by_alias(place.agent_name, "champion") if spec.replay_share > 0 else None
    if champion is None or "dataset" not in champion.tags:
        return []
    path = place.settings.datasets_dir / champion.tags["dataset"]
    if not path.exists():
        return []
    older = [e for e in datasets.load(path).train if e.kind != "variant"]
    known = place.lake.owners({i for e in older for i in e.interactions})
    return [e for e in older if e.kind == "bug" or all(i in known for i in e.interactions)]


def _accuracy(place: Workplace) -> Accuracy | None:
    """What raters of the latest finished review said."""
    from pawl.review.verdicts import latest_accuracy

    found = latest_accuracy(place.settings.reviews_dir, place.agent_name)
    if found is None or not found.right + found.wrong:
        return None
    return Accuracy(found.estimate, found.lower, found.upper, found.right + found.wrong)


def _calibration(place: Workplace) -> Callable[[float], float] | None:
    """The line that the latest review gave, where it predicts better than the score itself."""
    from pawl.review.calibration import calibrate

    found = Reviews(place.settings.reviews_dir).calibration(place.agent_name)
    return partial(calibrate, found.knots) if found is not None and found.helps else None


def _embedder(spec: DataSpec) -> Callable[[list[str]], Any] | None:
    if spec.embeddings == "lsa":
        return None
    from pawl.serving.embeddings_transformers import Embedder

    model = Embedder(spec.embeddings)
    return lambda texts: model.embed(texts)[0]


def _scrub(examples: Iterable[Sequence[str]], *, names: bool) -> Iterator[Scrubbed]:
    from pawl.scrubbing.scrubber_presidio import scrub_all

    return scrub_all(examples, names=names, workers=_WORKERS)
