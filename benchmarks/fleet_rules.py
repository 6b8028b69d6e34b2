"""What one gets for nothing: constant answers, simple rules, and words alone. Each answers items as a model would."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from pawl.qe.code_review.prompt import module_of
from pawl.qe.flaky_detection.history import history_verdict
from pawl.qe.flaky_detection.prompt import parsed as parsed_test
from pawl.qe.item import Item
from pawl.qe.judged_task import compact
from pawl.qe.performance_analyzer.prompt import parsed as parsed_series
from pawl.qe.security_review.prompt import parsed as parsed_code
from pawl.qe.security_review.weaknesses import WEAKNESSES
from pawl.qe.task import user_text

Answers = Callable[[Sequence[Item]], list[str]]
_FOLDS = 5
_SEED = 7


def flaky_majority(items: Sequence[Item]) -> list[str]:
    """The commoner verdict, as sure as it is common."""
    (verdict, n), *_ = Counter(i.truth["verdict"] for i in items).most_common(1)
    return [_test(verdict, "none" if verdict == "stable" else "unknown", n / len(items))] * len(items)


def flaky_history(items: Sequence[Item]) -> list[str]:
    """Flaky where the reruns differ."""
    made = []
    for item in items:
        asked = parsed_test(item.messages)
        assert asked is not None
        verdict, sure = history_verdict(asked.reruns)
        made.append(_test(verdict, "none" if verdict == "stable" else "unknown", sure))
    return made


def flaky_code(items: Sequence[Item]) -> list[str]:
    """The words of the code alone, in projects that were not learnt from."""
    codes = [a.code for i in items if (a := parsed_test(i.messages))]
    labels = [i.truth["cause"] or "unknown" if i.truth["verdict"] == "flaky" else "stable" for i in items]
    made = []
    for label, sure in by_words(codes, labels, [i.source for i in items]):
        stable = label == "stable"
        made.append(_test("stable" if stable else "flaky", "none" if stable else label, sure))
    return made


def secure_always(items: Sequence[Item]) -> list[str]:
    """Nothing is ever wrong."""
    return [_review(None)] * len(items)


def vulnerable_always(items: Sequence[Item]) -> list[str]:
    """The commonest weakness, everywhere."""
    (cwe, _), *_ = Counter(i.truth["cwe"] for i in items if i.truth["cwe"]).most_common(1)
    return [_review(cwe)] * len(items)


def secure_by_words(items: Sequence[Item]) -> list[str]:
    """The words of the code alone, in projects that were not learnt from."""
    codes = [a.code for i in items if (a := parsed_code(i.messages))]
    found = by_words(codes, [i.truth["cwe"] or "" for i in items], [i.source for i in items])
    return [_review(label or None) for label, _ in found]


def ok_always(items: Sequence[Item]) -> list[str]:
    """All is well."""
    return [_series("ok", [])] * len(items)


def outliers(items: Sequence[Item]) -> list[str]:
    """Stretches of at least three points in which a metric is far from its median, in units of its usual deviation."""
    made = []
    for item in items:
        asked = parsed_series(item.messages)
        assert asked is not None
        best: tuple[float, str, int, int] | None = None
        for metric in asked.metrics:
            values = asked.column(metric)
            middle = statistics.median(values)
            usual = max(statistics.median(abs(v - middle) for v in values) * 1.4826, 0.02 * abs(middle), 1.0)
            far = [abs(v - middle) / usual for v in values]
            for first, last in _stretches([f > 4 for f in far]):
                weight = sum(far[first : last + 1])
                if last - first >= 2 and (best is None or weight > best[0]):
                    best = (weight, metric, first, last)
        made.append(_series("degraded", [best[1:]]) if best else _series("ok", []))
    return made


def clean_always(items: Sequence[Item]) -> list[str]:
    """No findings, ever."""
    return [compact({"findings": []})] * len(items)


def first_change(items: Sequence[Item]) -> list[str]:
    """The first changed line, with the commonest kind."""
    (kind, _), *_ = Counter(f["kind"] or "other" for i in items for f in i.truth["findings"]).most_common(1)
    made = []
    for item in items:
        assert module_of(item.messages) is not None
        line = re.search(r"^(\d+) [+-]", user_text(item.messages), re.MULTILINE)
        found = [{"line": int(line[1]), "kind": kind, "why": "it changed"}] if line else []
        made.append(compact({"findings": found}))
    return made


RULES: dict[str, dict[str, Answers]] = {
    "flaky-detection": {"majority": flaky_majority, "words of the code": flaky_code, "history": flaky_history},
    "security-review": {
        "secure": secure_always,
        "commonest CWE": vulnerable_always,
        "words of the code": secure_by_words,
    },
    "security-auth": {
        "secure": secure_always,
        "commonest CWE": vulnerable_always,
        "words of the code": secure_by_words,
    },
    "performance-analyzer": {"ok": ok_always, "outliers": outliers},
    "code-review": {"clean": clean_always, "first change": first_change},
}


def by_words(texts: Sequence[str], labels: Sequence[str], sources: Sequence[str]) -> list[tuple[str, float]]:
    """Label and probability of each text, from logistic regression over one to two words.

    Five folds by source: a text's own source is never among those it was learnt from.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    found: list[tuple[str, float]] = [("", 0.0)] * len(texts)
    for train, test in GroupKFold(_FOLDS).split(texts, groups=sources):
        model = make_pipeline(
            TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            LogisticRegression(C=10, max_iter=1000, random_state=_SEED),
        )
        model.fit([texts[n] for n in train], [labels[n] for n in train])
        shares = model.predict_proba([texts[n] for n in test])
        for n, share in zip(test, shares, strict=True):
            found[n] = (str(model.classes_[share.argmax()]), float(share.max()))
    return found


def _stretches(flags: Sequence[bool]) -> list[tuple[int, int]]:
    edges = [n for n in range(len(flags) + 1) if (n < len(flags) and flags[n]) != (n > 0 and flags[n - 1])]
    return [(a, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _test(verdict: str, cause: str, confidence: float) -> str:
    return compact({"verdict": verdict, "cause": cause, "confidence": round(confidence, 3)})


def _review(cwe: str | None) -> str:
    if cwe is None:
        return compact({"vulnerable": False, "cwe": None, "severity": "none", "fix": ""})
    listed = WEAKNESSES[cwe]
    return compact({"vulnerable": True, "cwe": cwe, "severity": listed.severity, "fix": listed.fix})


def _series(status: str, found: Sequence[tuple[str, int, int]]) -> str:
    issues = [{"metric": m, "from": a, "to": b, "kind": "anomaly"} for m, a, b in found]
    return compact({"status": status, "issues": issues, "recommendations": []})
