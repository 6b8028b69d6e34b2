"""The key that a command acts with."""

from __future__ import annotations

from pawl import bootstrap
from pawl.errors import NotAllowed
from pawl.rollout.control import Key
from pawl.settings import Settings


def acting_key(*roles: str) -> Key:
    """The key in PAWL_API_KEY. NotAllowed where it has none of these roles."""
    settings = Settings()
    if not settings.api_key:
        wanted = " or ".join(roles)
        raise NotAllowed(f"set PAWL_API_KEY to a key with role {wanted}; `pawl keys create {roles[0]} NAME` makes one")
    key = bootstrap.control(settings).find_key(settings.api_key)
    if key is None:
        raise NotAllowed("PAWL_API_KEY holds no key of this control database; see `pawl keys list`")
    if key.role not in roles:
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; this needs {' or '.join(roles)}")
    return key
