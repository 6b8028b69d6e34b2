"""The classifier behind the model name `auto`: hashed words and word pairs, one logistic regression an agent.

One against the rest, so that the figures need not add up to one: a text that resembles no agent's prompts is unlikely
to be for any of them. Kept as plain arrays (`.npz` without pickles); features are hashed, so there is no vocabulary
that could repeat what somebody asked.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pawl.errors import ConfigError, NotEnoughData
from pawl.gateway.auto import Picked

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import HashingVectorizer

FEATURES = 2**16
FORMAT = 1
LEAST = 10  # prompts of an agent that can be learnt


class Weights(NamedTuple):
    """A trained classifier: names[i] has the logistic coefficients coef[i] (float32, FEATURES) and intercept[i]."""

    names: tuple[str, ...]
    coef: Any
    intercept: Any


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How the classifier did on prompts that it had not learnt from, of sources that it had not seen."""

    texts: int
    right: float  # share that the right agent was picked for, sure enough
    unsure: float  # share that no agent was picked for
    wrong: float
    by_agent: dict[str, float]  # share right of each agent's


def train(texts: Mapping[str, Sequence[str]]) -> Weights:
    """Learn which agent a text is for, from prompts by agent.

    Raises:
        NotEnoughData: fewer than two agents, or an agent with fewer than `LEAST` prompts.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    few = [name for name, some in texts.items() if len(some) < LEAST]
    if len(texts) < 2 or few:
        why = f"{', '.join(few)} has fewer than {LEAST} prompts" if few else "there is one agent only"
        raise NotEnoughData(f"nothing to choose between: {why}")
    names = tuple(sorted(texts))
    rows = [(text, n) for n, name in enumerate(names) for text in texts[name]]
    x = _vectorizer().transform([text for text, _ in rows])
    labels = np.array([n for _, n in rows])
    coef = np.zeros((len(names), FEATURES), dtype=np.float32)
    intercept = np.zeros(len(names), dtype=np.float32)
    for n in range(len(names)):
        # Balanced: the rest is many agents. A high C, since hashed rows of unit length are separable by many words.
        model = LogisticRegression(C=30.0, class_weight="balanced", max_iter=200).fit(x, labels == n)
        coef[n], intercept[n] = model.coef_[0], model.intercept_[0]
    return Weights(names, coef, intercept)


def pick(weights: Weights, text: str) -> Picked:
    """The likeliest agent of a text and its probability against all others."""
    import numpy as np

    x = _vectorizer().transform([text])
    scores = x @ weights.coef.T + weights.intercept
    best = int(np.argmax(scores[0]))
    return Picked(weights.names[best], float(1 / (1 + np.exp(-scores[0][best]))))


def assess(weights: Weights, texts: Mapping[str, Sequence[str]], min_confidence: float) -> Quality:
    """The classifier on prompts by agent; those under the key "" are for none of them."""
    right: dict[str, int] = {}
    wrong = unsure = 0
    for name, some in texts.items():
        for text in some:
            found = pick(weights, text)
            sure = found.confidence >= min_confidence
            unsure += not sure
            if (sure and found.agent == name) or (not sure and not name):
                right[name] = right.get(name, 0) + 1
            elif sure:
                wrong += 1
    total = sum(map(len, texts.values()))
    shares = {name: right.get(name, 0) / len(some) for name, some in texts.items() if some}
    n = max(1, total)
    return Quality(texts=total, right=sum(right.values()) / n, unsure=unsure / n, wrong=wrong / n, by_agent=shares)


def save(weights: Weights, path: Path) -> None:
    """Write atomically."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(
            file, format=FORMAT, names=np.array(weights.names), coef=weights.coef, intercept=weights.intercept
        )
    part.replace(path)


def load(path: Path) -> Weights:
    """Read it back. ConfigError where there is none, or where it is something else."""
    import numpy as np

    if not path.exists():
        raise ConfigError(str(path), ["the classifier of `auto` is not trained yet: run `pawl auto train`"])
    try:
        with np.load(path, allow_pickle=False) as found:
            weights = Weights(tuple(map(str, found["names"])), found["coef"], found["intercept"])
            known = int(found["format"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise ConfigError(str(path), [f"no classifier of `auto` ({e}): run `pawl auto train`"]) from e
    if known != FORMAT or weights.coef.shape != (len(weights.names), FEATURES):
        raise ConfigError(str(path), ["a classifier of `auto` in another format: run `pawl auto train`"])
    return weights


class FilePicker:
    """Picks by the classifier in a file, and takes a newer one when it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._loaded: tuple[float, Weights] | None = None

    def pick(self, text: str) -> Picked:
        """The likeliest agent. ConfigError where no classifier was trained."""
        return pick(self._weights(), text)

    def _weights(self) -> Weights:
        with self._lock:
            try:
                changed = self._path.stat().st_mtime
            except OSError:
                changed = -1.0
            if self._loaded is None or self._loaded[0] != changed:
                self._loaded = (changed, load(self._path))
            return self._loaded[1]


def _vectorizer() -> HashingVectorizer:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2), alternate_sign=False, norm="l2",
                             token_pattern=r"[A-Za-z]{2,}|[{}<>@=:]")  # noqa: S106  # fmt: skip
