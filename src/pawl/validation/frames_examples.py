"""The narrow frame of a dataset's examples: ids and figures, no text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
COLUMNS = (
    "id", "quality", "source", "split", "class", "prompt_chars", "completion_chars", "completion_valid",
    "contaminated", "interactions_known", "repeated", "mixed", "class_share",
)  # fmt: skip


def examples(
    rows: Sequence[Row],
    *,
    conforms: Callable[[str], bool] | None = None,
    contaminated: Collection[str] = frozenset(),
    interactions: Collection[str] | None = None,
) -> pd.DataFrame:
    """One row an example, in their order. `rows` have the fields of `pawl.curation.dataset.Example`.

    `conforms`: whether a completion conforms to the agent's output schema; without it `completion_valid` says whether
    it is JSON. `contaminated`: ids of examples that are also items of an evaluation. `interactions`: ids of all that
    the lake holds (the whole of it: replayed examples are older than the window); None: not looked at.
    `repeated`: an earlier row has its id. `mixed`: its source is on another side of the split too. `class_share`: its
    scenario class's share of all; missing where it has none.
    """
    import pandas as pd

    valid = conforms or is_json
    among, foreign = _set(interactions), _set(contaminated) or frozenset()
    classes = Counter(_class(r) for r in rows)
    sides: dict[Any, set[str]] = defaultdict(set)
    for r in rows:
        sides[r.get("source")].add(str(r.get("split", "train")))
    seen: set[Any] = set()
    made = []
    for r in rows:
        completion = r.get("completion")
        text = completion if isinstance(completion, str) else ""
        made.append(
            (
                r.get("id"),
                r.get("quality"),
                r.get("source"),
                r.get("split", "train"),
                _class(r),
                sum(_chars(m) for m in r.get("messages", ())),
                len(text),
                valid(text),
                r.get("id") in foreign,
                among is None or all(i in among for i in r.get("interactions", ())),
                r.get("id") in seen,
                r.get("source") is not None and len(sides[r.get("source")]) > 1,
                classes[_class(r)] / len(rows) if _class(r) else None,
            )
        )
        seen.add(r.get("id"))
    frame = pd.DataFrame(made, columns=list(COLUMNS))
    return frame.astype({"class": "category", "prompt_chars": "int32", "completion_chars": "int32"}) if made else frame


def is_json(text: str) -> bool:
    """It parses as JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):  # half of a surrogate pair is no text
        return False
    return True


def _set(ids: Collection[str] | None) -> frozenset[str] | set[str] | None:
    return ids if ids is None or isinstance(ids, set | frozenset) else frozenset(ids)


def _class(row: Row) -> str:
    return str(row.get("scenario") or "")


def _chars(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    return len(content) if isinstance(content, str) else len(msgspec.json.encode(content)) if content else 0
