"""The tasks `security-review` and `security-auth`: classes, false alarms, twins, and where they come from."""

from __future__ import annotations

import ast
import json
import os
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.security_review import oracle, prompt, simulated_source
from pawl.qe.security_review.task import SecurityAuth, SecurityReview
from pawl.qe.security_review.weaknesses import SEVERITIES, WEAKNESSES, cwe

task = SecurityReview()
ASKED = prompt.messages("my shop", "function", "def f(x):\n    return x")


def answer(
    vulnerable: bool = True, number: str | None = "CWE-089", severity: str = "critical", fix: str = "bind"
) -> str:
    return json.dumps({"vulnerable": vulnerable, "cwe": number, "severity": severity, "fix": fix})


SECURE = answer(False, None, "none", "")


@pytest.mark.parametrize(
    ("known", "said", "score", "failure", "metrics"),
    [
        ("CWE-089", answer(), 1.0, "", {"detected": 1, "class_match": 1, "severity": 1}),
        ("CWE-089", answer(number="CWE-89"), 1.0, "", {"detected": 1, "class_match": 1, "severity": 1}),
        ("CWE-089", answer(severity="low"), 0.8, "wrong_severity", {"detected": 1, "class_match": 1, "severity": 0}),
        ("CWE-089", answer(number="CWE-079"), 0.3, "wrong_class", {"detected": 1, "class_match": 0, "severity": 1}),
        ("CWE-089", answer(number=None), 0.3, "wrong_class", {"detected": 1, "class_match": 0, "severity": 1}),
        ("CWE-089", SECURE, 0.0, "missed", {"detected": 0, "class_match": 0, "severity": 0}),
        ("CWE-999", answer(number="CWE-999", severity="low"), 1.0, "", {"detected": 1, "class_match": 1}),
        (None, SECURE, 1.0, "", {"false_alarm_free": 1}),
        (None, answer(False), 0.7, "secure_with_class", {"false_alarm_free": 1}),
        (None, answer(), 0.0, "false_alarm", {"false_alarm_free": 0}),
        (None, "{", 0.0, "not_json", {"false_alarm_free": 0}),
        ("CWE-089", "{}", 0.0, "wrong_form", {"detected": 0, "class_match": 0, "severity": 0}),
    ],
)
def test_a_review_is_held_against_the_fix(
    known: str | None, said: str, score: float, failure: str, metrics: dict[str, float]
) -> None:
    grade = task.grade(ASKED, said, oracle.truth(known))
    assert grade is not None
    assert grade.score == pytest.approx(score) and grade.problem.partition(":")[0] == failure
    assert grade.metrics == metrics and grade.label == (known or "secure")


def test_classes_that_are_named() -> None:
    assert task.scenario_of(ASKED, answer(number="CWE-89")) == "CWE-089"
    assert task.scenario_of(ASKED, answer(number=None)) == "vulnerable"
    assert task.scenario_of(ASKED, SECURE) == "secure" and task.scenario_of(ASKED, "x") == ""
    assert task.grade(ASKED, SECURE) is None and task.cluster_key(ASKED, SECURE) == ""


@pytest.mark.parametrize(("text", "number"), [("cwe-89", "CWE-089"), ("CWE_0306", "CWE-306"), ("89", None), ("", None)])
def test_numbers_are_written_one_way(text: str, number: str | None) -> None:
    assert cwe(text) == number


def test_the_table_is_in_its_own_terms() -> None:
    assert all(cwe(k) == k and w.severity in SEVERITIES[1:] and 0 < len(w.fix) <= 80 for k, w in WEAKNESSES.items())


def pairs() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for i in simulated_source.items():
        name, _, which = i.id.rpartition("/")
        asked = prompt.parsed(i.messages)
        assert asked is not None and i.source.startswith("simulated-")
        found.setdefault(name, {})[which] = asked.code
    return {k: v for k, v in found.items() if "vulnerable" in v}


def test_simulated_twins_differ_in_little_but_differ() -> None:
    for name, pair in pairs().items():
        assert set(pair) == {"vulnerable", "fixed"}
        assert pair["vulnerable"] != pair["fixed"], name
        assert SequenceMatcher(None, pair["vulnerable"], pair["fixed"], autojunk=False).ratio() > 0.6, name


def test_simulated_code_parses_and_every_weakness_is_there() -> None:
    forms = set()
    for i in simulated_source.items():
        asked = prompt.parsed(i.messages)
        assert asked is not None
        forms.add(asked.form)
        if asked.form == "openapi":
            assert json.loads(asked.code)["paths"], i.id
        else:
            ast.parse(asked.code)
    assert forms == set(prompt.FORMS)
    assert {i.scenario for i in simulated_source.items()} == {"secure", *WEAKNESSES}
    secure = sum(i.scenario == "secure" for i in simulated_source.items())
    assert 0.45 < secure / len(simulated_source.items()) < 0.6


def test_security_auth_is_of_endpoints_alone() -> None:
    forms = {a.form for i in SecurityAuth().items(TaskSourceSpec()) if (a := prompt.parsed(i.messages))}
    assert forms == {"endpoint", "openapi"}


def test_simulated_code_is_known_again() -> None:
    item = next(i for i in simulated_source.items() if i.truth["cwe"] is None)
    assert task.cluster_key(item.messages, answer()) == "false_alarm"
    grade = task.grade(item.messages, SECURE)
    assert grade is not None and grade.score == 1.0


def rows(path: Path, *found: dict[str, Any]) -> TaskSourceSpec:
    path.write_text("\n".join(json.dumps(r) for r in found))
    return TaskSourceSpec(kind="jsonl", location=str(path))


ROW = {"cwe": "cwe-089", "func_name": "f", "commit": "host/owner/repo/commit/1", "vulnerable": "a(b)", "fixed": "a(c)"}


def test_a_row_gives_two_items_of_one_source(tmp_path: Path) -> None:
    endpoint = ROW | {"form": "endpoint", "project": "own project", "cwe": "CWE-862", "severity": "low"}
    unseen = ROW | {"vulnerable": "x = 1\n" * 2000, "fixed": "x = 1\n" * 2001}
    source = rows(tmp_path / "s.jsonl", ROW, endpoint, unseen)
    *others, fixed, vulnerable = task.items(source)
    assert {fixed.source, vulnerable.source} == {"owner/repo"} and {i.source for i in others} == {"own-project"}
    assert (fixed.scenario, vulnerable.scenario) == ("secure", "CWE-089") and len(others) == 2
    assert {i.source for i in SecurityAuth().items(source)} == {"own-project"}
    assert {i.truth["severity"] for i in others} == {"low", "none"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW | {"cwe": "sql"}, "line 1: field `cwe`"),
        (ROW | {"commit": "abc"}, "line 1: it must name its `project`"),
        (ROW | {"form": "poem"}, "line 1: field `form`"),
        (ROW | {"severity": "awful"}, "line 1: field `severity`"),
        (ROW | {"fixed": ""}, "line 1: field `fixed`"),
        (ROW | {"fixed": "a(b)"}, "none of 1 rows"),
    ],
)
def test_rows_that_lack_something_are_told(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        task.items(rows(tmp_path / "s.jsonl", row))


def test_real_pairs_keep_their_difference_and_stay_together() -> None:
    folder = os.environ.get("PAWL_DATA_DIR")
    if not folder or not (Path(folder) / "security_sven.jsonl.gz").exists():
        pytest.skip("PAWL_DATA_DIR names no folder with security_sven.jsonl.gz")
    items = task.items(TaskSourceSpec(kind="jsonl", location=str(Path(folder) / "security_sven.jsonl.gz")))
    by_name: dict[str, list[Any]] = {}
    for i in items:
        by_name.setdefault(i.id.rpartition("/")[0], []).append(i)
    assert len(items) > 500 and all(len({i.source for i in p}) == 1 and len(p) == 2 for p in by_name.values())
    assert all(a.messages != b.messages for a, b in by_name.values())
    assert max(len(i.messages[1]["content"]) for i in items) < 1800
