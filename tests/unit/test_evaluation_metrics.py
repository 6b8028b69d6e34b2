"""What a model's answers come to, beside scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, precision_recall_fscore_support

from pawl.evaluation.metrics import Prices, brier, calibration_error, class_metrics, measure, share_of
from pawl.evaluation.report import ItemResult


def test_classes_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    names = ["flaky", "stable", "unknown"]
    for said_from in (names, [*names, "made up"], names[:1]):
        labels, said = ([str(x) for x in rng.choice(n, 80)] for n in (names, said_from))
        found = class_metrics(labels, said)
        classes = [c.label for c in found]
        assert classes == sorted({*labels, *said})
        expected = precision_recall_fscore_support(labels, said, labels=classes, zero_division=0)
        for n, c in enumerate(found):
            assert (c.precision, c.recall, c.f1, c.items) == pytest.approx(tuple(column[n] for column in expected))
        macro = f1_score(labels, said, labels=classes, average="macro", zero_division=0)
        assert sum(c.f1 for c in found) / len(found) == pytest.approx(macro)


def test_no_answer_is_a_miss_of_the_right_class_and_of_no_other() -> None:
    (a,) = class_metrics(["a", "a"], ["a", ""])
    assert (a.precision, a.recall, a.items) == (1.0, 0.5, 2)


def test_calibration_by_hand_and_by_scikit_learn() -> None:
    stated = [(0.95, 1.0), (0.95, 0.0), (0.15, 0.0), (1.0, 1.0), (0.0, 0.0)]
    # Bins of ten: (0.95, 0.95, 1.0) has mean 2.9/3 and accuracy 2/3; (0.15) is off by 0.15; (0.0) by nothing.
    assert calibration_error(stated) == pytest.approx((3 * abs(2.9 / 3 - 2 / 3) + 0.15) / 5)
    rng = np.random.default_rng(2)
    p = rng.random(200)
    right = (rng.random(200) < p).astype(float)
    pairs = list(zip(p.tolist(), right.tolist(), strict=True))
    assert brier(pairs) == pytest.approx(brier_score_loss(right, p))
    assert calibration_error(pairs) < 0.12 < calibration_error([(v, 1 - r) for v, r in pairs])


def item(n: int, score: float | None = 1.0, **more: object) -> ItemResult:
    return ItemResult(item=f"i{n}", source=f"s{n % 5}", score=score, **more)  # type: ignore[arg-type]


def test_one_models_figures() -> None:
    items = [
        item(n, label="a" if n % 2 else "b", said="a" if n < 8 else "", confidence=0.9 if n < 4 else None,
             conforms=n != 0, metrics={"validity": n / 10}, prompt_tokens=100, completion_tokens=10 * n,
             latency_s=float(n + 1))
        for n in range(10)
    ]  # fmt: skip
    items.append(item(99, None, problem="the oracle failed"))
    found = measure(items, 0.05, Prices(1.0, 2.0))
    assert found.items == 10 and found.accuracy is not None and found.accuracy.mean == 0.4
    assert found.accuracy.lower < 0.4 < found.accuracy.upper
    assert [(c.label, c.items) for c in found.classes] == [("a", 5), ("b", 5)]
    assert found.macro_f1 == pytest.approx((2 * 0.5 * 0.8 / 1.3) / 2)
    assert found.confident == 4 and found.brier == pytest.approx((2 * 0.1**2 + 2 * 0.9**2) / 4)
    assert found.means["validity"].mean == pytest.approx(0.45)
    assert (found.latency_p50_s, found.latency_p95_s) == (5.0, 10.0)
    assert (found.prompt_tokens, found.completion_tokens) == (100.0, 45.0)
    assert found.usd_per_thousand == pytest.approx((100 * 1.0 + 45 * 2.0) / 1000)
    assert found.conforms == pytest.approx(9 / 11)


def test_a_task_without_classes_has_no_such_figures() -> None:
    found = measure([item(n) for n in range(3)], 0.05)
    assert found.accuracy is found.macro_f1 is found.brier is found.usd_per_thousand is found.latency_p50_s is None
    assert measure([], 0.05).items == 0


def test_a_share_of_the_cloud_is_over_the_items_both_were_graded_on() -> None:
    cloud = [item(n, 0.8) for n in range(10)] + [item(50, None)]
    ours = [item(n, 0.76) for n in range(10)] + [item(50, 0.0), item(51, 0.0)]
    found = share_of(ours, cloud, 0.05)
    assert found is not None and found.mean == pytest.approx(0.95) and found.lower == pytest.approx(0.95)
    assert share_of(ours, [item(n, 0.0) for n in range(10)], 0.05) is None and share_of([], [], 0.05) is None
