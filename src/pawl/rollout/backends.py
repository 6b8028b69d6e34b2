"""Behind which of an engine's two backends each model stands.

The two take turns, as in a blue-green deployment: when a rollout is done, its challenger is the champion and stays
where it is, with all of the traffic; the next challenger takes the other backend. Going by the backends' names alone
would send everybody back to the former champion at the moment of success.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pawl.errors import ConfigError, ControlUnavailable, NotAllowed, PawlError, StaleWrite
from pawl.rollout.control import ControlStore
from pawl.rollout.route import Route
from pawl.rollout.traffic import Shares

PLACES = "traffic-backends/"  # pointers of that name, by agent, say who stands where
_TRIES = 5


class Backends(msgspec.Struct, frozen=True):
    """Names of arms; empty where nothing is known to stand there."""

    champion: str = ""  # behind the backend that fleet.yaml calls so: the champion's when the engine was set up
    challenger: str = ""


class Demand(NamedTuple):
    """What a route asks of an engine."""

    wanted: Shares
    now: Shares  # what may be in force
    unkept: PawlError | None = None  # why who stands where could not be put down, so that it may not be `wanted`


def placed(route: Route, known: Backends) -> tuple[Backends, Shares]:
    """Who stands where under this route, and the backends' shares of the requests (pure).

    ConfigError where the champion stands behind neither, which `pawl restore` to an older version can bring about.
    """
    champion, challenger = route.champion.name, route.challenger.name if route.challenger is not None else ""
    if not known.challenger:  # only one was ever in use: whoever answers does so there
        known = Backends(champion=champion)
    elif not known.champion:
        known = Backends(challenger=champion)
    if champion not in (known.champion, known.challenger):
        why = (
            f"{champion} answers now, but behind the backends stand {known.champion or 'nothing'} and "
            f"{known.challenger or 'nothing'}: serve it behind one of them, then say so by `pawl traffic place`"
        )
        raise ConfigError(f"the traffic of {route.agent}", [why])
    percent = route.percent if challenger else 0
    if known.champion == champion:
        return Backends(champion, challenger or known.challenger), Shares(100 - percent, percent)
    return Backends(challenger or known.champion, champion), Shares(percent, 100 - percent)


def read(control: ControlStore, agent: str) -> Backends:
    """As far as it is known."""
    return _decoded(control.pointer(_name(agent))[1])


def follow(control: ControlStore, route: Route) -> Demand:
    """The shares that a route demands; a new challenger's place is kept before it gets any. ConfigError as `placed`.

    Where its place cannot be kept the champion has all of the traffic: a challenger whose place nobody knows would send
    everybody to the other model on the day that it wins. The way back needs no new place, so it waits for nothing.
    """
    for _ in range(_TRIES):
        revision, text = control.pointer(_name(route.agent))
        known = _decoded(text)
        now, wanted = placed(route, known)
        if now == known:
            return Demand(wanted, wanted)
        try:
            control.move_pointer(_name(route.agent), revision, _encoded(now))
            return Demand(wanted, wanted)
        except StaleWrite:
            continue
        except (NotAllowed, ControlUnavailable) as e:
            alone = msgspec.structs.replace(route, challenger=None, percent=0)
            return Demand(wanted, placed(alone, known)[1], e)
    raise StaleWrite(f"who stands behind the backends of {route.agent} is written by others all the time")


def say(control: ControlStore, agent: str, now: Backends) -> Backends:
    """Put down what a person says; returns what was known before. StaleWrite where it changed meanwhile."""
    revision, text = control.pointer(_name(agent))
    control.move_pointer(_name(agent), revision, _encoded(now))
    return _decoded(text)


def _name(agent: str) -> str:
    return f"{PLACES}{agent}"


def _decoded(text: str) -> Backends:
    return msgspec.json.decode(text, type=Backends) if text else Backends()


def _encoded(known: Backends) -> str:
    return msgspec.json.encode(known).decode()
