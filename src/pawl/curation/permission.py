"""What an agent may learn from: by the consent to each interaction and by its privacy class (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from pawl.fleet.data import DataSpec
from pawl.fleet.limits import Privacy

MODES: tuple[Privacy, ...] = get_args(Privacy)  # from wide to narrow


def narrowest(modes: Iterable[str]) -> Privacy:
    """The narrowest of them; one that is not known is as narrow as can be."""
    return MODES[max((MODES.index(m) if m in MODES else len(MODES) - 1 for m in modes), default=0)]


def refusal(spec: DataSpec, privacy: str, consent: str) -> str:
    """Why the spec does not let an agent learn from such an interaction; empty where it may."""
    if consent == "denied":
        return "learning from it was denied"
    if spec.consent == "required" and consent != "granted":
        return "nobody granted learning from it, and data.consent is required"
    if privacy not in spec.privacy:
        return f"its privacy is {privacy}, data.privacy allows {', '.join(spec.privacy)}"
    return ""


def sql(spec: DataSpec) -> dict[str, str]:
    """The same as `refusal` over rows `i` of the lake's interactions: reason -> condition; the first that holds counts.

    Rows of files from before consent was recorded have none: nobody said anything then.
    """
    said = "coalesce(i.consent, '')"
    allowed = ", ".join(f"'{mode}'" for mode in spec.privacy)
    found = {"denied by the client or its key": f"{said} = 'denied'"}
    if spec.consent == "required":
        found["not granted"] = f"{said} <> 'granted'"
    if set(spec.privacy) != set(MODES):
        found[f"of another privacy than {', '.join(spec.privacy)}"] = f"coalesce(i.privacy, 'open') NOT IN ({allowed})"
    return found
