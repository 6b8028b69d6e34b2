"""The gateway's parts one by one: the order of arms, group commit, and loops that outlive a failing database."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import LakeError
from pawl.fleet.spec import AgentSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.exchange import Asked, Heard, body_for
from pawl.gateway.recorder import Recorder
from pawl.gateway.snapshot import EVERY_S, Snapshot
from pawl.gateway.wire import MAX_DEPTH, Refused, read_json
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback
from pawl.monitoring.economics import price
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route

BASE = Arm("base", "local", "base", "local")
ADAPTER = Arm("fn-v2-abc", "local", "fn-v2-abc", "local")
MOST = 4 << 20
CLOUD = Arm("big", "cloud", "big", "cloud")
UPSTREAMS = {
    "local": UpstreamSpec(kind="local", base_url="http://127.0.0.1:1/v1"),
    "cloud": UpstreamSpec(kind="cloud", base_url="http://127.0.0.1:1/v1", usd_per_million_prompt=2.5,
                          usd_per_million_completion=10.0),
}  # fmt: skip


def said(n: int, **more: Any) -> Feedback:
    return Feedback(id=f"f{n}", at=1.0 + n, interaction=f"i{n}", agent="a", kind="rating", score=0.5, **more)


def asked(body: dict[str, Any]) -> Asked:
    return Asked(id="x", agent="a", session="s", key_id="k", at=1.0, body=body, task={}, streamed=False)


def test_cost_is_by_the_million() -> None:
    assert price(UPSTREAMS["cloud"], 1_000_000, 100_000) == pytest.approx(3.5)
    assert price(UPSTREAMS["local"], 1_000_000, 100_000) == 0


def test_a_request_goes_on_unchanged_but_for_what_is_the_gateways() -> None:
    body = {"model": "a", "messages": [], "top_k": 3, "metadata": {"id": "t"}, "stream_options": {"x": 1}}
    assert body_for(ADAPTER, asked(body), stream=False) == {
        "model": "fn-v2-abc", "messages": [], "top_k": 3, "stream": False,
    }  # fmt: skip
    streamed = body_for(ADAPTER, asked(body), stream=True)
    assert streamed["stream_options"] == {"x": 1, "include_usage": True}
    assert body["model"] == "a" and body["stream_options"] == {"x": 1}, "the shadows need it as it came"


@pytest.mark.parametrize(
    ("arm", "limit", "said", "sent"),
    [
        (ADAPTER, 77, {}, {"max_tokens": 77}),
        (ADAPTER, 0, {}, {}),
        (CLOUD, 77, {}, {}),
        (ADAPTER, 77, {"max_tokens": 5}, {"max_tokens": 5}),
        (ADAPTER, 77, {"max_completion_tokens": 500}, {"max_completion_tokens": 500}),
    ],
)
def test_a_local_answer_is_as_long_as_the_agents_where_the_client_names_nothing(
    arm: Arm, limit: int, said: dict[str, int], sent: dict[str, int]
) -> None:
    request = msgspec.structs.replace(asked({"model": "a", "messages": [], **said}), max_tokens=limit)
    found = body_for(arm, request, stream=False)
    assert {k: v for k, v in found.items() if "tokens" in k} == sent


def test_what_an_upstream_says_of_itself_is_not_believed_blindly() -> None:
    heard = Heard()
    heard.whole(
        {"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": "many", "completion_tokens": -1}}
    )
    assert (heard.text, heard.prompt_tokens, heard.completion_tokens) == ("", 0, 0)
    heard.chunk({"choices": None, "usage": [1]}, 0.0)
    heard.chunk({"choices": [{"delta": None}, {"index": 1, "delta": {"content": "other"}}]}, 0.0)
    heard.chunk({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}, 0.0)
    assert (heard.text, heard.finish_reason, heard.prompt_tokens) == ("a", "stop", 2)


async def body_of(data: bytes, part: int = 1000) -> Any:
    parts = [data[n : n + part] for n in range(0, len(data), part)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": n < len(parts) - 1} for n, p in enumerate(parts)]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return await read_json(receive, MOST)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(st.recursive(st.none() | st.text(max_size=3), lambda c: st.lists(c) | st.dictionaries(st.text(max_size=2), c)))
async def test_bodies_arrive_whole(value: Any) -> None:
    assert await body_of(orjson.dumps(value), 7) == value


async def test_bodies_too_deep_too_large_or_broken_are_refused() -> None:
    assert await body_of(nested(MAX_DEPTH))
    assert len(await body_of(orjson.dumps([{}] * 10 * MAX_DEPTH))) == 10 * MAX_DEPTH, "many brackets are not depth"
    for data, status in (
        (nested(MAX_DEPTH + 1), 400),
        (b'{"a":' * 500 + b"1" + b"}" * 500, 400),
        (nested(5000), 400),
        (b"{", 400),
        (b"x" * (MOST + 1), 413),
    ):
        with pytest.raises(Refused) as caught:
            await body_of(data, 1 << 20)
        assert caught.value.status == status


@pytest.mark.parametrize("wait_for_disk", [False, True])
async def test_records_of_one_tick_are_written_together_and_a_bad_one_fails_alone(
    tmp_path: Path, wait_for_disk: bool
) -> None:
    groups: list[bytes] = []

    class Watched(Journal):
        def append_lines(self, data: bytes) -> None:
            groups.append(data)
            super().append_lines(data)

    recorder = Recorder(Watched(tmp_path, "w"), wait_for_disk=wait_for_disk)
    unwritable = said(99, detail={"x": object()})
    results = await asyncio.wait_for(
        asyncio.gather(*(recorder.record(r) for r in (said(1), unwritable, said(2))), return_exceptions=True), 5
    )
    assert [type(r) for r in results] == [type(None), TypeError, type(None)]
    assert len(groups) == 1
    assert [f.id for f in ParquetLake(tmp_path / "lake", tmp_path).feedback("a")] == ["f1", "f2"]


@pytest.mark.parametrize("wait_for_disk", [False, True])
@pytest.mark.parametrize("error", [LakeError("full"), RuntimeError("anything")])
async def test_a_journal_that_fails_tells_everybody_who_waits(
    tmp_path: Path, wait_for_disk: bool, error: Exception
) -> None:
    class Failing(Journal):
        def append_lines(self, data: bytes) -> None:
            raise error

    recorder = Recorder(Failing(tmp_path, "w"), wait_for_disk=wait_for_disk)
    results = await asyncio.wait_for(
        asyncio.gather(*(recorder.record(said(n)) for n in range(3)), return_exceptions=True), 5
    )
    assert results == [error] * 3


async def test_a_cancelled_request_is_recorded_all_the_same(tmp_path: Path) -> None:
    recorder = Recorder(Journal(tmp_path, "w"), wait_for_disk=False)
    leaving = asyncio.ensure_future(recorder.record(said(1)))
    staying = asyncio.ensure_future(recorder.record(said(2)))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait_for(staying, 5)
    assert [f.id for f in ParquetLake(tmp_path / "lake", tmp_path).feedback("a")] == ["f1", "f2"]


async def test_the_route_table_follows_again_after_the_database_failed(tmp_path: Path) -> None:
    class Flaky(SqliteControl):
        failing = False

        def changes(self) -> int:
            if self.failing:
                raise OSError("the disk is gone")
            return super().changes()

    control = Flaky(tmp_path / "control.sqlite")
    agent = AgentSpec(name="an-agent", task="functional-negative")
    snapshot = Snapshot(control, (agent,), lambda a: Route(agent=a.name, champion=BASE))
    following = asyncio.create_task(snapshot.follow())
    try:
        control.failing = True
        await asyncio.sleep(2 * EVERY_S)
        assert snapshot.routes["an-agent"].champion == BASE, "requests go on by the routes known last"
        written = control.put_route(Route(agent="an-agent", champion=CLOUD))
        control.failing = False
        await asyncio.sleep(2 * EVERY_S)
        assert not following.done()
        assert snapshot.routes["an-agent"] == msgspec.structs.replace(written)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
