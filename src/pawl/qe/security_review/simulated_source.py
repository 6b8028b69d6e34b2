"""Simulated code and endpoints with a weakness that is known because it was put in, and their mended twins.

Nobody runs this code. Its weaknesses are plain to see for somebody who knows them: it teaches what they look like and
measures whether that was learnt, not whether a review finds what people overlooked.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from functools import lru_cache

from pawl.qe.item import Item
from pawl.qe.security_review import oracle, prompt
from pawl.qe.security_review import simulated_bodies as bodies
from pawl.qe.security_review import simulated_endpoints as endpoints
from pawl.qe.simulated_projects import Project, of_all, project_of

_BODIES: dict[str, bodies.Builder] = {
    "CWE-022": bodies.reads_file,
    "CWE-078": bodies.runs_command,
    "CWE-079": bodies.shows_page,
    "CWE-089": bodies.queries,
    "CWE-347": bodies.trusts_token,
    "CWE-798": bodies.keeps_secret,
}
_IN_DOCUMENTS = ("CWE-306", "CWE-319", "CWE-598")
_FUNCTIONS = 4  # of the bodies stand in a plain function too, in each project


def items() -> tuple[Item, ...]:
    """All simulated items of every form, sorted by id; always the same."""
    return of_all(of_project)


@lru_cache(maxsize=128)
def of_project(source: str) -> tuple[Item, ...]:
    """Those of one project; none where no simulated project is called so."""
    project = project_of(source)
    return tuple({i.id: i for i in _of(project)}.values()) if project else ()


def _of(p: Project) -> Iterator[Item]:
    for cwe in ("CWE-306", "CWE-639", *_BODIES):
        yield from _pair(p, "endpoint", cwe, _endpoint(p, cwe))
    for cwe in _IN_DOCUMENTS:
        yield from _pair(p, "openapi", cwe, lambda rng, faulty, cwe=cwe: endpoints.fragment(p, rng, cwe, faulty))  # type: ignore[misc]
    for cwe in _rng(p, "functions").sample(sorted(_BODIES), _FUNCTIONS):
        yield from _pair(p, "function", cwe, _function(p, cwe))
    rng = _rng(p, "open")
    yield _item(p, "endpoint", "open", None, endpoints.handler(p, rng, endpoints.open_to_all(p, rng), signed_in=False))


Write = Callable[[random.Random, bool], str]


def _endpoint(p: Project, cwe: str) -> Write:
    def write(rng: random.Random, faulty: bool) -> str:
        if cwe == "CWE-306":
            return endpoints.handler(p, rng, endpoints.changes_record(p, rng), not faulty, by_number=True)
        if cwe == "CWE-639":
            return endpoints.handler(p, rng, endpoints.reads_record(p, rng, faulty), True, by_number=True)
        # A signed call proves by its token who calls.
        signed_in = cwe != "CWE-347"
        return endpoints.handler(p, _rng(p, f"{cwe} handler"), _BODIES[cwe](p, rng, faulty), signed_in)

    return write


def _function(p: Project, cwe: str) -> Write:
    return lambda rng, faulty: endpoints.function(p, _rng(p, f"{cwe} function"), _BODIES[cwe](p, rng, faulty))


def _pair(p: Project, form: prompt.Form, cwe: str, write: Write) -> Iterator[Item]:
    for which, faulty in (("vulnerable", True), ("fixed", False)):
        code = write(_rng(p, f"{form} {cwe}"), faulty)
        yield _item(p, form, f"{form}-{cwe}/{which}", cwe if faulty else None, code)


def _item(p: Project, form: prompt.Form, name: str, cwe: str | None, code: str) -> Item:
    return Item(
        id=f"{p.source}/{name}",
        source=p.source,
        messages=prompt.messages(p.source, form, code),
        truth=oracle.truth(cwe),
        scenario=cwe or oracle.SECURE,
    )


def _rng(p: Project, purpose: str) -> random.Random:
    return random.Random(hashlib.sha256(f"{p.source} {purpose}".encode()).digest())
