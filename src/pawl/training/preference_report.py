"""What the stage of preferences says of itself: each step, and at its end."""

from __future__ import annotations

import time
from typing import Any

from pawl.training.result import Progress, StageResult

STAGE = "preferences"


def tokens_of(row: dict[str, Any]) -> int:
    """That the model sees of a row: both sequences of a pair."""
    if "chosen_ids" in row:
        return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
    return len(row["prompt_ids"]) + len(row["completion_ids"])


class Clock:
    """Time and tokens of a stage, over all attempts. `tokens`: of each row in order, `group` rows make a step."""

    def __init__(self, tokens: list[int], group: int, steps: int) -> None:
        self._steps = steps
        self._tokens = [sum(tokens[at : at + group]) for at in range(0, len(tokens), group)]
        self.start([], 0)

    def start(self, history: list[dict[str, float]], step: int) -> None:
        """Training begins, or goes on after `step` steps of which `history` tells."""
        self._before = max((h.get("seconds", 0.0) for h in history), default=0.0)
        self._first = step
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Of training, those of earlier attempts included."""
        return self._before + time.monotonic() - self._began

    def progress(self, step: int, logs: dict[str, float], memory_mb: float) -> Progress:
        """What `step` and its log have to say."""
        return Progress(
            step=step,
            steps=self._steps,
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            # Nothing that was already computed before an interruption counts into the speed.
            tokens_per_s=sum(self._tokens[self._first : step]) / max(time.monotonic() - self._began, 1e-6),
            stage=STAGE,
            memory_mb=memory_mb,
        )


def left_out(note: str) -> StageResult:
    """A stage that did not take place, and why."""
    return StageResult(name=STAGE, steps=0, items=0, tokens=0, seconds=0.0, loss_first=0.0, loss_last=0.0, note=note)


def result_of(
    history: list[dict[str, float]], rows: list[dict[str, Any]], steps: int, items: int, told: str
) -> StageResult:
    """A finished stage, from the trainer's log of all steps and what was `told` before.

    Its note has the margin between the rewards of better and worse answers (a reward is beta times the log ratio to the
    reference) and, of DPO, the share of pairs in which the better one has more; both over the last tenth of the steps.
    """
    losses = [h["loss"] for h in history if "loss" in h]
    tenth = max(1, len(losses) // 10)
    found = [("reward margin", _last(history, "rewards/margins", tenth))]
    found.append(("reward accuracy", _last(history, "rewards/accuracies", tenth)))
    return StageResult(
        name=STAGE,
        steps=steps,
        items=items,
        tokens=sum(tokens_of(r) for r in rows),
        seconds=max((h.get("seconds", 0.0) for h in history), default=0.0),
        loss_first=sum(losses[:tenth]) / tenth,
        loss_last=sum(losses[-tenth:]) / tenth,
        losses=tuple((int(h["step"]), float(h["loss"])) for h in history if "loss" in h),
        note=told + ", ".join(f"{name} {value:.3f}" for name, value in found if value is not None),
    )


def _last(history: list[dict[str, float]], name: str, count: int) -> float | None:
    values = [h[name] for h in history if name in h][-count:]
    return sum(values) / len(values) if values else None
