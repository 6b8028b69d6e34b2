"""Prepare: from a window of recorded traffic to a validated dataset version on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation import regression
from pawl.curation.candidates_duckdb import Candidates
from pawl.curation.dataset import DatasetVersion, Example, Split
from pawl.curation.files import write_whole
from pawl.curation.permission import MODES, refusal
from pawl.curation.pool import HeldOut
from pawl.curation.prepare import Surroundings, contaminated
from pawl.curation.prepare import prepare as build
from pawl.curation.readiness import Accuracy
from pawl.curation.texts import in_turn, texts_of, with_texts
from pawl.errors import DataRejected, LakeError
from pawl.fleet.data import DataSpec
from pawl.fleet.spec import AgentSpec
from pawl.improvement.failing_classes import classes_by_content, focus
from pawl.improvement.held_out import held_out, side_of, split_of
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
    from pawl.validation.rules import Context

_MOST_FAILURES = 2_000  # newest ones that the regression suite is chosen from
_WORKERS = 2  # processes that scrub, where there is enough to scrub


def prepare(place: Workplace, window: Window, spec: DataSpec, on_progress: OnProgress) -> Path:
    """Validate the window and turn it into a dataset version; returns its file.

    DataRejected names the rows that failed, and they are in the quarantine then; NotEnoughData says how many examples
    are missing; LakeError where the lake changed under the run, which can be run again.
    """
    made, reports = _Run(place, window, spec, on_progress).made()
    path = datasets.save(made, place.settings.datasets_dir)
    write_whole(_reports_path(path), msgspec.json.encode(reports))
    on_progress("prepared", 1, 1, datasets.name_of(made))
    return path


def rehearse(
    place: Workplace, window: Window, spec: DataSpec, on_progress: OnProgress
) -> tuple[DatasetVersion, list[ValidationReport]]:
    """The same, and nothing is kept: no dataset, no quarantine, no page, no regression item."""
    return _Run(place, window, spec, on_progress, is_rehearsal=True).made()


def reports_of(dataset: Path) -> list[ValidationReport]:
    """What validation found on the way to a dataset version, warnings too. LakeError where it cannot be read."""
    path = _reports_path(dataset)
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ValidationReport])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"{path} cannot be read: {e}; prepare the dataset anew") from e


def _reports_path(dataset: Path) -> Path:
    return dataset.with_suffix(".validation.json")


@dataclass(frozen=True)
class _Run:
    """One preparation; what several of its steps need is looked up once."""

    place: Workplace
    window: Window
    spec: DataSpec
    tell: OnProgress
    is_rehearsal: bool = False
    now: float = field(default_factory=time.time)  # epoch seconds

    def made(self) -> tuple[DatasetVersion, list[ValidationReport]]:
        place, spec, window = self.place, self.spec, self.window
        with open_window(place.lake, place.agent_name, window.since, window.until, spec.late_days) as db:
            self.tell("validating", 0, 1, "interactions and feedback")
            reports = self._checked_window(db)
            candidates = Candidates(db, spec, self._aside(), self._calibration() if spec.calibrated else None)
            suite = self._suite(candidates)
            side = self._side
            held = held_out(self._agent, self._task, suite)
            focused = focus(place) if spec.failing_share else ()
            around = Surroundings(
                task=self._task,
                side=side,
                scrub=self._scrub,
                now=self.now,
                held_out=held,
                # The items' own sources too: a border of the split may have moved since.
                reserved=frozenset({*suite.reserved, *(i.source for i in suite.items if side(i.source) == "train")}),
                replay=self._replay(),
                accuracy=self._accuracy(),
                licence=spec.licence,
                embed=self._embedder(),
                focus=focused,
                classes=classes_by_content(self._task, split_of(self._agent).train) if focused else {},
                tell=lambda step, done, total: self.tell(f"preparing: {step}", done, total, ""),
            )
            made = build(place.agent_name, spec, candidates, around)
        self.tell("validating", 0, 1, "the dataset")
        return made, [*reports, self._checked_dataset(made, held)]

    @cached_property
    def _agent(self) -> AgentSpec:
        return self.place.agent.model_copy(update={"data": self.spec})

    @cached_property
    def _task(self) -> Task:
        return task_of(self._agent.task)

    @cached_property
    def _side(self) -> Callable[[str], Split]:
        return side_of(self._agent)

    # -- validation

    def _checked_window(self, db: Connection) -> list[ValidationReport]:
        from pawl.validation import frames_duckdb as frames
        from pawl.validation import great_expectations_suite as suites

        aside = self._aside()
        found = {"interactions": frames.interactions(db), "feedback": frames.feedback(db, lake="recorded")}
        reports = []
        for table, validate in (
            ("interactions", suites.validate_interactions),
            ("feedback", suites.validate_feedback),
        ):
            rows = found[table]
            rows = rows[~rows["id"].isin(aside[table])] if aside.get(table) else rows
            if len(rows) or self.spec.teachers != ("bugs",):  # who learns from reports alone needs no traffic
                reports.append(validate(rows, self._context(table), self._docs))
        self._stop_where_critical(reports)
        return reports

    def _context(self, table: str) -> Context:
        from pawl.validation.rules import DAY, Context
        from pawl.validation.volume import rows_a_day

        since, objects = self.window.since, self.place.lake.manifest().objects
        end = self.now if self.window.until is None else self.window.until
        return Context(
            now=end,
            clock=self.now,
            days=None if since is None else max((end - since) / DAY, 1e-6),
            history=() if since is None else rows_a_day(objects, table, self.place.agent_name, since),
            languages=self.spec.languages,
            max_class_share=self.spec.max_class_share,
        )

    def _checked_dataset(self, made: DatasetVersion, held: Sequence[HeldOut]) -> ValidationReport:
        """By rules that believe none of the steps before."""
        from pawl.validation import great_expectations_suite as suites
        from pawl.validation.frames_examples import examples as frame_of
        from pawl.validation.rules import Context

        known = self._recorded([*made.examples, *made.pairs])
        if not all(i in known for p in made.pairs for i in p.interactions):
            raise LakeError("interactions were erased while the dataset was prepared; nothing was kept, run it again")
        bad = contaminated(made, held, self._task, self.spec.near_duplicate)
        frame = frame_of(
            [msgspec.to_builtins(e) for e in made.examples],
            conforms=self._task.conforms,
            contaminated=bad,
            interactions=known,
        )
        context = Context(max_class_share=self.spec.max_class_share, answers="schema")
        report = suites.validate_dataset(frame, context, self._docs)
        report.demand()
        if pairs := sorted(p.id for p in made.pairs if p.id in bad):
            raise DataRejected(f"preference pairs nearly repeat what is held out: {', '.join(pairs[:5])}")
        return report

    def _stop_where_critical(self, reports: Iterable[ValidationReport]) -> None:
        """Quarantine the rows of critical failures, then stop. DataRejected names them."""
        for report in reports:
            rows = report.set_aside()
            if rows and not self.is_rehearsal:
                self.place.control.quarantine(report.suite, self.place.agent_name, rows, self.now)
        for report in reports:
            report.demand()

    def _aside(self) -> dict[str, list[str]]:
        """Ids in quarantine, by table."""
        found: dict[str, list[str]] = {}
        for entry in self.place.control.quarantined(self.place.agent_name):
            found.setdefault(entry.table, []).append(entry.row)
        return found

    @cached_property
    def _docs(self) -> Docs | None:
        from pawl.validation.data_docs_great_expectations import Docs

        folder = self.place.settings.validation_dir.resolve()
        return None if self.is_rehearsal else Docs(folder=folder, name=self.place.agent_name, at=self.now)

    # -- what comes from elsewhere

    def _suite(self, candidates: Candidates) -> regression.Suite:
        """The regression suite with this window's failures, scrubbed before they are kept."""
        seen = regression.failures(candidates.failures(_MOST_FAILURES), self._task)
        trained = self._trained()

        def grow(suite: regression.Suite) -> regression.Suite:
            grown = regression.grown(
                suite, seen, self._task, self._side, most=self.spec.regression_items, now=self.now, trained=trained
            )
            fresh = grown.items[len(suite.items) :]
            clean = []
            for item, scrubbed in zip(fresh, self._scrub(texts_of(i.messages) for i in fresh), strict=True):
                messages = with_texts(item.messages, in_turn(scrubbed.texts))
                content = self._task.content_of(messages)
                clean.append(msgspec.structs.replace(item, messages=messages, content=content))
            return msgspec.structs.replace(grown, items=(*suite.items, *clean))

        folder, agent = self.place.settings.regression_dir, self.place.agent_name
        return grow(regression.load(folder, agent)) if self.is_rehearsal else regression.change(folder, agent, grow)

    def _trained(self) -> frozenset[str]:
        """Sources that any dataset version trained on: a test made of one would be answered from memory."""
        found: set[str] = set()
        for path in self.place.settings.datasets_dir.glob(f"{self.place.agent_name}-*.json"):
            if datasets.is_dataset(path):
                with _readable(path):
                    found.update(msgspec.json.decode(path.read_bytes(), type=_Sources).sources)
        return frozenset(found)

    def _replay(self) -> list[Example]:
        """Examples of the dataset that the champion was trained on: what promotion has vouched for, nothing else.

        What was erased from the lake or put into quarantine since does not come back through them.
        """
        place = self.place
        champion = place.registry.by_alias(place.agent_name, "champion") if self.spec.replay_share > 0 else None
        if champion is None or "dataset" not in champion.tags:
            return []
        path = place.settings.datasets_dir / champion.tags["dataset"]
        if not path.exists():
            return []
        version = datasets.load(path)
        if version.v < 3 and set(self.spec.privacy) != set(MODES):
            return []  # its examples do not tell their privacy
        older = [e for e in version.train if e.kind != "variant" and not refusal(self.spec, e.privacy, e.consent)]
        known = self._recorded(older) - set(self._aside().get("interactions", ()))
        return [e for e in older if all(i in known for i in e.interactions)]

    def _recorded(self, items: Iterable[Any]) -> set[str]:
        """Of the records that these come from, those that the lake still holds."""
        ids = {i for item in items for i in item.interactions}
        known = set(self.place.lake.owners(ids))
        if left := ids - known:
            known |= left & {o.id for o in self.place.lake.observations(self.place.agent_name, None, None)}
        return known

    def _accuracy(self) -> Accuracy | None:
        """What raters of the latest review said."""
        from pawl.review.verdicts import latest_accuracy

        found = latest_accuracy(self.place.settings.reviews_dir, self.place.agent_name)
        if found is None or not found.right + found.wrong:
            return None
        return Accuracy(found.estimate, found.lower, found.upper, found.right + found.wrong)

    def _calibration(self) -> Callable[[float], float] | None:
        """The line that the latest review gave, where it predicts better than the score itself."""
        from pawl.review.calibration import calibrate

        found = Reviews(self.place.settings.reviews_dir).calibration(self.place.agent_name)
        return partial(calibrate, found.knots) if found is not None and found.helps else None

    def _embedder(self) -> Callable[[list[str]], Any] | None:
        if self.spec.embeddings == "lsa":
            return None
        from pawl.serving.embeddings_transformers import Embedder

        model = Embedder(self.spec.embeddings)
        return lambda texts: model.embed(texts)[0]

    def _scrub(self, examples: Iterable[Sequence[str]]) -> Iterator[Scrubbed]:
        from pawl.scrubbing.scrubber_presidio import scrub_all

        return scrub_all(examples, names=self.spec.scrub_names, workers=_WORKERS)


class _Sources(msgspec.Struct):
    sources: tuple[str, ...] = ()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"the dataset {path} cannot be read: {e}; prepare it anew") from e
