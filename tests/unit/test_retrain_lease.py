"""One retrain of an agent at a time: real processes that wait, are refused, and die with the lease in their hands."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from pawl.errors import StaleWrite
from pawl.improvement import retrain_lease
from pawl.improvement.retrain_lease import AlreadyRetraining, Lease, Retraining, holder, is_free
from pawl.rollout.control_sqlite import SqliteControl

HOLD = """
import sys, time
from pathlib import Path
from pawl.improvement.retrain_lease import Retraining
from pawl.rollout.control_sqlite import SqliteControl
with Retraining(SqliteControl(Path(sys.argv[1])), "a", "elsewhere"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def control(tmp_path: Path) -> SqliteControl:
    return SqliteControl(tmp_path / "control.sqlite")


def test_who_may_take_it() -> None:
    lease = Lease(run="r1", token="t", machine="m", pid=1, process_began=0.0, until=100.0)
    assert is_free(None, "r2", "m", alive=True, now=0)
    assert not is_free(lease, "r2", "m", alive=True, now=99)
    assert is_free(lease, "r2", "m", alive=True, now=100), "nobody has heard of it"
    assert is_free(lease, "r1", "other", alive=True, now=99), "the same run, started again"
    assert not is_free(lease, "r1", "m", alive=True, now=99), "started again, and the former process lives"
    assert is_free(lease, "r2", "m", alive=False, now=99), "its process is gone"
    assert not is_free(lease, "r2", "other", alive=False, now=99), "nobody sees another machine's processes"


def test_a_second_is_refused_or_waits_and_a_killed_holder_blocks_nobody(
    control: SqliteControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain_lease, "_LOOK_EVERY_S", 0.05)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "control.sqlite")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRetraining, match="by run elsewhere on"), Retraining(control, "a", "here", "cancel"):
        pass
    with Retraining(control, "b", "here", "cancel"):  # another agent's is another lease
        pass
    told: list[str] = []
    waited: list[float] = []

    def wait() -> None:
        with Retraining(control, "a", "here", tell=told.append):
            waited.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    assert not waited and "waiting for its end" in told[0]
    killed = time.monotonic()
    process.send_signal(signal.SIGKILL)  # still a zombie: nobody has asked how it ended
    waiting.join(10)
    assert waited and waited[0] - killed < 5, "it did not wait for the lease's end"
    assert holder(control, "a") is None
    process.wait(10)


def test_a_holder_that_was_not_heard_of_is_told_that_another_took_over(control: SqliteControl) -> None:
    with Retraining(control, "a", "first") as first:
        first.demand()
        found = holder(control, "a")
        assert found is not None and found.run == "first"
        # As when its machine slept for longer than the lease lasts.
        revision, _ = control.pointer("retraining/a")
        late = msgspec.structs.replace(found, until=time.time() - 1, machine="another")
        control.move_pointer("retraining/a", revision, msgspec.json.encode(late).decode())
        with Retraining(control, "a", "second", "cancel") as second:
            with pytest.raises(StaleWrite, match="taken over by run second"):
                first.demand()
            second.demand()
            first.__exit__()
            second.demand()  # the first one's end does not end it
    assert holder(control, "a") is None


def test_it_is_renewed_while_the_work_goes_on(control: SqliteControl) -> None:
    with Retraining(control, "a", "long", lasts_s=0.4):
        time.sleep(1.0)
        found = holder(control, "a")
        assert found is not None and found.until > time.time(), "older than it lasts, and still held"
        with pytest.raises(AlreadyRetraining), Retraining(control, "a", "other", "cancel"):
            pass
