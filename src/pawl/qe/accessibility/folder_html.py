"""Pages of the user's own: a folder of .html files."""

from __future__ import annotations

import re
from pathlib import Path

from pawl.errors import SourceError
from pawl.qe.accessibility.oracle import LONGEST_PAGE, Page

_SPACE = re.compile(r"\s+")


def pages(location: str) -> list[Page]:
    """The pages below a folder, sorted by id: `folder/file`; of files that lie in the folder itself `file/file`.

    So a site is what lies in one folder, and is never on both sides of a split. Longer pages than a prompt may have
    are left out.

    Raises:
        SourceError: no such folder, a file that is no UTF-8 text, or no page that can be used.
    """
    root = Path(location)
    if not root.is_dir():
        raise SourceError(f"{location} is not a folder: source kind html takes a folder with .html files")
    found: dict[str, Page] = {}
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in (".html", ".htm") and p.is_file()):
        try:
            html = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8") from error
        where = path.relative_to(root).with_suffix("").as_posix()
        name = _SPACE.sub("-", where if "/" in where else f"{where}/{where}")
        if "<" in html and len(html) <= LONGEST_PAGE:
            found.setdefault(name, Page(name, html.strip()))
    if not found:
        raise SourceError(f"{location} holds no .html file of at most {LONGEST_PAGE} characters")
    return sorted(found.values(), key=lambda p: p.id)
