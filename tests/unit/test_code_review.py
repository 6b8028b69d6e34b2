"""The task `code-review`: faults, harmless changes, diffs, findings, and where changes come from."""

from __future__ import annotations

import ast
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.code_review import prompt, python_source
from pawl.qe.code_review.edits import Code, Edit, apart, applied, line_of
from pawl.qe.code_review.faults import WHY, faults
from pawl.qe.code_review.refactorings import KINDS as HARMLESS
from pawl.qe.code_review.refactorings import refactorings
from pawl.qe.code_review.task import CodeReview

task = CodeReview()
SOME = (
    "textwrap",
    "queue",
    "asyncio.queues",
    "heapq",
    "shlex",
    "csv",
    "http.cookies",
    "sched",
    "gzip",
    "bisect",
    "tarfile",
)

FUNCTION = """\
async def fetch(store, key, seen=None, tags=()):
    if seen is None:
        seen = []
    if key in seen:
        raise KeyError(key)
    for n in range(3):
        row = await store.get(key, n)
        if row is None:
            continue
        if n < 2 and row.size > 1:
            return pack(row.name, key, wide=True, deep=False)
    return rows[n - 1]
"""


def planted(kind: str) -> list[str]:
    code = Code(FUNCTION)
    return [applied(FUNCTION, c.edits) for c in faults(code) if c.kind == kind]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("wrong_operator", "    if key not in seen:"),
        ("wrong_operator", "        if n < 2 or row.size > 1:"),
        ("wrong_operator", "    return rows[n + 1]"),
        ("off_by_one", "        if n <= 2 and row.size > 1:"),
        ("off_by_one", "    return rows[n]"),
        ("off_by_one", "    for n in range(3 - 1):"),
        ("swapped_arguments", "            return pack(key, row.name, wide=True, deep=False)"),
        ("dropped_await", "        row = store.get(key, n)"),
        ("dropped_return", "            pack(row.name, key, wide=True, deep=False)"),
        ("wrong_exception", "        raise IndexError(key)"),
        ("mutable_default", "async def fetch(store, key, seen=[], tags=()):"),
        ("mutable_default", "async def fetch(store, key, seen=None, tags=[]):"),
    ],
)
def test_faults_are_planted_where_they_belong(kind: str, made: str) -> None:
    found = planted(kind)
    assert any(made in text.split("\n") for text in found), found
    assert all(ast.dump(ast.parse(text)) != ast.dump(ast.parse(FUNCTION)) for text in found)


def test_guards_go_with_all_of_their_lines() -> None:
    guard, _ = planted("removed_guard")
    assert "raise KeyError" not in guard and "if key in seen" not in guard and "if seen is None" in guard
    checks = planted("none_check")
    assert len(checks) == 2 and any("continue" not in text for text in checks)


def same_meaning(text: str) -> str:
    """The tree without what refactorings may change."""

    class Plain(ast.NodeTransformer):
        names: dict[str, str] = {}

        def visit_Name(self, node: ast.Name) -> ast.AST:
            known = {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
            if node.id in stored - known:
                node.id = self.names.setdefault(node.id, f"v{len(self.names)}")
            return node

        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            node.keywords.sort(key=lambda k: k.arg or "")
            return node

        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            flip = {ast.Gt: ast.Lt, ast.GtE: ast.LtE}
            simple = len(node.ops) == 1
            if simple and type(node.ops[0]) in flip:
                node.left, node.comparators = node.comparators[0], [node.left]
                node.ops = [flip[type(node.ops[0])]()]  # type: ignore[index]
            elif simple and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                node.left, node.comparators[0] = sorted((node.left, node.comparators[0]), key=ast.dump)
            return node

    tree = ast.parse(text)
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and len(block) >= 2:
                last, before = block[-1], block[-2]
                if (
                    isinstance(last, ast.Return)
                    and isinstance(last.value, ast.Name)
                    and isinstance(before, ast.Assign)
                    and isinstance(before.targets[0], ast.Name)
                    and before.targets[0].id == last.value.id
                    and len(before.targets) == 1
                ):
                    block[-2:] = [ast.Return(before.value)]
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    plain = Plain()
    plain.names = {}
    return ast.dump(plain.visit(tree))


def codes() -> list[Code]:
    found = []
    for module in SOME[:8]:
        for _, _, text in python_source._functions(python_source.modules()[module]):
            if "f'" not in text and 'f"' not in text:
                found.append(Code(text))
    return found


def test_harmless_changes_leave_the_meaning() -> None:
    seen: Counter[str] = Counter()
    for code in codes():
        for change in refactorings(code):
            after = applied(code.text, change.edits)
            assert after != code.text
            assert same_meaning(after) == same_meaning(code.text), (change.kind, after)
            seen[change.kind] += 1
    assert set(seen) == set(HARMLESS)


def test_faults_never_leave_the_meaning() -> None:
    seen: Counter[str] = Counter()
    for code in codes():
        for change in faults(code):
            after = applied(code.text, change.edits)
            assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(code.text)), change
            seen[change.kind] += 1
    assert set(WHY) - set(seen) <= {"mutable_default"}


@given(st.lists(st.sampled_from(["a", "b\n", "\n", "cd"]), max_size=30).map("".join), st.data())
def test_the_line_of_an_edit_is_where_its_text_stands(text: str, data: Any) -> None:
    if len(text) < 2:
        return
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6, unique=True)))
    edits = [
        Edit(a, b, data.draw(st.sampled_from(["", "x\ny", "\n"]))) for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    if not edits:
        return
    chosen = data.draw(st.sampled_from(edits))
    marked = [e._replace(text="@" + e.text) if e == chosen else e for e in edits]
    assert line_of(text, edits, chosen) == applied(text, marked).split("@")[0].count("\n") + 1


def test_changes_of_one_line_are_not_apart() -> None:
    text = "a b\nc d\n"
    assert apart(text, [Edit(0, 1, "x")], [Edit(4, 5, "y")])
    assert not apart(text, [Edit(0, 1, "x")], [Edit(2, 3, "y")])


def test_items_are_changes_of_the_library_that_the_fix_takes_back() -> None:
    for module in SOME:
        lines = python_source.modules()[module].read_text().split("\n")
        for item in python_source.of_module(module):
            shown = item.messages[1]["content"].split("\n")[1:]
            old, new = [], []
            for line in (s for s in shown if s != "@@"):
                number, _, rest = line.partition(" ")
                old += [rest[1:]] if rest[0] in " -" else []
                new += [(int(number), rest[0], rest[1:])] if rest[0] in "+-" else []
            # What stands on the old side is what the library has, up to how far it is indented.
            assert all(any(line.endswith(o) for line in lines) for o in old), item.id
            for f in item.truth["findings"]:
                assert any(n == f["line"] for n, *_ in new), (item.id, f)
            assert len(item.messages[1]["content"]) < prompt.MOST_DIFF + 60


def test_every_faulty_change_has_a_clean_twin() -> None:
    for module in SOME:
        items = python_source.of_module(module)
        names = Counter(i.id.rpartition("/")[0] for i in items)
        assert set(names.values()) <= {2} and {i.source for i in items} <= {module}
        assert sum(i.scenario == "clean" for i in items) == len(items) / 2


def test_there_is_nothing_of_modules_that_are_not_of_the_library() -> None:
    assert python_source.of_module("pawl.errors") == () and "pytest" not in python_source.modules()


ASKED = prompt.messages("my shop", prompt.diff("a = 1\nb = 2\n", "a = 1\nb = 3\n", 10))


def answer(*findings: tuple[int, str]) -> str:
    return json.dumps({"findings": [{"line": n, "kind": k, "why": "so"} for n, k in findings]})


def truth(*findings: tuple[int, str]) -> Any:
    return {"findings": [{"line": n, "kind": k} for n, k in findings]}


def test_a_prompt_numbers_the_lines_of_the_new_file() -> None:
    assert ASKED[1]["content"] == "module my-shop\n@@\n10  a = 1\n11 -b = 2\n11 +b = 3"
    assert task.source_of(ASKED) == "my-shop"


@pytest.mark.parametrize(
    ("known", "said", "score", "failure"),
    [
        (truth((11, "off_by_one")), answer((11, "off_by_one")), 1.0, ""),
        (truth((11, "off_by_one")), answer((12, "off_by_one")), 1.0, ""),
        (truth((11, "off_by_one")), answer((13, "off_by_one")), 0.0, "wrong_line"),
        (truth((11, "off_by_one")), answer((11, "other")), 0.7, "wrong_kind"),
        (truth((11, "")), answer((11, "other")), 1.0, ""),
        (truth((11, "off_by_one")), answer((11, "off_by_one"), (20, "other")), 0.5, "extra_finding"),
        (truth((11, "off_by_one")), answer((11, "off_by_one"), (11, "off_by_one")), 0.5, "extra_finding"),
        (truth((11, "off_by_one"), (20, "other")), answer((11, "off_by_one")), 0.5, "missed"),
        (truth((11, "off_by_one")), answer(), 0.0, "missed"),
        (truth(), answer(), 1.0, ""),
        (truth(), answer((11, "other")), 0.0, "false_alarm"),
        (truth(), '{"findings":[{}]}', 0.0, "wrong_form"),
    ],
)
def test_findings_are_held_against_the_fix(known: Any, said: str, score: float, failure: str) -> None:
    grade = task.grade(ASKED, said, known)
    assert grade is not None
    assert grade.score == pytest.approx(score) and grade.problem.partition(":")[0] == failure


def test_figures_of_an_answer() -> None:
    faulty = task.grade(ASKED, answer((11, "other"), (30, "other")), truth((11, "off_by_one")))
    clean = task.grade(ASKED, answer(), truth())
    assert faulty and clean
    assert faulty.metrics == {"recall": 1.0, "precision": 0.5, "kind": 0.0}
    assert (faulty.label, faulty.said) == ("off_by_one", "other")
    assert clean.metrics == {"false_alarm_free": 1.0} and clean.label == clean.said == "clean"


def test_library_changes_are_known_again() -> None:
    item = next(i for i in python_source.of_module("queue") if i.truth["findings"])
    said = task.reference(item, random.Random(1))
    assert said is not None
    grade = task.grade(item.messages, said)
    assert grade is not None and grade.score == 1.0
    assert task.cluster_key(item.messages, answer()) == "missed"
    assert task.grade(ASKED, answer()) is None and task.scenario_of(ASKED, answer((1, "other"))) == "other"


def rows(path: Path, *found: dict[str, Any]) -> TaskSourceSpec:
    path.write_text("\n".join(json.dumps(r) for r in found))
    return TaskSourceSpec(kind="jsonl", location=str(path))


DIFF = "--- a/x.py\n+++ b/x.py\n@@ -4,3 +4,3 @@ def f():\n a = 1\n-b = 2\n+b = 3\n c = 4\n"
ROW = {"project": "my shop", "id": "one", "diff": DIFF, "findings": [{"line": 5, "kind": "other"}]}


def test_changes_of_ones_own(tmp_path: Path) -> None:
    clean = ROW | {"id": "two", "findings": []}
    first, second = task.items(rows(tmp_path / "r.jsonl", ROW, clean))
    assert first.messages[1]["content"] == "module my-shop\n@@\n4  a = 1\n5 -b = 2\n5 +b = 3\n6  c = 4"
    assert (first.id, first.source, first.scenario, second.scenario) == ("my-shop/one", "my-shop", "other", "clean")


def test_long_diffs_lose_what_stands_last(tmp_path: Path) -> None:
    context = "".join(f" line{n} = {n}\n" for n in range(200))
    long = f"@@ -1,201 +1,201 @@\n-old = 1\n+new = 1\n{context}"
    lost = ROW | {"diff": long, "id": "lost", "findings": [{"line": 150, "kind": "other"}]}
    (kept,) = task.items(rows(tmp_path / "r.jsonl", lost, ROW | {"diff": long, "findings": [{"line": 1}]}))
    assert kept.id == "my-shop/one"
    assert kept.messages[1]["content"] == "module my-shop\n@@\n1 -old = 1\n1 +new = 1\n2  line0 = 0"


def test_more_findings_than_an_answer_may_name_cannot_be_asked_for(tmp_path: Path) -> None:
    diff = "@@ -1,20 +1,20 @@\n" + "".join(f"-old{n}\n+new{n}\n same{n}\n" for n in range(10))
    many = [ROW | {"id": str(n), "diff": diff, "findings": [{"line": 2 * k + 1} for k in range(n)]} for n in (6, 7)]
    (kept,) = task.items(rows(tmp_path / "r.jsonl", *many))
    told = task.reference(kept, random.Random(1))
    assert kept.id == "my-shop/6" and told is not None
    grade = task.grade(kept.messages, told, kept.truth)
    assert grade is not None and grade.score == 1.0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW | {"findings": None}, "line 1: field `findings`"),
        (ROW | {"findings": [{"kind": "other"}]}, "line 1: a finding needs"),
        (ROW | {"findings": [{"line": 5, "kind": "ugly"}]}, "line 1: a finding's `kind`"),
        (ROW | {"diff": "b = 3"}, "line 1: field `diff`: no hunk"),
        (ROW | {"diff": DIFF + DIFF}, "line 1: field `diff` is of 2 files"),
        (ROW | {"diff": "@@ -1 +1 @@\n*a"}, "line 1: field `diff`: not a line"),
        (ROW | {"findings": [{"line": 99}]}, "no row has a finding"),
    ],
)
def test_rows_that_lack_something_are_told(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        task.items(rows(tmp_path / "r.jsonl", row))
