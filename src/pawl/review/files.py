"""Reviews on disk, in one folder: `<agent>-<id>.json` is what raters see, `.hidden.json` what they must not.

Ratings go to `.ratings.jsonl` beside it, one line each, synced to the disk before anybody is told that it was taken.
A line without its end was never acknowledged: it is passed over, and cut off before the next one is written.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pawl.errors import LakeError, NotAllowed
from pawl.lake.journal import sync_folder
from pawl.review.calibration import Calibration
from pawl.review.sample import Hidden, Rating, Sample, Sheet

T = TypeVar("T")

_SHEET = re.compile(r"(?P<agent>.+)-(?P<id>[0-9a-f]{12})\.json")


class Reviews:
    """The reviews in a folder. LakeError where the disk refuses or a file is not what it should be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, sample: Sample) -> bool:
        """Keep a new review; False where it is there already, which changes nothing."""
        agent, identity = sample.sheet.agent, sample.sheet.id
        if self._path(agent, identity, "json").exists():
            return False
        # What raters see comes last: a review without its other half does not exist.
        self._write(self._path(agent, identity, "hidden.json"), sample.hidden)
        self._write(self._path(agent, identity, "json"), sample.sheet)
        return True

    def all(self, agent: str) -> list[Sheet]:
        """Reviews of an agent, oldest first."""
        names = (_SHEET.fullmatch(p.name) for p in self.folder.glob(f"{agent}-*.json"))
        found = [self.sheet(agent, n["id"]) for n in names if n and n["agent"] == agent]
        return sorted(found, key=lambda s: (s.at, s.id))

    def choose(self, agent: str, identity: str = "") -> Sheet:
        """The review of that id, or the latest. NotAllowed where there is none."""
        found = [s for s in self.all(agent) if s.id.startswith(identity)]
        if not found:
            wanted = f"review {identity}" if identity else "review"
            raise NotAllowed(f"{agent} has no {wanted}; `pawl review sample {agent}` draws one")
        return found[-1]

    def sheet(self, agent: str, identity: str) -> Sheet:
        """What raters see."""
        return self._read(self._path(agent, identity, "json"), Sheet)

    def sample(self, agent: str, identity: str) -> Sample:
        """Both halves."""
        return Sample(self.sheet(agent, identity), self._read(self._path(agent, identity, "hidden.json"), Hidden))

    def samples(self) -> Iterator[Sample]:
        """Every review of every agent."""
        for path in sorted(self.folder.glob("*.json")):
            if name := _SHEET.fullmatch(path.name):
                yield self.sample(name["agent"], name["id"])

    def calibration(self, agent: str) -> Calibration | None:
        """What the latest report made of the agent's ratings; None before, or where they were too few."""
        path = self.folder / f"{agent}-calibration.json"
        return self._read(path, Calibration) if path.exists() else None

    def ratings(self, agent: str, identity: str) -> list[Rating]:
        """What was said, in the order in which it came."""
        path = self._path(agent, identity, "ratings.jsonl")
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as e:
            raise LakeError(f"{path} cannot be read: {e.strerror}; check its owner and mode") from e
        return [_rating(path, n, line) for n, line in enumerate(lines, start=1)]

    def rate(self, agent: str, identity: str, rating: Rating) -> None:
        """Keep a rating: when this returns it is on the disk. The same again changes nothing.

        NotAllowed where the item is none of this review or this rater has rated it already.
        """
        with self._locked():
            if rating.item not in {i.id for i in self.sheet(agent, identity).items}:
                raise NotAllowed("this answer is no longer part of the review; go on with the next one")
            for known in self.ratings(agent, identity):
                if (known.item, known.rater) == (rating.item, rating.rater):
                    if msgspec.structs.replace(known, at=rating.at) == rating:
                        return
                    raise NotAllowed(f"{rating.rater} has rated this answer already; go on with the next one")
            self._append(self._path(agent, identity, "ratings.jsonl"), msgspec.json.encode(rating) + b"\n")

    def forget(self, interactions: Collection[str]) -> list[str]:
        """Take erased interactions out of every review, ratings too; returns the reviews that held one."""
        gone, hit = set(interactions), []
        with self._locked():
            for path in sorted(self.folder.glob("*.json")):
                name = _SHEET.fullmatch(path.name)
                if not name:
                    continue
                agent, identity = name["agent"], name["id"]
                sheet, hidden = self.sample(agent, identity)
                items = {f.item for f in hidden.facts if f.interaction in gone}
                if not items:
                    continue
                hit.append(f"{agent}-{identity}")
                kept = [r for r in self.ratings(agent, identity) if r.item not in items]
                lines = b"".join(msgspec.json.encode(r) + b"\n" for r in kept)
                self._replace(self._path(agent, identity, "ratings.jsonl"), lines)
                shown = tuple(i for i in sheet.items if i.id not in items)
                self._write(path, msgspec.structs.replace(sheet, items=shown))
                facts = tuple(f for f in hidden.facts if f.item not in items)
                # Last: until it is written, the same call finds these items again.
                self._write(self._path(agent, identity, "hidden.json"), msgspec.structs.replace(hidden, facts=facts))
        return hit

    def save(self, name: str, value: msgspec.Struct) -> Path:
        """Replace `<name>.json` in one step."""
        path = self.folder / f"{name}.json"
        self._write(path, value)
        return path

    def load(self, name: str, kind: type[T]) -> T | None:
        """What `save` wrote, None where there is nothing."""
        path = self.folder / f"{name}.json"
        return self._read(path, kind) if path.exists() else None

    # -- plumbing

    def _path(self, agent: str, identity: str, ending: str) -> Path:
        return self.folder / f"{agent}-{identity}.{ending}"

    def _read(self, path: Path, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError) as e:
            raise LakeError(f"{path} cannot be read: {e}; restore it from a copy, or draw a new sample") from e

    def _write(self, path: Path, value: Any) -> None:
        self._replace(path, msgspec.json.format(msgspec.json.encode(value)))

    def _replace(self, path: Path, data: bytes) -> None:
        part = path.with_name(f"{path.name}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(fd)
            part.replace(path)
            sync_folder(self.folder)
        except OSError as e:
            raise LakeError(f"{path} cannot be written: {e.strerror or e}; free disk space") from e

    def _append(self, path: Path, line: bytes) -> None:
        try:
            is_new = not path.exists()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                with os.fdopen(fd, "rb", closefd=False) as there:
                    data = there.read()
                whole = data.rfind(b"\n") + 1
                os.ftruncate(fd, whole)
                try:
                    rest = memoryview(line)
                    while rest:
                        rest = rest[os.write(fd, rest) :]
                    os.fsync(fd)
                except OSError:
                    os.ftruncate(fd, whole)
                    raise
            finally:
                os.close(fd)
            if is_new:
                sync_folder(self.folder)
        except OSError as e:
            raise LakeError(
                f"the rating cannot be written to {path}: {e.strerror or e}; free disk space and rate it again"
            ) from e

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes on this machine."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _rating(path: Path, number: int, line: bytes) -> Rating:
    try:
        return msgspec.json.decode(line, type=Rating)
    except msgspec.MsgspecError as e:
        raise LakeError(f"line {number} of {path} is damaged ({e}); restore the file, or take the line out") from e
