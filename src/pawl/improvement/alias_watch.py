"""Aliases are moved by promotion alone. What it last let each name stands in the control database; whatever else moves
one is reported, and the alias is put back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from pawl.errors import PawlError
from pawl.improvement.workplace import Workplace
from pawl.registry.aliases import ALIASES, alias_pointer, strayed
from pawl.rollout.events import Event

CONFIRM_S = 2.0  # promotion writes what it expects and then moves the alias: in between they differ for a moment
log = logging.getLogger("pawl.aliases")


class Stray(NamedTuple):
    """An alias that something else moved; "" stands for no version."""

    alias: str
    expected: str
    found: str
    put_back: bool


def move(place: Workplace, alias: str, number: str) -> None:
    """Let the alias name this version: first what is expected, then the registry, so that a crash leaves a stray that
    the watch completes."""
    before = _expect(place, alias, number)
    place.registry.move_alias(place.agent_name, alias, number)
    if before != number:
        detail = {"alias": alias, "before": before}
        event = Event(name="pawl.alias.moved", agent=place.agent_name, version=number, at=time.time(), detail=detail)
        place.events.emit(event)


def drop(place: Workplace, alias: str) -> None:
    """Let the alias name nothing."""
    _expect(place, alias, "")
    place.registry.drop_alias(place.agent_name, alias)


def named(place: Workplace, alias: str) -> str:
    """The version that promotion let the alias name, whatever was made of it since; "" where none."""
    revision, number = place.control.pointer(alias_pointer(place.agent_name, alias))
    return number if revision else _found(place, alias)


def watch(place: Workplace, now: float, wait: Callable[[float], None] = time.sleep) -> list[Stray]:
    """Look at the agent's aliases; report those that something else moved, and put them back.

    What is there at the first look ever is taken for right, and audited as such.
    """
    strays = []
    for alias in ALIASES:
        pointer = alias_pointer(place.agent_name, alias)
        expected, found = place.control.pointer(pointer), _found(place, alias)
        if expected[0] == 0:
            _adopt(place, alias, found, now)
            continue
        if not strayed(expected, found):
            continue
        wait(CONFIRM_S)
        if place.control.pointer(pointer) == expected and strayed(expected, _found(place, alias)):
            strays.append(_put_back(place, alias, expected, _found(place, alias), now))
    return strays


def _put_back(place: Workplace, alias: str, expected: tuple[int, str], found: str, now: float) -> Stray:
    agent, number = place.agent_name, expected[1]
    try:
        if number:
            place.registry.move_alias(agent, alias, number)
        else:
            place.registry.drop_alias(agent, alias)
        failed = ""
    except PawlError as e:  # the version may be gone with its alias
        failed = str(e)
    stray = Stray(alias, number, found, not failed)
    told = f"{agent}@{alias} named version {found or 'none'} and should name {number or 'none'}"
    log.warning("%s: %s", told, failed or "put back")
    # One that cannot be put back is found each minute; it is told once.
    if failed and not place.control.spend_code(f"stray-{agent}-{alias}-{expected[0]}-{found}", now):
        return stray
    detail = {"agent": agent, **stray._asdict()} | ({"why": failed} if failed else {})
    place.control.audit("alias moved by something else", "roll_out", detail, now)
    event = Event(
        name="pawl.alias.restored",
        agent=agent,
        version=number or found,
        at=now,
        detail=stray._asdict() | {"why": failed},
    )
    place.events.emit(event)
    return stray


def _adopt(place: Workplace, alias: str, found: str, now: float) -> None:
    _expect(place, alias, found)
    if found:
        detail = {"agent": place.agent_name, "alias": alias, "version": found}
        place.control.audit("alias taken for right", "roll_out", detail, now)


def _expect(place: Workplace, alias: str, number: str) -> str:
    """What was expected before. StaleWrite where another writer let it name something else at this moment."""
    pointer = alias_pointer(place.agent_name, alias)
    revision, known = place.control.pointer(pointer)
    if revision == 0 or known != number:
        place.control.move_pointer(pointer, revision, number)
    return known if revision else ""


def _found(place: Workplace, alias: str) -> str:
    version = place.registry.by_alias(place.agent_name, alias)
    return version.number if version is not None else ""
