"""What is kept under the home: read, not judged, and never changed."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import time
from pathlib import Path

from pawl import bootstrap
from pawl.errors import ConfigError, ModelFileError, PawlError
from pawl.fleet.spec import FleetSpec
from pawl.lake.intake import DAMAGED
from pawl.lake.journal import OPEN, SEALED
from pawl.platform import checks_record as checks
from pawl.platform.findings import Finding, ok
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.approvals import unanswered
from pawl.rollout.control_schema import CURRENT
from pawl.serving import leases as lease_rows
from pawl.settings import Settings
from pawl.training.adapter_check import base_at_hand
from pawl.training.base_model_transformers import base_changed, check_folder

_NAMED = re.compile(r"-v\d+-([0-9a-f]{8})$")
_MOST_HASHED = 4 << 30  # larger base models take minutes


def fleet(settings: Settings) -> tuple[FleetSpec | None, list[Finding]]:
    """The specification, None where it cannot be read."""
    try:
        spec = bootstrap.fleet(settings)
    except ConfigError as e:
        return None, checks.fleet(str(settings.fleet), e.problems, 0)
    except (PawlError, OSError) as e:
        return None, checks.fleet(str(settings.fleet), [str(e)], 0)
    return spec, checks.fleet(str(settings.fleet), [], len(spec.agents))


def has_control(settings: Settings) -> bool:
    """Whether there is a control database that can be looked into: looking must neither make one nor bring up its
    schema."""
    if not settings.control_url and not settings.control_db.exists():
        return False
    try:
        return bootstrap.migrations(settings).current() == CURRENT
    except PawlError:
        return False


def control(settings: Settings) -> list[Finding]:
    """The database's own check of its file, its schema, then the audit log's chain."""
    where = "PostgreSQL, by PAWL_CONTROL_URL" if settings.control_url else str(settings.control_db)
    if not settings.control_url:
        if not settings.control_db.exists():
            return [ok("control database", "none yet")]
        damage = _damage(settings.control_db)
        if damage:
            return checks.control(where, damage, None, None)
    revision = bootstrap.migrations(settings).current()
    if revision != CURRENT:
        return checks.control(where, None, (revision or "none", CURRENT), None)
    return checks.control(where, None, None, bootstrap.control(settings).verify_audit())


def _damage(path: Path) -> str | None:
    try:
        db = sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True, timeout=5)
        try:
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            db.close()
    except sqlite3.Error as e:
        return str(e)
    return None if said == "ok" else str(said)


def journal(settings: Settings) -> list[Finding]:
    """What waits for the lake."""
    now, folder = time.time(), settings.journal_dir
    sealed, orphaned = list(folder.glob(f"*{SEALED}")), [p for p in folder.glob(f"*{OPEN}") if _is_orphan(p)]
    times = [at for p in [*sealed, *orphaned] if (at := _changed(p)) is not None]
    damaged = {p.name: p.read_bytes().count(b"\n") for p in folder.glob(f"*{DAMAGED}")}
    return checks.journal(min(times, default=None), len(times), len(orphaned), damaged, now)


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None  # it was taken in a moment ago


def _is_orphan(path: Path) -> bool:
    """A writer holds the lock of its segment as long as it lives."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def leases(settings: Settings) -> list[Finding]:
    """Who asked for which adapter."""
    if not has_control(settings):
        return []
    return checks.leases(lease_rows.held(bootstrap.control(settings)), time.time())


def drop_leases(settings: Settings) -> None:
    """Those that ended."""
    lease_rows.give_back(bootstrap.control(settings), "", time.time())


def approvals(settings: Settings) -> list[Finding]:
    """What waits for a person."""
    if not has_control(settings):
        return []
    store = bootstrap.control(settings)
    return checks.approvals(unanswered(store.requests(), store.rollouts()), time.time())


def models(settings: Settings, spec: FleetSpec | None) -> list[Finding]:
    """Base model and adapters by their contents."""
    if spec is None:
        return []
    needed = list(bootstrap.needs(settings, spec, bootstrap.control(settings))) if has_control(settings) else []
    adapters = {
        p.name: _adapter_problem(p, named[1])
        for p in sorted(settings.adapters_dir.glob("*"))
        if (named := _NAMED.search(p.name))
    }
    base = base_at_hand(spec.base_model, settings.models_dir)
    problem = _base_problem(base) if base else None
    return checks.models(str(base or ""), problem, adapters, [n for n in needed if _NAMED.search(n)])


def _base_problem(folder: Path) -> str | None:
    try:
        check_folder(folder)
    except ModelFileError as e:
        return str(e)
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    changed = size < _MOST_HASHED and base_changed(folder)
    return f"the files of {folder} are not what they were when they were made" if changed else None


def _adapter_problem(folder: Path, named: str) -> str | None:
    try:
        sha256 = adapter_sha256(folder)
    except ModelFileError as e:
        return str(e)
    return None if sha256.startswith(named) else f"its files hash to {sha256[:8]}, its name says {named}"
