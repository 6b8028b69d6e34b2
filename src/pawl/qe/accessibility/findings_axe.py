"""What axe-core finds on a page: the rules of WCAG 2.0 and 2.1, levels A and AA, that a machine can decide.

WCAG 2.2 adds the size of targets alone, which is a matter of layout that no reader of HTML can tell.

axe-core (Deque Systems, MPL-2.0) is a dependency and no part of Pawl: its one file comes with an installed wheel.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

from pawl.qe.accessibility.browser_chromium import Chromium, PageFailed, ended_with_this_process, required
from pawl.qe.item import CannotGrade

_WHEELS = ("axe_playwright_python", "axe_core_python")  # both carry axe.min.js; the first is the newer one
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
_KEPT = 4096  # pages whose findings are remembered
_LONGEST_SELECTOR = 300
# A page's refresh would lead away from it; everything else that it could do the document's policy forbids.
_LOOK = """
const pawlShow = (html) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const meta of page.querySelectorAll("meta[http-equiv=refresh i]")) meta.remove();
  document.documentElement.replaceWith(page.documentElement);
  const all = [...document.querySelectorAll("*")];
  return (element) => all.indexOf(element);
};
const pawlFind = async (html, tags) => {
  const place = pawlShow(html);
  const options = {runOnly: tags, elementRef: true, iframes: false, resultTypes: ["violations"]};
  const found = await axe.run(document, options);
  return found.violations.flatMap((rule) => rule.nodes.filter((n) => typeof n.target[0] === "string")
    .map((n) => [rule.id, place(n.element), n.target[0]]));
};
const pawlPlaces = (html, selectors) => {
  const place = pawlShow(html);
  return selectors.map((selector) => {
    try {
      const found = document.querySelectorAll(selector);
      return found.length === 1 ? place(found[0]) : -1;
    } catch { return -1; }
  });
};
"""


class Finding(msgspec.Struct, frozen=True, order=True):
    """One violation. `element` is its number among all of the page's elements, in the order of the document."""

    element: int
    rule: str
    target: str = ""  # axe's own selector


_lock = threading.Lock()
_found: OrderedDict[str, tuple[Finding, ...]] = OrderedDict()


def ready() -> None:
    """CannotGrade where the browser or axe-core is missing; its text says what to install."""
    required()
    _axe()


def findings(html: str) -> tuple[Finding, ...]:
    """The violations of a page, in the order of its elements; remembered by the page's hash.

    Raises:
        CannotGrade: no browser, no axe-core, or a page that the two do not get through in time.
    """
    ready()
    key = hashlib.sha256(html.encode(errors="replace")).hexdigest()
    with _lock:
        if key in _found:
            _found.move_to_end(key)
            return _found[key]
    try:
        rows = _browser().call("pawlFind", html, _TAGS)
    except PageFailed as error:
        raise CannotGrade(f"axe-core does not get through this page: {error}") from error
    made = tuple(sorted(Finding(element, rule, target) for rule, element, target in rows))
    with _lock:
        _found[key] = made
        while len(_found) > _KEPT:
            _found.popitem(last=False)
    return made


def elements(html: str, selectors: Sequence[str]) -> list[int]:
    """The element that each CSS selector names; -1 where it is none, several, or no selector.

    Raises:
        CannotGrade: as above.
    """
    own = {f.target: f.element for f in findings(html)}
    left = list(dict.fromkeys(s for s in selectors if s not in own and len(s) <= _LONGEST_SELECTOR))
    if left:
        try:
            own |= dict(zip(left, _browser().call("pawlPlaces", html, left), strict=True))
        except PageFailed as error:
            raise CannotGrade(f"the browser does not get through this page: {error}") from error
    return [own.get(s, -1) for s in selectors]


@lru_cache(maxsize=1)
def _browser() -> Chromium:
    return ended_with_this_process(Chromium(_axe().read_text(encoding="utf-8") + _LOOK))


def _axe() -> Path:
    for wheel in _WHEELS:
        spec = find_spec(wheel)  # the package itself is not imported: it would want its own browser
        for folder in spec.submodule_search_locations or () if spec else ():
            if (path := Path(folder) / "axe.min.js").is_file():
                return path
    raise CannotGrade(
        "axe-core is not installed: pages are graded by it. Install the wheel that carries it, without what it would "
        "draw in: `pip install --no-deps axe-playwright-python`"
    )
