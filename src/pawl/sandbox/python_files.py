"""What of this machine's files a Python program needs: the interpreter, shared libraries, granted packages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pawl.qe.item import CannotGrade

# Linked libraries lie here, whatever the distribution. Debian keeps packages for Python there too: see `hidden`.
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64")
# The same on any machine, and nothing of it is worth keeping from anybody.
_ODDS = ("/etc/ld.so.cache",)


def interpreter() -> Path:
    """The interpreter itself, without the links of a virtual environment."""
    return Path(sys.executable).resolve()


def readable() -> list[Path]:
    """Folders and files that Python needs to start and to import its standard library."""
    prefix = Path(sys.base_prefix).resolve()
    # A prefix like /usr holds the programs of a whole machine: of it only the libraries.
    own = [prefix] if prefix not in (Path("/usr"), Path("/usr/local"), Path("/")) else [prefix / "lib"]
    return [p for p in [*own, *map(Path, (*LIBRARIES, *_ODDS))] if p.exists()]


def hidden() -> list[Path]:
    """Folders of installed packages within `readable`."""
    prefix = Path(sys.base_prefix).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [prefix / "lib" / version / "site-packages", prefix / "lib" / version / "dist-packages"]
    places += [Path("/usr/lib/python3/dist-packages"), Path("/usr/lib") / version / "dist-packages"]
    return [p for p in dict.fromkeys(places) if p.is_dir()]


def without_hidden() -> tuple[list[Path], list[Path]]:
    """`readable` in parts, so that `hidden` is in none of them; and the folders that were taken apart for it."""
    apart: list[Path] = []
    todo, kept = [p.resolve() for p in readable()], []
    places = [p.resolve() for p in hidden()]
    while todo:
        path = todo.pop()
        if path in places:
            continue
        if any(path in place.parents for place in places):
            apart.append(path)
            todo += [p for p in path.iterdir() if not p.is_symlink()]
        else:
            kept.append(path)
    return sorted(set(kept)), sorted(set(apart))


@lru_cache(maxsize=64)
def granted(packages: tuple[str, ...]) -> tuple[Path, ...]:
    """Where the installed packages or modules of these names lie.

    Raises:
        CannotGrade: one of them is not installed here.
    """
    return tuple(_place(p) for p in packages)


def _place(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.origin or found.origin == "built-in":
        raise CannotGrade(f"the sandbox was to grant package {package}, which is not installed")
    origin = Path(found.origin)
    return origin.parent if found.submodule_search_locations else origin


def search_path(places: Sequence[Path], under: str) -> dict[str, Path]:
    """Where each granted place is to appear below the folder `under`."""
    return {f"{under}/{p.name}": p for p in places}
