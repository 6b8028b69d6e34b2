"""`python -m pawl.platform.log_keeper FOLDER [FILE ...]`: keeps the logs there within bounds, until SIGTERM.

It is no writer of them: when it dies no server notices, they only grow until it is started again.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from pawl.platform.log_files import MOST_BYTES, rotate

EVERY_S = 10.0


def main(folder: Path, also: list[Path], most_bytes: int = MOST_BYTES, every_s: float = EVERY_S) -> None:
    """Look, cut off what is too long, wait."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while True:
        for path in [*folder.glob("*.log"), *also]:
            if rotate(path, most_bytes):
                print(f"{path} was cut off; the part before is {path.name}.1", flush=True)
        if ended.wait(every_s):
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(given) for given in sys.argv[2:]])
