"""What was erased stays out, whenever it comes: people and interactions, remembered by digest, not by name (pure)."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable

import msgspec

from pawl.lake.manifest import Erased
from pawl.lake.records import Feedback, Interaction, LakeRecord, Observation

WIDTH = 16  # bytes of a SHA-256 that are kept: no two of 10^12 ids share them


def subject_digest(subject: str) -> str:
    """How an erased subject is remembered."""
    return hashlib.sha256(subject.encode()).hexdigest()


class ErasedIds:
    """The erased interactions: sorted digests in one run of bytes, 16 for each."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data) // WIDTH

    def __contains__(self, identity: str) -> bool:
        if not self.data:
            return False
        wanted = _id_digest(identity)
        place = bisect_left(range(len(self)), wanted, key=self._at)
        return place < len(self) and self._at(place) == wanted

    def with_ids(self, ids: Iterable[str]) -> ErasedIds:
        """These and more."""
        every = {self._at(n) for n in range(len(self))} | {_id_digest(i) for i in ids}
        return ErasedIds(b"".join(sorted(every)))

    def _at(self, place: int) -> bytes:
        return self.data[place * WIDTH : (place + 1) * WIDTH]


def people_of(session: str, user: str, task_subject: object) -> set[str]:
    """The subjects that an interaction is about."""
    return {session, user, "" if task_subject is None else str(task_subject)} - {""}


def sift(records: Iterable[LakeRecord], erased: Iterable[Erased], ids: ErasedIds) -> tuple[list[LakeRecord], set[str]]:
    """(what may stay of records that arrive, ids of interactions that go because of their subject).

    Of an erased subject, what happened until the erasure goes, and what was said about it whenever it was said. A bug
    report stays when another than its reporter was erased; it no longer names the interaction.
    """
    rows = list(records)
    when = {e.sha256: e.at for e in erased}
    if not when and not len(ids):
        return rows, set()

    def is_of(people: set[str], at: float) -> bool:
        return any(at <= when.get(subject_digest(p), float("-inf")) for p in people)

    gone = {
        r.id
        for r in rows
        if isinstance(r, Interaction) and is_of(people_of(r.session, r.user, r.task.get("subject")), r.at)
    }
    kept: list[LakeRecord] = []
    for r in rows:
        if isinstance(r, Observation):
            if not (r.subject and is_of({r.subject}, r.at)):
                kept.append(without_link(r, r.interaction in gone or r.interaction in ids))
        elif (about := r.interaction if isinstance(r, Feedback) else r.id) not in gone and about not in ids:
            kept.append(r)
    return kept, gone


def without_link(made: Observation, gone: bool) -> Observation:
    """The observation; where what it names is gone, it names nothing."""
    return msgspec.structs.replace(made, interaction="") if gone and made.interaction else made


def _id_digest(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()[:WIDTH]
