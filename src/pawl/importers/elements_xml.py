"""Elements of an XML file, one after another; a file that declares a DTD is refused before any entity is expanded."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from pawl.errors import SourceError

_CHUNK = 1 << 16
Attributes = dict[str, str]


class _Collected:
    """What the parser tells. Of elements outside the wanted ones, only those that are still open are kept."""

    def __init__(self, tags: frozenset[str]) -> None:
        self._tags = tags
        self._above: list[Attributes] = []
        self._inside: list[ET.Element] = []
        self.ready: list[tuple[ET.Element, tuple[Attributes, ...]]] = []

    def start(self, tag: str, attributes: Attributes) -> None:
        if self._inside or tag in self._tags:
            made = ET.Element(tag, attributes)
            if self._inside:
                self._inside[-1].append(made)
            self._inside.append(made)
        else:
            self._above.append(attributes)

    def end(self, tag: str) -> None:
        if not self._inside:
            self._above.pop()
            return
        made = self._inside.pop()
        if not self._inside:
            self.ready.append((made, tuple(reversed(self._above))))

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise SourceError("it declares a DTD; a report needs none")

    def close(self) -> None:
        pass


def elements(path: Path, *tags: str) -> Iterator[tuple[ET.Element, tuple[Attributes, ...]]]:
    """(element, attributes of those it stands in, inner ones first) of the outermost elements with such a tag.

    Texts are left out. SourceError where the file cannot be read, is no XML or declares a DTD.
    """
    collected = _Collected(frozenset(tags))
    parser = ET.XMLParser(target=collected)  # noqa: S314 - without a DTD there are no entities to expand
    try:
        with path.open("rb") as data:
            while chunk := data.read(_CHUNK):
                parser.feed(chunk)
                yield from collected.ready
                collected.ready.clear()
            parser.close()
            yield from collected.ready
    except (OSError, ET.ParseError, ValueError, LookupError) as e:  # an encoding that Python does not know
        raise SourceError(f"{path} cannot be read as XML: {e}") from e
    except SourceError as e:
        raise SourceError(f"{path}: {e}") from e
