"""How many different secrets of API keys stand in files: `python -m pawl.compliance.plain_keys FILE ...`.

Prints the number, or nothing where no file could be read; never what it found.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from pathlib import Path

_KEY = re.compile(rb"pawl_[A-Za-z0-9_-]{43}")  # what `pawl keys create` prints


def main() -> None:
    """Look into the files named on the command line."""
    found: set[bytes] = set()
    looked = False
    for path in map(Path, sys.argv[1:]):
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size:
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                        found |= {m.group() for m in _KEY.finditer(data)}
                looked = True
        except OSError:
            continue
    if looked:
        print(len(found))


if __name__ == "__main__":
    main()
