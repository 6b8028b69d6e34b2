"""A split by the weights in a route file that Envoy watches: for teams whose Envoy splits between whole models.

Source: envoyproxy.io, "Route discovery service (RDS)" with `path_config_source`, and the administration interface
(`/config_dump`, `/stats`). Only weights are written. The file is replaced by a rename, which Envoy sees at once; what
is in force is asked of Envoy itself, for a file that it refuses changes nothing there. Writers exclude each other by a
lock beside the file; whoever edits it without that lock is noticed up to the instant of the rename.
"""

from __future__ import annotations

import copy
import fcntl
import http.client
import json
import logging
import os
import re
import stat
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pawl.errors import ConfigError, ServerNotUp, StaleWrite
from pawl.rollout.envoy_config import ROUTES_TYPE
from pawl.rollout.traffic import Shares, shares_of

log = logging.getLogger("pawl.traffic")
_TRIES = 5
_LOOK_S = 0.02
_GRACE_S = 0.25  # a refusal may have been of what somebody else wrote just before
_ANSWER_S = 2.0


class EnvoyTraffic:
    """One Envoy, and the file with the routes whose weighted clusters are a champion's and a challenger's."""

    def __init__(self, file: Path, admin: str, *, champion: str, challenger: str, within_s: float = 5.0) -> None:
        """`admin`: http://host:port of its administration interface. `champion`, `challenger`: names of clusters.
        `within_s`: how long a write waits for other writers, and then for Envoy."""
        self._file, self._admin, self._within_s = file, admin.rstrip("/"), within_s
        self._sides = (champion, challenger)

    def read(self) -> Shares:
        """What Envoy has in force, though the file may hold another split by now."""
        held = self._held()[1]
        split_of(held, *self._sides, str(self._file))
        return self._in_force(held)

    def write(self, wanted: Shares) -> bool:
        """As the port says; returns when Envoy has it in force.

        ConfigError where the file is missing, not ours, or refused by Envoy (but all to one backend is written over
        such a file, from the routes in force); StaleWrite where others hold or keep
        changing it; ServerNotUp where Envoy does not have it in time. Then it stands in the file all the same, and an
        Envoy that starts later begins with it.
        """
        with self._alone():
            try:
                return self._moved(wanted)
            except ConfigError as e:
                if 0 not in (wanted.champion, wanted.challenger) or self._file.is_symlink():
                    raise
                return self._all_to_one(wanted, e)

    def _moved(self, wanted: Shares) -> bool:
        for _ in range(_TRIES):
            text, held = self._held()
            there = split_of(held, *self._sides, str(self._file)) == wanted
            now, refused = self._looked(held)
            if there and now == wanted:
                return False
            if there and now is None:  # Envoy is down, and reads the file when it starts
                return self._arrived(held, wanted, refused)
            if self._replaced(text, weighted(json.loads(text), *self._sides, wanted)):
                return self._arrived(held, wanted, refused)
        raise StaleWrite(f"{self._file} is changed by others all the time, without the lock {self._lock}")

    def _all_to_one(self, wanted: Shares, why: ConfigError) -> bool:
        """The way back does not wait until somebody mends the file: the routes that Envoy has in force are written
        with the wanted weights. The file that was there is kept beside it."""
        found = self._ask("/config_dump?resource=dynamic_route_configs") or "{}"
        known = [c.get("route_config", {}) for c in json.loads(found).get("configs", [])]
        ours = [routes for routes in known if _ours(routes, *self._sides)]
        if len(ours) != 1:
            raise why
        made = weighted({"version_info": "0", "resources": ours}, *self._sides, wanted)
        refused = self._refused(ours[0]["name"])
        text = self._file.read_bytes() if self._file.exists() else b""
        if text == _text(made):  # it was written before; the rest is a person's, and what that was is kept
            raise why
        kept = self._file.with_name(f"{self._file.name}.refused")
        try:
            kept.write_bytes(text)
            self._file.touch()
        except OSError as e:
            raise why from e
        if not self._replaced(text, made):
            raise StaleWrite(f"{self._file} was changed by somebody else just now")
        log.warning("the routes in force at %s replace %s, now %s: %s", self._admin, self._file, kept.name, why)
        return self._arrived(ours[0], wanted, refused)

    @property
    def _lock(self) -> Path:
        return self._file.with_name(f".{self._file.name}.lock")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            handle = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as e:
            why = f"no lock can be made beside it ({e.strerror}): its folder must be there, and writable for Pawl"
            raise ConfigError(str(self._file), [why]) from e
        try:
            give_up = time.monotonic() + self._within_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise StaleWrite(f"another writer has held {self._lock} for {self._within_s:g} s") from None
                    time.sleep(_LOOK_S)
            yield
        finally:
            os.close(handle)

    def _held(self) -> tuple[bytes, dict[str, Any]]:
        """The file, and the route configuration in it. ConfigError."""
        try:
            if self._file.is_symlink():
                why = "it is a link, as in a mounted ConfigMap: give a file that Pawl can replace"
                raise ConfigError(str(self._file), [why])
            text = self._file.read_bytes()
        except OSError as e:
            why = f"it cannot be read ({e.strerror}); `pawl traffic envoy` writes one to begin with"
            raise ConfigError(str(self._file), [why]) from e
        return text, routes_of(text, str(self._file))

    def _replaced(self, was: bytes, made: dict[str, Any]) -> bool:
        """Put a file in its place at once and for good; False where somebody changed it since it was read."""
        handle, path = tempfile.mkstemp(prefix=f".{self._file.name}.", dir=self._file.parent)
        try:
            with os.fdopen(handle, "wb") as new:
                new.write(_text(made))
                os.fchmod(new.fileno(), stat.S_IMODE(self._file.stat().st_mode))  # Envoy may be another user
                new.flush()
                os.fsync(new.fileno())
            if self._file.read_bytes() != was:
                return False
            Path(path).replace(self._file)
        except OSError as e:
            raise ConfigError(str(self._file), [f"it cannot be replaced ({e.strerror})"]) from e
        finally:
            Path(path).unlink(missing_ok=True)
        return True

    def _arrived(self, routes: dict[str, Any], wanted: Shares, refused: int) -> bool:
        """True once Envoy has it in force. `refused`: how often it had refused a file before."""
        give_up = time.monotonic() + self._within_s
        told: float | None = None
        while True:
            now, count = self._looked(routes)
            if now == wanted:
                return True
            at = time.monotonic()
            told = told or (at if now is not None and count > refused >= 0 else None)
            if told is not None and at - told > _GRACE_S:
                why = "Envoy refuses it: its log says why ('config update rejected'); until then its former routes hold"
                raise ConfigError(str(self._file), [why])
            if at > give_up:
                break
            time.sleep(_LOOK_S)
        if now is None:
            raise ServerNotUp(
                f"the split stands in {self._file}, but Envoy does not answer at {self._admin}; it begins with it"
            )
        raise ServerNotUp(
            f"Envoy at {self._admin} has not taken {self._file} within {self._within_s:g} s: is its folder the "
            f"watched_directory of the routes {routes['name']}?"
        )

    def _looked(self, routes: dict[str, Any]) -> tuple[Shares | None, int]:
        """(what is in force, how many files Envoy has refused); (None, -1) where it does not answer."""
        try:
            return self._in_force(routes), self._refused(routes["name"])
        except ServerNotUp:
            return None, -1

    def _in_force(self, routes: dict[str, Any]) -> Shares:
        """The split that Envoy applies now. ServerNotUp where it does not answer or has not read any file yet."""
        found = json.loads(self._ask("/config_dump?resource=dynamic_route_configs") or '{"configs": []}')
        for config in found.get("configs", []):
            known = config.get("route_config", {})
            if known.get("name") == routes["name"]:
                return split_of(known, *self._sides, f"Envoy's route configuration {known['name']}")
        raise ServerNotUp(f"Envoy at {self._admin} has no routes {routes['name']}: does it read {self._file}?")

    def _refused(self, name: str) -> int:
        pattern = rf"\.rds\.{re.escape(name.replace(':', '_'))}\.update_(rejected|failure)$"
        lines = self._ask(f"/stats?filter={quote(pattern)}").splitlines()
        return sum(int(line.rsplit(":", 1)[1]) for line in lines if line.strip())

    def _ask(self, path: str) -> str:
        """An answer of the administration interface; empty where there is none of that. ServerNotUp."""
        try:
            with urllib.request.urlopen(self._admin + path, timeout=_ANSWER_S) as answer:  # noqa: S310
                return str(answer.read().decode())
        except urllib.error.HTTPError as e:
            if e.code == 404:
                return ""
            raise ServerNotUp(f"Envoy's administration interface answered {e.code} to {path}") from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise ServerNotUp(f"Envoy's administration interface at {self._admin} does not answer ({e})") from e


def routes_of(text: bytes, where: str) -> dict[str, Any]:
    """The RouteConfiguration in a route file (pure). ConfigError where it is not one."""
    try:
        (found,) = json.loads(text)["resources"]
        if found["@type"] != ROUTES_TYPE or not found["name"]:
            raise ValueError(found["@type"])
    except (ValueError, KeyError, TypeError) as e:
        why = f"it is not a DiscoveryResponse in JSON with one RouteConfiguration ({type(e).__name__}: {e})"
        raise ConfigError(where, [why]) from e
    return dict(found)


def split_of(routes: dict[str, Any], champion: str, challenger: str, where: str) -> Shares:
    """The split of the routes that name both clusters (pure). ConfigError where none does, where they differ, or where
    another cluster has a part beside them."""
    found = set()
    for clusters in _ours(routes, champion, challenger):
        weights = {str(c.get("name")): c.get("weight", 0) for c in clusters}
        if not all(isinstance(w, int) and w >= 0 for w in weights.values()):
            raise ConfigError(where, [f"its weights are no whole numbers: {weights}"])
        if strange := {name for name, weight in weights.items() if weight} - {champion, challenger}:
            raise ConfigError(
                where, [f"a route splits between {champion}, {challenger} and {sorted(strange)}: two only"]
            )
        found.add(shares_of(weights[champion], weights[challenger]))
    if len(found) == 1:
        return found.pop()
    if found:
        splits = sorted((s.champion, s.challenger) for s in found)
        raise ConfigError(where, [f"its routes split differently: {splits}"])
    why = f"no route's weighted_clusters names both {champion} and {challenger} (names in snake_case, please)"
    raise ConfigError(where, [why])


def weighted(response: dict[str, Any], champion: str, challenger: str, wanted: Shares) -> dict[str, Any]:
    """The same DiscoveryResponse with the wanted weights (pure). Another cluster's are left as they are."""
    made = copy.deepcopy(response)
    for routes in made["resources"]:
        for clusters in _ours(routes, champion, challenger):
            for cluster in (c for c in clusters if c.get("name") in (champion, challenger)):
                cluster["weight"] = wanted.champion if cluster["name"] == champion else wanted.challenger
    return made


def _text(response: dict[str, Any]) -> bytes:
    return json.dumps(response, indent=1).encode() + b"\n"


def _ours(routes: dict[str, Any], champion: str, challenger: str) -> list[list[dict[str, Any]]]:
    """The weighted clusters of every route that names both."""
    try:
        actions = [r.get("route", {}) for host in routes.get("virtual_hosts", []) for r in host.get("routes", [])]
        splits = [a.get("weighted_clusters", {}).get("clusters", []) for a in actions]
        return [s for s in splits if {champion, challenger} <= {c.get("name") for c in s}]
    except (AttributeError, TypeError):  # lists where mappings belong, or the like: no routes of Envoy's
        return []
