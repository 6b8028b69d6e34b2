"""The search for an agent's training settings: real trainings, shown as nested runs, ending in a proposal."""

from __future__ import annotations

import gc
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.curation.files import write_whole
from pawl.errors import ConfigError, NotEnoughData, TrainingFailed
from pawl.fleet.training import TrainingSpec
from pawl.improvement.following import ended, told
from pawl.improvement.steps import OnProgress, code_version
from pawl.improvement.workplace import Workplace
from pawl.registry.run_log import Kept, RunLog, flat, progress_metrics
from pawl.training.proposal_yaml import diff, proposal
from pawl.training.result import Progress
from pawl.training.search import ExampleLoss, Trial, TrialStopped, best_of, problems, trial_spec
from pawl.training.search_optuna import Reporter
from pawl.training.search_optuna import search as run_trials
from pawl.training.search_report import SearchReport, markdown, report_of

QUARTER = 0.25


class Searched(msgspec.Struct, frozen=True):
    """What a search left."""

    report: SearchReport
    diff: str  # of fleet.yaml, empty where nothing is proposed
    markdown: str
    proposal: Path
    plot: Path


def newest_dataset(folder: Path, agent: str) -> Path:
    """The agent's dataset version that was made last. NotEnoughData where there is none."""
    found = [p for p in folder.glob("*.json") if datasets.is_dataset(p) and datasets.load(p).agent == agent]
    if not found:
        raise NotEnoughData(f"{agent} has no dataset to search on; `pawl dataset prepare {agent}` makes one")
    return max(found, key=lambda p: p.stat().st_mtime)


def search(
    place: Workplace,
    dataset: Path,
    on_progress: OnProgress,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Searched:
    """Search `search` of the agent's spec for settings with a lower validation loss than `training` has.

    `trials` and `minutes` stand in for the spec's. A search that was cut off goes on; one that is finished ends at
    once. Writes `search/<agent>-proposal.yaml`, its page and its plot under PAWL_HOME, and changes nothing else.

    Raises PolicyViolation and ModelFileError as training does, ConfigError (the space), NotEnoughData (no validation
    examples), ResourceError (the budget is too small for the present settings), and what training raises.
    """
    work = _Work(place, dataset)
    spec, space = place.agent.training, place.agent.search
    wrong = problems(spec, space, continues=work.continues)
    if wrong:
        raise ConfigError(str(place.settings.fleet), wrong)
    if not work.version.by_split["validation"]:
        raise NotEnoughData(f"{dataset.stem} has no validation examples to compare settings by; prepare it again")
    parent = place.runs.open(
        place.agent_name,
        f"search {dataset.stem}",
        params={f"search.{k}": v for k, v in flat(space).items()} | flat(spec),
        tags={**work.tags, "kind": "search"},
        keep=work.run_file,
    )

    def noted(trial: Trial) -> None:
        if trial.loss is not None:
            parent.metrics({"trial/validation_loss": trial.loss}, trial.number)
        on_trial(trial)

    with ended(parent):
        found = run_trials(
            work.storage,
            work.key,
            spec,
            space,
            work.trial,
            trials=trials or space.trials,
            minutes=minutes or space.minutes,
            continues=work.continues,
            workers=place.workers,
            on_trial=noted,
            on_step=lambda number, *progress: on_progress(f"trial {number}", *progress),
        )
        done = work.conclude(spec, found, parent)
    return done


class _Work:
    """One search's data, base model and folder, whose trials may run on other machines."""

    def __init__(self, place: Workplace, dataset: Path) -> None:
        from pawl.improvement.allowed import demand_allowed
        from pawl.improvement.base_quality import demand_measured
        from pawl.improvement.starting import start_of
        from pawl.training.base_model_transformers import base_sha256, prepare_base

        self._place, self._dataset = place, dataset.absolute()
        self.version: DatasetVersion = datasets.load(dataset)
        demand_allowed(place, self.version)
        self.base = prepare_base(place.fleet.base_model.source, place.settings.models_dir).absolute()
        demand_allowed(place, self.version, self.base)
        demand_measured(place, self.base)
        start = start_of(place, place.agent.training, self.base)
        self.continues = start.adapter is not None
        space = place.agent.search.model_dump_json(exclude={"trials", "minutes"})
        what = [self.version.fingerprint, place.agent.training.model_dump_json(), space, base_sha256(self.base)]
        what.append(start.arm.name)
        # The same question, whose trials can be compared; another one begins anew, in the same file.
        self.key = hashlib.sha256("\0".join(what).encode()).hexdigest()[:12]
        self.home = place.settings.home.absolute() / "search"
        name = place.agent_name
        named = dataset.stem if dataset.stem.startswith(f"{name}-") else f"{name}-{dataset.stem}"
        self.storage = self.home / f"{named}.sqlite3"
        self.folder = self.home / "trials" / f"{place.agent_name}-{self.key}"
        self.tags = {
            "agent": place.agent_name,
            "dataset": dataset.stem,
            "search": self.key,
            "code_version": code_version(),
        }

    @property
    def run_file(self) -> Path:
        """Keeps the id of the experiment run that the trials are shown under."""
        return self.folder / "run.id"

    def trial(self, number: int, spec: TrainingSpec, watch: Reporter) -> float:
        """Train by the spec and measure: mean nats a token over the validation split."""
        from pawl.training.peft_trainer import train
        from pawl.training.validation_peft import example_losses

        folder = self._folder_of(spec)
        if (folder / "losses.json").exists():  # measured, and killed before that was noted
            return _mean(self._losses(spec))
        trained = trial_spec(spec)
        run = self._place.runs.open(
            self._place.agent_name,
            f"trial {number}",
            params=flat(spec),
            tags={**self.tags, "kind": "trial", "trial": str(number), "method": spec.method},
            keep=folder / "run.id",
            parent=Kept(self.run_file),
        )

        def step(p: Progress) -> None:
            run.metrics(progress_metrics(p), p.step)
            watch.step(p.step, p.steps, told(p))

        def look(share: float, losses: list[float]) -> None:
            loss = sum(losses) / len(losses)
            run.metrics({"validation/loss": loss}, round(100 * share))
            watch.validation(share, loss)

        try:
            with ended(run):
                train(
                    self._dataset,
                    trained,
                    self.base,
                    folder / "training",
                    start_adapter=self._start(trained),
                    on_progress=step,
                    on_validation=look,
                    validate_every=QUARTER,
                )
                adapter = folder / "training" / "adapter"
                losses = example_losses(self.base, adapter, self.version, spec.max_tokens)
                loss = _mean(losses)
                run.metrics({"validation_loss": loss})
                write_whole(folder / "losses.json", msgspec.json.encode(losses))
        except TrialStopped:
            if not watch.first:  # with more minutes that one goes on
                shutil.rmtree(folder / "training", ignore_errors=True)
            raise
        except RuntimeError as e:
            if "out of memory" not in str(e).lower():
                raise
            raise TrainingFailed(f"out of memory with rank {spec.rank}, batch_size {spec.batch_size}: {e}") from e
        finally:
            gc.collect()  # a model a trial: the next one needs the room
        # A proposal is settings, not weights.
        shutil.rmtree(folder / "training", ignore_errors=True)
        return loss

    def conclude(self, spec: TrainingSpec, trials: list[Trial], parent: RunLog) -> Searched:
        """Evidence, proposal, page and plot of what was tried."""
        from pawl.monitoring.search_plot_matplotlib import draw

        best, first = best_of(trials), next(t for t in trials if t.present)
        assert best is not None  # the first trial is complete, or the search has raised
        report = report_of(
            self._place.agent_name,
            self._dataset.stem,
            self.version.fingerprint,
            self.tags["code_version"],
            spec,
            trials,
            self._losses(first.spec),
            self._losses(best.spec),
        )
        text = self._place.settings.fleet.read_text()
        change = diff(text, report.agent, best.spec, self._place.settings.fleet.name)
        page = markdown(report, change)
        target = self.home / f"{report.agent}-proposal.yaml"
        plot = self.home / f"{report.agent}-search.png"
        draw(report, plot)
        write_whole(target, proposal(report).encode())
        write_whole(target.with_suffix(".md"), page.encode())
        for path in (target, target.with_suffix(".md"), plot):
            parent.file(path)
        parent.tag("verdict", report.verdict)
        return Searched(report, change, page, target, plot)

    def _losses(self, spec: TrainingSpec) -> list[ExampleLoss]:
        return msgspec.json.decode((self._folder_of(spec) / "losses.json").read_bytes(), type=list[ExampleLoss])

    def _folder_of(self, spec: TrainingSpec) -> Path:
        """The same settings, the same folder: a trial that is tried again goes on from its checkpoint."""
        return self.folder / hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12]

    def _start(self, spec: TrainingSpec) -> Path | None:
        from pawl.improvement.starting import start_of

        return start_of(self._place, spec, self.base).adapter


def _mean(losses: list[ExampleLoss]) -> float:
    return sum(x.nats for x in losses) / sum(x.tokens for x in losses)
