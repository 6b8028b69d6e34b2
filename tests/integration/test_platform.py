"""`pawl up`, `pawl down`, `pawl status`, `pawl logs` with real servers; vLLM's place is taken by its stand-in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from pawl.platform.process import TOKEN, Record, Server, beginning, leftovers
from pawl.platform.standing import standings
from pawl.platform.take_down import take_down, to_end
from tests.integration.gateway_process import FLEET, PROMPT
from tests.vllm_stand_in import Replica
from tests.waiting import until


class Home:
    """A home of its own with free ports, and the command."""

    def __init__(self, path: Path, root: Path, unused: Callable[[], int], replica: Replica) -> None:
        self.replica, vllm_port = replica, replica.port
        self.path, self.ports = path, {n: unused() for n in ("gateway", "mlflow", "prefect", "standin", "prometheus")}
        path.mkdir()
        fleet = FLEET.format(port=vllm_port).replace(f"http://127.0.0.1:{vllm_port}/cloud/v1", "${PAWL_STANDIN_URL}/v1")
        (path / "fleet.yaml").write_text(fleet)
        self.env = os.environ | {f"PAWL_{n.upper()}_PORT": str(p) for n, p in self.ports.items()}
        self.env |= {"PAWL_HOME": str(path), "PAWL_FLEET": str(path / "fleet.yaml"), "PAWL_ROOT": str(root)}

    def begin(self, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pawl.cli", *args]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def pawl(self, *args: str, code: int = 0) -> str:
        process = self.begin(*args)
        out, err = process.communicate(timeout=150)
        assert process.returncode == code, out + err
        return out + err

    def json(self, *args: str) -> Any:
        process = self.begin(*args, "--json")
        return json.loads(process.communicate(timeout=150)[0])

    def pids(self) -> dict[str, int]:
        return {s["name"]: s["pid"] for s in self.json("status")["servers"] if s["state"] == "up"}

    def started(self) -> list[psutil.Process]:
        """Every living process of this home, by what it carries in its environment."""
        found = []
        for p in psutil.process_iter():
            try:
                env = p.environ()
            except psutil.Error:
                continue
            if TOKEN in env and env.get("PAWL_HOME") == str(self.path) and p.status() != psutil.STATUS_ZOMBIE:
                found.append(p)
        return found


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@pytest.fixture
def home(tmp_path: Path, root: Path, unused: Callable[[], int]) -> Iterator[Home]:
    replica = Replica()
    made = Home(tmp_path / "home", root, unused, replica)
    yield made
    made.begin("down").communicate(timeout=60)
    replica.kill()
    for process in made.started():
        process.kill()


@pytest.mark.servers
def test_up_starts_what_is_missing_and_down_leaves_nothing(home: Home) -> None:
    first = home.json("up", "--only", "gateway,mlflow")
    assert {o["name"]: o["state"] for o in first["outcomes"]} == {
        "gateway": "started", "mlflow": "started", "log-keeper": "started", "webhook": "done",
    }  # fmt: skip
    before = home.pids()
    again = home.json("up", "--only", "gateway,mlflow")
    assert {o["state"] for o in again["outcomes"]} == {"ran", "was done"} and home.pids() == before

    # Killed: `up` starts that one alone.
    os.kill(before["gateway"], signal.SIGKILL)
    until(lambda: not _lives(before["gateway"]), 20)
    assert {s["name"]: s["state"] for s in home.json("status")["servers"]}["gateway"] == "down"
    third = {o["name"]: o["state"] for o in home.json("up", "--only", "gateway,mlflow")["outcomes"]}
    assert third == {"gateway": "started", "mlflow": "ran", "log-keeper": "ran", "webhook": "was done"}
    after = home.json("status")["servers"]
    assert {s["name"]: s["restarts"] for s in after if s["pid"]} == {"gateway": 1, "mlflow": 0, "log-keeper": 0}
    pids = {s["name"]: s["pid"] for s in after}
    assert pids["mlflow"] == before["mlflow"] and pids["gateway"] != before["gateway"]
    assert all(s["memory_mb"] > 5 and s["since"] > 1 for s in after if s["state"] == "up")
    said = home.pawl("status")
    assert "mlflow      up  for " in said and "started again 1 time" in said and "prefect     not started" in said

    assert home.started(), "the test sees them"
    ended = {e["name"]: e["how"] for e in home.json("down")["ended"]}
    assert ended == {"gateway": "stopped", "mlflow": "stopped", "log-keeper": "stopped"}
    assert home.started() == [] and list((home.path / "run").glob("*.json")) == []
    assert "nothing was started here" in home.pawl("down")


def test_a_taken_port_is_named_with_its_holder_and_the_rest_comes_up(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", home.ports["gateway"]))
        taken.listen()
        said = home.pawl("up", "--only", "gateway", "--only", "standin", code=1)
        assert f"port {home.ports['gateway']}, wanted by gateway, is held by process {os.getpid()} (" in said
        assert "PAWL_GATEWAY_PORT" in said and "up standin" in said
        assert f"port {home.ports['gateway']} is held by process {os.getpid()}" in home.pawl("up", "--dry-run")
    assert "runs already standin" in home.pawl("up", "--only", "gateway,standin")
    assert home.pawl("logs", "standin", "-n", "0") == "" and "there are: gateway" in home.pawl("logs", "x", code=1)


def test_down_lets_the_gateway_answer_what_is_under_way(home: Home) -> None:
    home.pawl("up", "--only", "gateway")
    made = home.pawl("keys", "create", "client", "a client").split()
    key = next(word for word in made if word.startswith("pawl_"))
    home.replica.delay_s = 2.0
    url = f"http://127.0.0.1:{home.ports['gateway']}/v1"
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)
    said: list[str] = []

    def ask() -> None:
        asked = [{"role": "user", "content": PROMPT}]
        answer = client.chat.completions.create(model="functional-negative", messages=asked)  # type: ignore[arg-type]
        said.append(answer.choices[0].message.content or "")

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: home.replica.served != [])
    (ended,) = take_down(to_end(home.path, ["gateway"]), lambda _: None)
    asking.join()
    assert said == [f"base at {home.replica.port}"] and ended.how == "stopped" and ended.seconds > 1
    assert [p.cmdline()[2] for p in home.started()] == ["pawl.platform.log_keeper"]


def test_two_at_once_start_one_of_each(home: Home) -> None:
    both = [home.begin("up", "--only", "gateway", "--json") for _ in range(2)]
    outs = [b.communicate(timeout=60) for b in both]
    assert [b.returncode for b in both] == [0, 0], outs
    states = sorted(o["state"] for out, _ in outs for o in json.loads(out)["outcomes"] if o["name"] == "gateway")
    assert states == ["ran", "started"]
    assert any("waiting for process" in err for _, err in outs)
    assert sum("gateway" in p.cmdline() for p in home.started()) == 1


def test_what_does_not_start_shows_its_log_and_what_to_do(home: Home) -> None:
    (home.path / "control.sqlite").write_bytes(b"no database" * 100)
    said = home.pawl("up", "--only", "gateway,standin", code=1)
    assert "gateway ended while starting. The end of" in said and "control database" in said
    assert "up standin" in said and "pawl doctor" in said
    wrong = home.pawl("up", "--only", "gatewey", code=1)
    assert "there is no gatewey; there are: " in wrong


def test_a_recycled_process_id_is_never_touched(tmp_path: Path) -> None:
    server = Server("x", [sys.executable, "-c", "import time; time.sleep(60)"], lambda: True, tmp_path)
    server.start()
    known = server.known()
    assert known is not None and server.running() is not None
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        # The record as it would be found if the stranger had got the id of a server that ended long ago.
        boot, _, tick = beginning(stranger.pid).rpartition(":")
        server._write(Record(stranger.pid, f"{boot}:{int(tick) - 1}", "0" * 32, known.at))
        assert server.running() is None and standings([server])[0].state == "down"
        assert server.stop() == "down" and stranger.poll() is None
        # After a restart of the machine, ticks count anew.
        server._write(Record(stranger.pid, f"another-boot:{tick}", "0" * 32, known.at))
        assert server.running() is None and server.stop() == "down" and stranger.poll() is None
        server._write(known)
        assert server.stop() == "stopped" and leftovers(known.token) == []
    finally:
        stranger.kill()
        stranger.wait(5)


def test_what_ignores_the_signal_is_killed_with_all_it_started(tmp_path: Path) -> None:
    # What it starts has no living parent, and a session of its own: only the token tells whose it is.
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f'subprocess.run([sys.executable, "-c", "import subprocess, sys; {sleeper}"]); '
        "print('ready', flush=True); time.sleep(60)"
    )
    server = Server("deaf", [sys.executable, "-c", code], lambda: True, tmp_path, stop_s=0.5)
    server.start()
    until(lambda: "ready" in server.tail())
    known, process = server.known(), server.running()
    assert known is not None and process is not None
    assert len(leftovers(known.token)) == 2 and process.children(recursive=True) == []
    began = time.monotonic()
    assert server.stop() == "killed" and time.monotonic() - began < 10
    assert leftovers(known.token) == []


def test_leftovers_of_a_killed_server_are_ended_before_it_starts_again(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
        "print('ready', flush=True); time.sleep(60)"
    )
    server = Server("x", [sys.executable, "-c", code], lambda: True, tmp_path)
    server.start()
    until(lambda: "ready" in server.tail())
    known, process = server.known(), server.running()
    assert known is not None and process is not None
    process.kill()
    until(lambda: server.running() is None)
    assert len(leftovers(known.token)) == 1
    assert server.start() and leftovers(known.token) == []
    fresh = server.known()
    assert fresh is not None and fresh.starts == 2
    server.stop()
