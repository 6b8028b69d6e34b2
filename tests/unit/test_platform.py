"""What is chosen, in which order it starts, how replicas share a machine, and logs that stay within bounds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pawl import bootstrap
from pawl.errors import ConfigError, PawlError, ResourceError
from pawl.platform.bring_up import Outcome, Start, chosen
from pawl.platform.listeners import lasting
from pawl.platform.log_files import follow, rotate, tail
from pawl.platform.process import Server, recorded
from pawl.platform.run_lock import alone
from pawl.platform.servers import Platform, Step, core_share, gpu_share, platform
from pawl.platform.take_down import take_down, to_end
from pawl.settings import Settings
from tests.waiting import until


@pytest.fixture
def here(tmp_path: Path, root: Path) -> Platform:
    settings = Settings(home=tmp_path, fleet=root / "infra" / "fleet.yaml", root=root)
    return platform(settings, bootstrap.fleet(settings))


def names(found: tuple[list[Server], list[Step]]) -> tuple[set[str], set[str]]:
    return {s.name for s in found[0]}, {p.name for p in found[1]}


def test_steps_come_with_the_servers_that_want_them(here: Platform) -> None:
    servers, steps = names(chosen(here))
    assert servers == {"mlflow", "postgres", "prefect", "worker", "standin", "vllm", "gateway", "log-keeper"}
    assert steps == {"base-model", "deployments", "webhook"}
    assert names(chosen(here, only=["gateway"])) == ({"gateway", "log-keeper"}, set())
    assert names(chosen(here, only=["vllm"])) == ({"vllm", "log-keeper"}, {"base-model"})
    assert "webhook" not in names(chosen(here, without=["mlflow"]))[1]
    assert "log-keeper" not in names(chosen(here, without=["log-keeper"]))[0]
    with pytest.raises(ConfigError, match="there is no prefct; there are: mlflow"):
        chosen(here, only=["prefct"])


def test_what_the_settings_have_elsewhere_is_not_started(tmp_path: Path, root: Path) -> None:
    settings = Settings(
        home=tmp_path, fleet=root / "infra" / "fleet.yaml", root=root, mlflow_address="http://mlflow:5000",
        vllm_urls="http://127.0.0.1:8001,http://10.0.0.5:8000,http://127.0.0.1:8002", prefect_database="sqlite",
    )  # fmt: skip
    found = platform(settings, bootstrap.fleet(settings))
    by_name = {s.name: s for s in found.servers}
    assert "mlflow" not in by_name and "postgres" not in by_name and found.elsewhere["mlflow"] == "http://mlflow:5000"
    assert by_name["vllm"].port == 8001 and by_name["vllm-2"].port == 8002 and "vllm-3" not in by_name
    assert "vllm at http://10.0.0.5:8000" in found.elsewhere
    with pytest.raises(ConfigError, match=r"mlflow is elsewhere \(http://mlflow:5000\)"):
        chosen(found, only=["mlflow"])


def test_replicas_share_the_cores_and_the_gpus() -> None:
    cores = (0, 1, 2, 3, 6)
    shares = [core_share(n, 2, cores)["VLLM_CPU_OMP_THREADS_BIND"] for n in range(2)]
    assert shares == ["0,1", "2,3,6"]
    assert core_share(0, 1, cores) == {} == core_share(0, 6, cores)
    assert [gpu_share(n, 3, 2)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["0", "1", "0"] and gpu_share(
        0, 1, 2
    ) == {}


def sleeper(home: Path, name: str, **more: object) -> Server:
    return Server(name, [sys.executable, "-c", "import time; time.sleep(30)"], lambda: True, home, **more)  # type: ignore[arg-type]


def test_one_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    def fails() -> None:
        raise PawlError("no network")

    done: list[str] = []
    steps = [
        Step("bad", fails, lambda: "1"),
        Step("good", lambda: done.append("good"), lambda: "1"),
        Step("after", lambda: done.append("after"), lambda: str(len(done)), needs=("a",)),
    ]
    servers = [sleeper(tmp_path, "a", needs=("good",)), sleeper(tmp_path, "b", needs=("bad",))]
    try:
        told: list[Outcome] = []
        outcomes = {o.name: o for o in Start(tmp_path, servers, steps, told.append).run()}
        assert {n: o.state for n, o in outcomes.items()} == {
            "bad": "failed", "good": "done", "a": "started", "b": "not tried", "after": "done",
        }  # fmt: skip
        assert outcomes["bad"].why == "no network" and "bad" in outcomes["b"].why
        assert [o.name for o in told].index("good") < [o.name for o in told].index("a")
        assert servers[1].running() is None and done == ["good", "after"]
        again = {o.name: o.state for o in Start(tmp_path, servers, steps[1:], told.append).run()}
        assert again == {"good": "was done", "a": "ran", "b": "started", "after": "was done"}
    finally:
        ended = take_down(to_end(tmp_path), lambda _: None)
    assert {e.name: e.how for e in ended} == {"a": "stopped", "b": "stopped"} and recorded(tmp_path) == []


def test_servers_end_in_the_order_in_which_they_lean_on_each_other(tmp_path: Path) -> None:
    for name, stops in (("database", 3), ("gateway", 0), ("model", 1)):
        sleeper(tmp_path, name, stops=stops).start()
    # What is known of a start is enough: the settings may have changed since.
    assert [s.name for s in to_end(tmp_path)] == ["gateway", "model", "database"]
    with pytest.raises(ConfigError, match="started: database, gateway, model"):
        to_end(tmp_path, ["models"])
    assert [e.name for e in take_down(to_end(tmp_path, ["model"]), lambda _: None)] == ["model"]
    assert [e.name for e in take_down(to_end(tmp_path), lambda _: None)] == ["gateway", "database"]


class EndsMeanwhile(Server):
    """One that ends by itself between somebody's look at it and the signal."""

    def running(self) -> psutil.Process | None:
        found = super().running()
        if found is not None:
            found.kill()
            os.waitpid(found.pid, 0)
        return found


def test_one_that_ends_just_before_its_signal_stops_nothing_else_from_being_ended(tmp_path: Path) -> None:
    sleeper(tmp_path, "first").start()
    server = EndsMeanwhile("first", [], lambda: True, tmp_path)
    assert server.stop() == "stopped" and recorded(tmp_path) == []


def test_what_takes_too_long_is_said_with_its_log_and_left_alone(tmp_path: Path) -> None:
    code = "import time; print('still reading', flush=True); time.sleep(30)"
    slow = Server("slow", [sys.executable, "-c", code], lambda: False, tmp_path, ready_s=1.0)
    (outcome,) = Start(tmp_path, [slow], [], lambda _: None).run()
    assert outcome.state == "failed" and "still reading" in outcome.why and slow.running() is not None
    slow.stop()


def test_the_lock_is_let_go_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pawl.platform.run_lock import alone\n"
        "with alone(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(30)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    told: list[str] = []
    with pytest.raises(ResourceError, match=f"process {holder.pid} has been"), alone(tmp_path, told.append, 0.3):
        pass
    assert told == [f"waiting for process {holder.pid}, which starts or stops servers here"]
    holder.kill()
    holder.wait(5)
    with alone(tmp_path, told.append, 5):
        pass


def test_a_log_is_cut_off_and_its_writer_goes_on(tmp_path: Path) -> None:
    path, stop = tmp_path / "x.log", threading.Event()
    written = [0]

    def write() -> None:
        with path.open("ab", buffering=0) as out:
            while not stop.is_set():
                out.write(b"%08d\n" % written[0])
                written[0] += 1
                if written[0] % 50 == 0:
                    time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    cuts = 0
    end = time.monotonic() + 3
    while cuts < 5 and time.monotonic() < end:
        cuts += rotate(path, most_bytes=20_000, kept=3)
        time.sleep(0.01)
    stop.set()
    writer.join()
    assert cuts == 5
    parts = [tmp_path / f"x.log.{n}" for n in (3, 2, 1)]
    assert all(p.exists() for p in parts) and not (tmp_path / "x.log.4").exists()
    rows = [int(row) for p in [*parts, path] for row in p.read_bytes().split()]
    assert rows == sorted(rows) and rows[-1] == written[0] - 1
    lost = rows[-1] - rows[0] + 1 - len(rows)
    assert lost <= 0.02 * len(rows), f"{lost} of {len(rows)} lines were lost"
    assert not rotate(path, most_bytes=1 << 30)


def test_the_end_of_a_log_and_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert tail(path, 5) == ""
    path.write_text("".join(f"line {n} {'x' * 100}\n" for n in range(5000)))
    assert [row.split()[1] for row in tail(path, 2).splitlines()] == ["4998", "4999"]
    assert len(tail(path, 9000).splitlines()) == 5000 and tail(path, 0) == ""
    seen: list[str] = []
    ended = threading.Event()

    def read() -> None:
        seen.extend(follow(path, ended.is_set, 0.01))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    with path.open("a") as out:
        out.write("one\n")
    until(lambda: seen == ["one\n"])
    path.write_text("two\n")  # cut off
    until(lambda: "".join(seen) == "one\ntwo\n")
    ended.set()
    reader.join()


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (700, "12 min"), (10_000, "3 h"), (200_000, "2 days")])
def test_a_span_of_time_in_words(seconds: float, words: str) -> None:
    assert lasting(seconds) == words
