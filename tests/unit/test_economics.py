"""Economics: what is counted, and laws that hold for any traffic."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.fleet.upstream import UpstreamSpec
from pawl.lake.records import Interaction
from pawl.monitoring.economics import MAX_POINTS, price, summarise

CLOUD = UpstreamSpec(
    kind="cloud", base_url="http://127.0.0.1:1/v1", usd_per_million_prompt=2.0, usd_per_million_completion=10.0
)


def row(id: str, **changes: object) -> Interaction:
    plain = Interaction(
        id=id,
        at=float(len(id)),
        agent="a",
        session="s",
        key_id="k",
        arm="base",
        arm_kind="local",
        messages=[],
        prompt_tokens=100,
        completion_tokens=50,
    )
    return msgspec.structs.replace(plain, **changes)


def shadow(of: str, **changes: object) -> Interaction:
    return row(f"shadow-{of}", **({"role": "shadow", "shadow_of": of, "arm": "cloud", "arm_kind": "cloud"} | changes))


def test_a_local_answer_is_priced_by_its_own_cloud_shadow() -> None:
    found = summarise([row("x"), shadow("x", completion_tokens=500, cost_usd=0.0052)], name="cloud", upstream=CLOUD)
    assert found.all_cloud_usd == pytest.approx(100 * 2e-6 + 500 * 10e-6)
    assert (found.priced_by_shadow, found.priced_by_own, found.shadows) == (1, 0, 1)
    assert found.shadow_usd == 0.0052
    assert found.spent_usd == 0.0
    assert found.net_saved_usd == pytest.approx(0.0)
    assert found.local_share == 1.0


def test_a_clouds_own_discount_is_no_saving_of_ours() -> None:
    cached = {"arm": "cloud", "arm_kind": "cloud", "cached_tokens": 90, "cost_usd": 0.0001}
    found = summarise([row("x", **cached), row("y"), shadow("y", **cached)], name="cloud", upstream=CLOUD)
    assert found.all_cloud_usd == pytest.approx(0.0002) and found.spent_usd == pytest.approx(0.0001)
    alone = summarise([row("x", **cached)], name="cloud", upstream=CLOUD)
    assert alone.saved_usd == 0.0 and (alone.priced_by_shadow, alone.priced_by_own) == (0, 1)


def test_without_a_usable_shadow_its_own_tokens_count() -> None:
    rows = [row("x"), shadow("x", status=500), row("y"), shadow("y", arm="other"), row("z"), shadow("q")]
    found = summarise(rows, name="cloud", upstream=CLOUD)
    assert found.all_cloud_usd == pytest.approx(3 * price(CLOUD, 100, 50))
    assert (found.priced_by_shadow, found.priced_by_own) == (0, 3)


def test_a_challenger_in_the_shadow_prices_nothing() -> None:
    found = summarise(
        [row("x"), shadow("x", arm="v2", arm_kind="local", completion_tokens=9_000)], name="cloud", upstream=CLOUD
    )
    assert found.all_cloud_usd == pytest.approx(price(CLOUD, 100, 50))


@pytest.mark.parametrize("failure", [{"status": 502}, {"status": 0}, {"error": "timeout"}, {"broken": True}])
def test_failures_cost_but_do_not_save(failure: dict[str, object]) -> None:
    found = summarise([row("x", cost_usd=0.5, arm_kind="cloud", **failure)], name="cloud", upstream=CLOUD)
    assert (found.answered, found.failed, found.spent_usd, found.cloud_usd) == (0, 1, 0.5, 0.5)
    assert found.all_cloud_usd == 0.0
    assert found.local_share is None


def test_an_answer_without_usage_is_said_to_be_unpriced() -> None:
    found = summarise([row("x", prompt_tokens=0, completion_tokens=0)], name="cloud", upstream=CLOUD)
    assert (found.answered, found.unpriced, found.all_cloud_usd) == (1, 1, 0.0)


def test_all_traffic_in_the_cloud_saves_nothing() -> None:
    paid = price(CLOUD, 100, 50)
    rows = [row("x" * n, arm="cloud", arm_kind="cloud", cost_usd=paid) for n in range(1, 40)]
    found = summarise(rows, name="cloud", upstream=CLOUD)
    assert found.saved_usd == pytest.approx(0.0)
    assert found.local_share == 0.0


rows_of_traffic = st.lists(
    st.builds(
        lambda n, local, ok, tokens, cost, shadowed: [
            row(
                f"i{n}",
                at=float(n),
                arm="base" if local else "cloud",
                arm_kind="local" if local else "cloud",
                status=200 if ok else 500,
                completion_tokens=tokens,
                cost_usd=cost,
            ),
            *([shadow(f"i{n}", completion_tokens=tokens + 7, cost_usd=cost)] if shadowed else []),
        ],
        st.integers(0, 10_000),
        st.booleans(),
        st.booleans(),
        st.integers(0, 4_000),
        st.floats(0, 2),
        st.booleans(),
    ),
    max_size=30,
    unique_by=lambda pair: pair[0].id,
)


@settings(max_examples=60, deadline=None)
@given(rows_of_traffic, st.randoms())
def test_order_and_repetition_do_not_matter_and_the_parts_add_up(traffic: list[list[Interaction]], rng) -> None:  # type: ignore[no-untyped-def]
    rows = [i for pair in traffic for i in pair]
    found = summarise(rows, name="cloud", upstream=CLOUD)
    again = rows + rows[: len(rows) // 2]
    rng.shuffle(again)
    assert summarise(again, name="cloud", upstream=CLOUD) == found
    assert found.answered + found.failed == len(traffic)
    assert found.priced_by_shadow + found.priced_by_own + found.unpriced == found.answered
    assert found.saved_usd - found.shadow_usd == pytest.approx(found.net_saved_usd)
    for a, b in zip(found.points, found.points[1:], strict=False):
        assert a.at <= b.at and a.spent <= b.spent and a.shadow <= b.shadow and a.all_cloud <= b.all_cloud


def test_points_are_thinned_and_end_with_the_totals() -> None:
    rows = [row(f"i{n}", at=float(n), cost_usd=0.25) for n in range(1_000)]
    found = summarise(rows, name="cloud", upstream=CLOUD)
    assert len(found.points) == MAX_POINTS
    assert found.points[0].at == 0.0
    assert found.points[-1].spent == pytest.approx(found.spent_usd)
    assert found.points[-1].all_cloud == pytest.approx(found.all_cloud_usd)


def test_a_draft_that_a_check_kept_is_paid_and_answers_nobody() -> None:
    rows = [row("x", role="draft", cost_usd=0.1), row("y", arm="cloud", arm_kind="cloud", cost_usd=0.4)]
    found = summarise(rows, name="cloud", upstream=CLOUD)
    assert (found.answered, found.answered_locally, found.failed) == (1, 0, 0)
    assert found.spent_usd == pytest.approx(0.5) and found.all_cloud_usd == pytest.approx(0.4)
