"""The language of a text's prose, by py3langid's naive Bayes over byte n-grams (Lui and Baldwin, ACL 2012)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

MOST_CHARS = 2_000  # of a text; more changes nothing
FEWEST_WORDS = 8  # below them a guess is one
SURE = 0.6  # probability below which nothing is said
_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_TAG_OR_LINK = re.compile(r"<[^<>]{1,200}>|\b\w+://\S+")
# Names of code are no words of a language: paths, calls, snake_case, camelCase, dotted and hyphenated names, digits.
_CODE = re.compile(r"\S*(?:[\\/_=$@#&|*]|\w[.:(]\w|[a-z][A-Z]|\d)\S*")
_QUOTED = re.compile(r'"[^"\n]*"\s*:')  # a key of JSON that was cut off
_WORD = re.compile(r"[^\W\d_]+")
# Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer): two letters count as a word.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def prose(text: str) -> str:
    """What is left of a text without JSON, code, tags, links and names of code; at most MOST_CHARS characters."""
    text = _without_json(_FENCED.sub(" ", text[: 8 * MOST_CHARS]))
    for pattern in (_TAG_OR_LINK, _QUOTED, _CODE):
        text = pattern.sub(" ", text)
    return " ".join(text.split())[:MOST_CHARS]


def _without_json(text: str) -> str:
    """Everything outside of braces and brackets. What is opened and never closed goes to the end."""
    kept, depth, start = [], 0, 0
    for m in re.finditer(r"[{}\[\]]", text):
        if m.group() in "{[":
            if depth == 0:
                kept.append(text[start : m.start()])
            depth += 1
        elif depth:
            depth -= 1
            start = m.end()
    if depth == 0:
        kept.append(text[start:])
    return " ".join(kept)


def is_enough(text: str) -> bool:
    """It has words enough to tell its language."""
    return len(_WORD.findall(_UNSPACED.sub(" ", text))) + len(_UNSPACED.findall(text)) // 2 >= FEWEST_WORDS


def languages(texts: Sequence[str], budget_s: float = 5.0) -> list[str | None]:
    """ISO 639-1 of each text; None where it has too little prose, where it is unclear, and once the time is used up."""
    end = time.perf_counter() + budget_s
    found: list[str | None] = []
    for text in texts:
        plain = prose(text) if time.perf_counter() < end else ""
        found.append(_classify(plain) if is_enough(plain) else None)
    return found


def _classify(text: str) -> str | None:
    language, probability = _identifier().classify(text)
    return str(language) if probability >= SURE else None


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped, unused-ignore]

    made = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Its labels without an ISO 639-1 code are mostly near kin of one that has it (Wu of Chinese, Pidgin of English).
    made.set_languages([label for label in made.labels if len(label) == 2])
    return made
