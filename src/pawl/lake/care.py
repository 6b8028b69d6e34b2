"""The lake's care: small files merged, old payloads and rows dropped, people erased, leftovers swept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pawl.lake.erased import ErasedIds, people_of, subject_digest, without_link
from pawl.lake.intake import Intake
from pawl.lake.journal import journalled
from pawl.lake.manifest import Erased, Object
from pawl.lake.records import KINDS, TABLES, Feedback, Interaction, LakeRecord, Observation
from pawl.lake.shelf import Changed, Shelf, with_erased_ids

GRACE_S = 3600.0  # an object that is listed no longer stays so long, for who reads by the manifest before
MANIFEST_S = 30 * 86_400.0  # manifests replaced before that go: copies of the control database may point to them
_DAY_S = 86_400.0
PAYLOAD_DAYS = 400.0  # texts go after so long, where nobody says otherwise
AUDIT_DAYS = 6 * 365.25  # and rows


class Care:
    """The caller holds the shelf's lock."""

    def __init__(self, shelf: Shelf, intake: Intake, journal: Path) -> None:
        self._shelf, self._intake, self._journal = shelf, intake, journal

    def drop_copies(self, now: float) -> None:
        """Copies on this machine of what is listed no longer go: another machine may have erased a person since."""
        manifest, _ = self._shelf.now()
        listed = {o.path for o in manifest.objects} | {manifest.erased_ids}
        self._shelf.store.drop_copies(listed, now - GRACE_S)

    def compact(self, now: float) -> int:
        """Merge the files of each day and agent; returns how many files went."""
        merged, again = 0, True
        while again:
            groups: dict[tuple[str, str, str, bool], list[Object]] = {}
            for o in self._shelf.now()[0].objects:
                groups.setdefault((o.table, _date(o), o.agent, o.bare), []).append(o)
            several = [group for group in groups.values() if len(group) > 1]
            done = [len(group) - 1 for group in several if self._rewrite(group, lambda row: (row,), now)]
            merged, again = merged + sum(done), len(done) < len(several)
        self.sweep(now, GRACE_S)
        return merged

    def expire(self, now: float, payload_days: float, audit_days: float) -> tuple[int, int]:
        """(rows whose payload was taken out, rows dropped)."""
        bared = dropped = 0
        again = True
        while again:
            again = False
            for o in self._shelf.now()[0].objects:
                if o.last < now - audit_days * _DAY_S:
                    done = self._rewrite([o], None, now)
                    dropped += o.rows * done
                elif not o.bare and o.last < now - payload_days * _DAY_S:
                    done = self._rewrite([o], lambda row: (bare(row),), now, is_bare=True)
                    bared += o.rows * done
                else:
                    continue
                again |= not done
        self.sweep(now, GRACE_S)
        return bared, dropped

    def erase(self, subject: str, now: float) -> list[str]:
        """Remove a person; returns the ids of their interactions.

        Each step may be the last before a crash: who is marked stays marked, and erasing them again does the rest.
        """
        self._intake.ingest()
        mark = Erased(subject_digest(subject), now)
        self._shelf.change(lambda m: msgspec.structs.replace(m, erased=(*m.erased, mark)))
        # From here on no machine lists anything of theirs anew.
        gone = self._interactions_of(subject)
        ids = self._remember(gone, now)
        again = True
        while again:
            hit = [o for o in self._shelf.now()[0].objects if self._holds(o, subject, ids)]
            done = [self._rewrite([o], lambda row: _rest(row, subject, ids), now) for o in hit]
            again = not all(done)
        self._drop_unlisted(subject, ids, now)
        self.sweep(now, 0.0)
        return gone

    def _rewrite(
        self,
        old: list[Object],
        into: Callable[[Any], Iterable[LakeRecord]] | None,
        now: float,
        *,
        is_bare: bool | None = None,
    ) -> bool:
        """Put what `into` makes of each record, or nothing, in the objects' place. False: others changed them first."""
        try:
            read = (row for o in old for row in self._shelf.read(KINDS[o.table], o, keep=False))
            rows = {r.id: r for row in read for r in into(row)} if into else {}
            made = self._shelf.write(rows.values(), bare=old[0].bare if is_bare is None else is_bare)
            self._shelf.replace(old, made, now)
        except Changed:
            return False
        return True

    def _interactions_of(self, subject: str) -> list[str]:
        while True:
            found = {
                r.id: None
                for r in journalled(self._journal)
                if isinstance(r, Interaction) and subject in people_of(r.session, r.user, r.task.get("subject"))
            }
            try:
                for o in self._shelf.now()[0].objects:
                    if o.table == TABLES[Interaction]:
                        found |= dict.fromkeys(self._stored_of(o, subject))
                return list(found)
            except Changed:
                continue

    def _stored_of(self, o: Object, subject: str) -> Iterator[str]:
        for identity, session, user, task in self._shelf.columns(o, ("id", "session", "user", "task")):
            named = msgspec.json.decode(task).get("subject") if task and '"subject"' in task else None
            if subject in people_of(session or "", user or "", named):
                yield identity

    def _remember(self, gone: list[str], now: float) -> ErasedIds:
        while True:
            before, ids = self._shelf.now()
            wanted = ids.with_ids(gone)
            if len(wanted) == len(ids):
                return ids
            name = self._shelf.write_erased(wanted)
            if self._swap_erased(before.erased_ids, name, now):
                return wanted

    def _swap_erased(self, old: str, new: str, now: float) -> bool:
        made = self._shelf.change(lambda m: with_erased_ids(m, new, now) if m.erased_ids == old else m)
        return made.erased_ids == new

    def _holds(self, o: Object, subject: str, ids: ErasedIds) -> bool:
        """Whether the object has anything that has to go."""
        try:
            return self._hit(o, subject, ids)
        except Changed:
            return True  # gone itself: to rewrite it fails, and what replaced it is looked at

    def _hit(self, o: Object, subject: str, ids: ErasedIds) -> bool:
        if o.table == TABLES[Interaction]:
            return any(row[0] in ids for row in self._shelf.columns(o, ("id",)))
        if o.table == TABLES[Feedback]:
            return any(row[1] in ids for row in self._shelf.columns(o, ("id", "interaction")))
        rows = self._shelf.columns(o, ("id", "subject", "interaction"))
        return any(row[1] == subject or (row[2] and row[2] in ids) for row in rows)

    def _drop_unlisted(self, subject: str, ids: ErasedIds, now: float) -> None:
        """What died writers left is listed nowhere. Only what holds something of the subject's is deleted.

        The rest may be what a manifest that was restored from an older copy knows nothing of. In a store that other
        machines write into too, what is younger than an hour stays: one of them may be about to list it.
        """
        before = now - GRACE_S if self._shelf.is_shared else float("inf")
        manifest = self._shelf.now()[0]
        known = {o.path for o in manifest.objects} | {r.path for r in manifest.removed}
        for table in KINDS:
            for stored in self._shelf.store.listed(f"{table}/"):
                left = Object(stored.name, table, agent="", rows=0, first=0.0, last=0.0)
                if stored.name not in known and stored.at < before and self._is_left_of(left, subject, ids):
                    self._shelf.store.delete(stored.name)

    def _is_left_of(self, o: Object, subject: str, ids: ErasedIds) -> bool:
        try:
            theirs = o.table == TABLES[Interaction] and any(True for _ in self._stored_of(o, subject))
            return theirs or self._hit(o, subject, ids)
        except Changed:
            return False  # gone already

    def sweep(self, now: float, grace_s: float) -> None:
        """Delete objects that are listed no longer and whose grace is over, and what was never whole."""
        over = {r for r in self._shelf.now()[0].removed if r.at <= now - grace_s}
        if over:
            self._shelf.change(
                lambda m: msgspec.structs.replace(m, removed=tuple(r for r in m.removed if r not in over))
            )
        manifest = self._shelf.now()[0]
        listed = {o.path for o in manifest.objects} | {r.path for r in manifest.removed} | {manifest.erased_ids}
        for path in {r.path for r in over} - listed:
            self._shelf.store.delete(path)
            self._shelf.cache.pop(path, None)
        self._shelf.manifests.sweep(now - MANIFEST_S)
        for part in self._shelf.root.glob("*.part"):
            part.unlink(missing_ok=True)  # nobody else on this machine writes now


def bare(record: LakeRecord) -> LakeRecord:
    """A record without what people wrote (pure)."""
    if isinstance(record, Interaction):
        return msgspec.structs.replace(record, messages=[], completion="", tool_calls=[], error=None, task={}, user="")
    if isinstance(record, Observation):
        return msgspec.structs.replace(record, title="", text="", root_cause="", figures={}, subject="")
    return msgspec.structs.replace(record, detail={})


def _rest(row: LakeRecord, subject: str, ids: ErasedIds) -> Iterator[LakeRecord]:
    """The record where it may stay."""
    if isinstance(row, Observation):
        if row.subject != subject:
            yield without_link(row, row.interaction in ids)
    elif (row.id if isinstance(row, Interaction) else row.interaction) not in ids:
        yield row


def _date(o: Object) -> str:
    return o.path.split("/")[1].removeprefix("date=")
