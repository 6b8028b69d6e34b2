"""Ways of serving, compared on answers of both sides."""

from __future__ import annotations

import pytest

from pawl.evaluation.hybrid import modes
from pawl.evaluation.metrics import Prices
from pawl.evaluation.report import ItemResult

FREE, DEAR = Prices(0.0, 0.0), Prices(1.0, 10.0)


def result(n: int, score: float | None, *, conforms: bool = True, latency: float = 1.0) -> ItemResult:
    return ItemResult(
        item=f"i{n}", source=f"s{n % 4}", score=score, conforms=conforms, prompt_tokens=100, completion_tokens=50,
        latency_s=latency,
    )  # fmt: skip


LOCAL = [result(n, 1.0 if n % 2 else 0.0, conforms=n % 4 != 0) for n in range(8)]  # fails on even, formless on 0 and 4
CLOUD = [result(n, 1.0, latency=3.0) for n in range(8)]


def test_a_check_asks_the_cloud_after_and_a_look_instead() -> None:
    rules = {"by form": (lambda i: not i.conforms, True), "by look": (lambda i: i.item in ("i0", "i2"), False)}
    local, cloud, form, look = modes(LOCAL, CLOUD, (FREE, DEAR), rules, 0.05)  # type: ignore[arg-type]
    assert [m.name for m in (local, cloud, form, look)] == ["local only", "cloud only", "by form", "by look"]
    assert (local.quality.mean, local.cloud_share, local.usd_per_thousand) == (0.5, 0.0, 0.0)
    assert (cloud.quality.mean, cloud.cloud_share) == (1.0, 1.0)
    assert cloud.usd_per_thousand == pytest.approx(1000 * (100 * 1 + 50 * 10) / 1e6)
    assert form.quality.mean == look.quality.mean == 0.75 and form.cloud_share == look.cloud_share == 0.25
    assert form.usd_per_thousand == pytest.approx(cloud.usd_per_thousand / 4) == look.usd_per_thousand
    assert (form.latency_p50_s, form.latency_p95_s, look.latency_p95_s) == (1.0, 4.0, 3.0)
    assert local.of_cloud is not None and local.of_cloud.mean == 0.5
    assert local.of_cloud.lower <= 0.5 <= local.of_cloud.upper


def test_the_local_model_costs_what_it_says_though_it_was_in_vain() -> None:
    rules = {"by form": (lambda i: not i.conforms, True), "by look": (lambda i: not i.conforms, False)}
    *_, form, look = modes(LOCAL, CLOUD, (DEAR, DEAR), rules, 0.05)  # type: ignore[arg-type]
    assert form.usd_per_thousand == pytest.approx(look.usd_per_thousand * 1.25)


def test_only_items_that_both_were_graded_on_count() -> None:
    local = [*LOCAL, result(9, None), result(10, 1.0)]
    found = modes(local, [*CLOUD, result(9, 1.0)], (FREE, DEAR), {}, 0.05)
    assert [m.items for m in found] == [8, 8]
    assert modes(LOCAL, [], (FREE, DEAR), {}, 0.05) == ()
