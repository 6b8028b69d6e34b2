"""Trials of training settings with Optuna: a study on disk that a killed search goes on with.

Sampler: tree-structured Parzen estimator (Bergstra et al., NIPS 2011, section 4). Pruning: the median rule (Golovin et
al., KDD 2017, section 3.4.2), between the quarters of a run.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pawl.errors import NotAllowed, ResourceError, TrainingFailed
from pawl.fleet.training import SearchSpec, TrainingSpec
from pawl.training.search import Trial, TrialStopped, inside, values_of, with_values
from pawl.workers.here import Here
from pawl.workers.port import Done, Tell, Workers

OVER = 1.25  # a running trial ends when the search has taken so many times its minutes
STARTUP = 4  # trials before the sampler and the pruner trust what they saw
TRIES = 3  # of a trial that something cuts off: settings that end the process must not end every search
_SAVE_S = 5.0

# (number, spec, what to report to) -> validation loss in nats a token.
RunTrial = Callable[[int, TrainingSpec, "Reporter"], float]
OnTrial = Callable[[Trial], None]


class Budget:
    """Seconds that a search may take over all its attempts; time between attempts does not count."""

    def __init__(self, study: optuna.Study, minutes: float) -> None:
        self._study, self.limit = study, 60.0 * minutes
        self._before = float(study.user_attrs.get("seconds", 0.0))
        self._began = self._saved = time.monotonic()

    @property
    def used(self) -> float:
        return self._before + time.monotonic() - self._began

    def save(self, *, now: bool = False) -> None:
        """Keeps what is used, at most every few seconds."""
        if now or time.monotonic() - self._saved > _SAVE_S:
            self._saved = time.monotonic()
            self._study.set_user_attr("seconds", self.used)


class Reporter:
    """What a running trial reports to, wherever it runs. Both methods raise TrialStopped where it is to end."""

    def __init__(self, tell: Tell, first: bool) -> None:
        self._tell, self.first = tell, first

    def step(self, *progress: Any) -> None:
        """A step of training is done; `progress` is handed to the search's `on_step`."""
        self._tell(("step", *progress))

    def validation(self, share: float, loss: float) -> None:
        """The validation loss after a share (0..1) of the run's steps."""
        self._tell(("validation", share, loss))


class _Watch:
    """What becomes of a running trial's reports."""

    def __init__(self, trial: optuna.Trial, budget: Budget) -> None:
        self.trial, self._budget, self.began = trial, budget, budget.used
        self._told: set[int] = set()
        self.first = bool(trial.user_attrs.get("present"))

    def repeat(self, points: Mapping[int, float]) -> None:
        """What a trial that was cut off had told: its training goes on from a checkpoint, and tells only the rest."""
        for at, loss in points.items():
            self.trial.report(loss, at)
        self._told |= points.keys()

    def step(self) -> None:
        self._budget.save()
        if self._budget.used > OVER * self._budget.limit:
            raise TrialStopped(f"the search had taken {self._budget.used / 60:.1f} minutes")

    def validation(self, share: float, loss: float) -> None:
        """What the loss is before the first step says nothing of the settings, only of what training continues."""
        quarter = 25 * round(4 * share)
        if quarter and quarter not in self._told:
            self._told.add(quarter)
            self.trial.report(loss, quarter)
        # The present settings are what everything is compared with: they run to the end.
        if 0 < quarter < 100 and not self.first and self.trial.should_prune():
            raise TrialStopped(f"worse than the median of the trials before after {quarter} % of the steps")
        self.step()


def search(
    storage: Path,
    key: str,
    present: TrainingSpec,
    space: SearchSpec,
    run_trial: RunTrial,
    *,
    trials: int,
    minutes: float,
    continues: bool,
    workers: Workers | None = None,
    on_trial: OnTrial = lambda _: None,
    on_step: Callable[..., None] = lambda *_: None,
) -> list[Trial]:
    """Trials until there are `trials` of them or `minutes` are used; the first has the present settings.

    `key` tells studies apart in the file: the same data, present settings, space and start. One that was cut off, by
    whatever, goes on; the trial that was running counts as failed and is tried again. Results do not depend on
    where it was cut, where trials do not, and `workers` (none: this process) run one trial at a time.

    Raises NotAllowed where another process searches in the same file, TrainingFailed where the present settings
    cannot be trained, ResourceError where they take longer than the budget.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage.parent.mkdir(parents=True, exist_ok=True)
    with _alone(storage):
        study = optuna.create_study(
            study_name=key,
            storage=optuna.storages.RDBStorage(f"sqlite:///{storage.resolve()}"),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
            direction="minimize",
            load_if_exists=True,
        )
        _again_what_was_cut_off(study)
        alive = (TrialState.WAITING, TrialState.COMPLETE, TrialState.PRUNED)
        if not any(t.user_attrs.get("present") for t in study.get_trials(deepcopy=False, states=alive)):
            values = values_of(present)
            known = {k: v for k, v in values.items() if inside(space, values)}
            study.enqueue_trial(known, user_attrs={"present": True, "spec": present.model_dump_json()})
        budget = Budget(study, minutes)
        open_: dict[int, _Watch] = {}

        def pieces() -> Iterator[tuple[RunTrial, int, TrainingSpec, bool]]:
            while (known := len(_done(study)) + len(open_)) < trials and (budget.used < budget.limit or not known):
                # Those that run are taken for bad ones, so that one of several does not ask for what another tries.
                study.sampler = optuna.samplers.TPESampler(
                    seed=present.seed + known, n_startup_trials=STARTUP, constant_liar=bool(open_)
                )
                trial = study.ask()
                spec = _spec_of(trial, present, space, continues)
                watch = _Watch(trial, budget)
                watch.repeat(_points_of(study, trial.user_attrs.get("again")))
                open_[len(numbers)] = watch
                numbers.append(trial.number)
                yield run_trial, trial.number, spec, watch.first

        def told(number: int, said: tuple[Any, ...]) -> None:
            if said[0] == "validation":
                open_[number].validation(*said[1:])
            else:
                on_step(numbers[number], *said[1:])
                open_[number].step()

        numbers: list[int] = []  # of the trials, in the order in which they were begun
        with closing((workers or Here()).run(_tried, pieces(), told, trains=True)) as running:
            for done in running:
                on_trial(_ended(study, open_.pop(done.number), budget, done))
        return [_read(t) for t in _done(study)]


def _tried(tell: Tell, run_trial: RunTrial, number: int, spec: TrainingSpec, first: bool) -> float:
    return run_trial(number, spec, Reporter(tell, first))


def _ended(study: optuna.Study, watch: _Watch, budget: Budget, done: Done[float]) -> Trial:
    """What came of a trial. Whatever is neither its settings' fault nor its pruning leaves it running in the study,
    so that it is tried again."""
    trial = watch.trial
    try:
        loss: float | None = done.get()
    except TrialStopped as e:
        if watch.first:
            raise ResourceError(
                f"{e}, and the first trial, with the present settings, was not done: give it more minutes "
                "(--minutes, or search.minutes); it goes on where it stopped"
            ) from e
        trial.set_user_attr("why", str(e))
        state, loss = TrialState.PRUNED, None
    except TrainingFailed as e:
        if watch.first:
            raise
        trial.set_user_attr("why", f"failed: {e}")
        # To Optuna it is pruned before it reported anything: a failed one would teach the sampler nothing.
        state, loss = TrialState.PRUNED, None
    else:
        state = TrialState.COMPLETE
    finally:
        trial.set_user_attr("seconds", float(trial.user_attrs.get("seconds", 0.0)) + budget.used - watch.began)
        budget.save(now=True)
    return _read(study.tell(trial, loss, state=state))


def _spec_of(trial: optuna.Trial, present: TrainingSpec, space: SearchSpec, continues: bool) -> TrainingSpec:
    values = values_of(present)
    first = bool(trial.user_attrs.get("present"))
    if not first or inside(space, values):
        values = {
            "rank": trial.suggest_categorical("rank", list(space.ranks)),
            "learning_rate": trial.suggest_float("learning_rate", *space.learning_rates, log=True),
            "method": trial.suggest_categorical("method", list(space.methods)),
            "epochs": trial.suggest_float("epochs", *space.epochs),
        }
    spec = present if first else with_values(present, values, continues=continues)
    trial.set_user_attr("spec", spec.model_dump_json())
    return spec


def _again_what_was_cut_off(study: optuna.Study) -> None:
    """Trials still running are another process's that ended: failed, and tried again with the same values."""
    trials = study.get_trials(deepcopy=False)
    repeated = {t.user_attrs.get("again") for t in trials}
    for t in trials:
        if t.state != TrialState.RUNNING:
            continue
        tries = int(t.user_attrs.get("tries", 1))
        if tries >= TRIES and not t.user_attrs.get("present"):
            study.tell(t.number, state=TrialState.PRUNED)
            continue
        if t.number not in repeated:  # a kill between these two steps must not lose it, nor run it twice
            kept = {k: v for k, v in t.user_attrs.items() if k in ("present", "seconds", "spec")}
            values = {**t.system_attrs.get("fixed_params", {}), **t.params}
            study.enqueue_trial(values, user_attrs={**kept, "again": t.number, "tries": tries + 1})
        study.tell(t.number, state=TrialState.FAIL)


def _points_of(study: optuna.Study, number: int | None) -> dict[int, float]:
    found = [t for t in study.get_trials(deepcopy=False) if t.number == number]
    return dict(found[0].intermediate_values) if found else {}


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _read(t: FrozenTrial) -> Trial:
    cut_off = f"failed: cut off {TRIES} times" if int(t.user_attrs.get("tries", 1)) >= TRIES else ""
    why = str(t.user_attrs.get("why", cut_off))
    complete = t.state == TrialState.COMPLETE
    return Trial(
        number=t.number,
        state="complete" if complete else "failed" if why.startswith("failed: ") else "pruned",
        spec=TrainingSpec.model_validate_json(t.user_attrs["spec"]),
        present=bool(t.user_attrs.get("present")),
        loss=t.value if complete else None,
        points=tuple(sorted(t.intermediate_values.items())),
        seconds=float(t.user_attrs.get("seconds", 0.0)),
        why=why.removeprefix("failed: "),
    )


@contextmanager
def _alone(storage: Path) -> Iterator[None]:
    """The file's lock, which the kernel lets go of with the process. NotAllowed where another holds it."""
    with storage.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise NotAllowed(f"another search works on {storage.name}: wait for it, or stop it") from e
        yield
