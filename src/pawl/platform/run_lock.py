"""One change of what runs at a time: `pawl up` and `pawl down` wait for each other."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pawl.bootstrap import home_at
from pawl.errors import ResourceError

PATIENCE_S = 900.0


@contextmanager
def alone(home: Path, tell: Callable[[str], None], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the lock of this home. Who has to wait is told for whom; ResourceError where that takes too long,
    ConfigError where there can be no such folder.

    The kernel lets go of it when its holder dies, however that happens.
    """
    folder = home_at(home) / "run"
    folder.mkdir(exist_ok=True)
    end, told = time.monotonic() + patience_s, False
    with (folder / "lock").open("a+") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                if time.monotonic() > end:
                    raise ResourceError(
                        f"process {holder} has been starting or stopping servers for {patience_s:.0f} s: "
                        "look at what it does, or end it"
                    ) from None
                if not told:
                    tell(f"waiting for process {holder}, which starts or stops servers here")
                    told = True
                time.sleep(0.2)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
