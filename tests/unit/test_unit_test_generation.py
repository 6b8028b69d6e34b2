"""`unit-test-generation`: what tests are worth, by running them on the code and on faulty versions of it."""

from __future__ import annotations

import os
import random
import textwrap
import time
from pathlib import Path

import pytest

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Item
from pawl.qe.python_code import sources
from pawl.qe.python_code.extract import snippets
from pawl.qe.python_code.inside.instrument import instrumented
from pawl.qe.python_code.inside.mutants import MOST, mutants, possible
from pawl.qe.python_code.observing import PYTEST, in_sandbox, observation
from pawl.qe.python_code.snippet import Snippet, kind_of_code
from pawl.qe.unit_tests import oracle, prompt
from pawl.qe.unit_tests.task import UnitTestGeneration
from pawl.sandbox import BEST_FIRST, available

TASK = UnitTestGeneration()
ROWS = TaskSourceSpec(kind="jsonl", location=str(Path(__file__).parents[1] / "data" / "python_problems.jsonl"))
SIZE = textwrap.dedent(
    """
    def size(n):
        if n < 0:
            raise ValueError("negative")
        if n < 10:
            return "small"
        return "large" if n < 1000 else "huge"
    """
).lstrip()
ITEM = Item(id="x.size", source="x", messages=prompt.messages(Snippet(source="x", entry="size", code=SIZE)))
GOOD = """
import pytest

@pytest.mark.parametrize("n, said", [(0, "small"), (9, "small"), (10, "large"), (999, "large"), (1000, "huge")])
def test_sizes(n, said):
    assert size(n) == said

class TestErrors:
    def test_negative(self):
        with pytest.raises(ValueError):
            size(-1)
"""
PLAIN = """
from subject import size

def test_small():
    assert size(0) == "small" and size(9) == "small"

def test_large():
    assert size(10) == "large"
    assert size(999) == "large"
    assert size(1000) == "huge"

def test_negative():
    try:
        size(-1)
    except ValueError:
        return
    assert False
"""


def graded(tests: str, item: Item = ITEM) -> tuple[float, str]:
    grade = TASK.grade(item.messages, tests, item.truth)
    assert grade is not None
    return grade.score, TASK.cluster_key(item.messages, tests)


@pytest.mark.parametrize("tests", [GOOD, PLAIN, f"```python\n{PLAIN.strip()}\n```"], ids=["pytest", "plain", "fenced"])
def test_good_tests_are_worth_much_with_pytest_and_without(tests: str) -> None:
    grade = TASK.grade(ITEM.messages, tests)
    assert grade is not None and grade.conforms
    assert grade.metrics["branch_coverage"] == grade.metrics["line_coverage"] == 1.0
    assert grade.metrics["mutants_killed"] >= 0.8 and TASK.cluster_key(ITEM.messages, tests) == ""


def test_both_ways_of_running_tests_say_the_same() -> None:
    as_pytest = "import pytest\n" + PLAIN
    one, other = TASK.grade(ITEM.messages, PLAIN), TASK.grade(ITEM.messages, as_pytest)
    assert one is not None and other is not None and one.metrics == other.metrics and one.score == other.score


@pytest.mark.parametrize(
    ("tests", "failure"),
    [
        ("def test_a():\n    assert True", "kills_nothing"),
        ("import os\ndef test_a():\n    os.kill(os.getppid(), 9)", "does_not_run"),
        ("def test_a():\n    assert size(0) == 'small'", "low_coverage"),
        ("def test_a():\n    assert size(0) == 'large'", "fails_on_right_code"),
        ("import pytest\ndef test_a(missing):\n    assert size(0)", "fails_on_right_code"),
        ("import pytest\ndef test_a():\n    with pytest.raises(ValueError):\n        size(1)", "fails_on_right_code"),
        ("import pytest\ndef test_a():\n    pytest.skip()", "does_not_run"),
        ("def test_a():\n    while True: pass", "does_not_run"),
        ("import nothing_of_this_name\ndef test_a():\n    assert size(0)", "does_not_run"),
        ("raise SystemExit(0)\ndef test_a():\n    assert size(0)", "does_not_run"),
        ("import os\ndef test_a():\n    os.abort()", "does_not_run"),
        ("def check_a():\n    assert size(0)", "no_tests"),
        ("import inspect\ndef test_a():\n    assert len(inspect.getsource(size)) == 5", "looks_inside"),
        ("def test_a():\n    assert size.__code__.co_code", "looks_inside"),
        ("def test_a():\n    assert getattr(size, '__co' + 'de__')", "looks_inside"),
        ("import re\ndef test_a():\n    assert re.compile('s').match(size(0))", "low_coverage"),
        ("I would test zero.", "not_python"),
        ("Here you are:\n```python\ndef test_a(): assert size(0)\n```", "not_python"),
        ("def test_a():\n    assert size(0)\n" + "#" * 20_000, "too_long"),
    ],
)  # fmt: skip
def test_failures_have_names(tests: str, failure: str) -> None:
    score, key = graded(tests)
    assert key == failure
    assert score == 0 if failure != "low_coverage" else 0 < score < 0.6


def test_tests_that_pass_only_sometimes_are_flaky() -> None:
    # By the hash seed alone: the same in all runs of one process.
    assert (
        graded("def test_a():\n    assert size(0) == 'small' and hash('pawl') % 2 == HASH".replace("HASH", parity()))[1]
        == "flaky"
    )


@pytest.mark.parametrize(
    "tests",
    [
        # Runs of the right code come first: who counts runs would call everything after them a fault.
        "import os\ndef test_a():\n    size(0)\n    os.mkdir('d' + str(len(os.listdir())))\n"
        "    assert sum(n.startswith('d') for n in os.listdir()) < 3",
        "import os\nFIRST = os.getpid()\ndef test_a():\n    size(0)\n    os.makedirs(str(FIRST), exist_ok=True)\n"
        "    assert FIRST - min(int(n) for n in os.listdir() if n.isdigit()) < 2",
        # What takes as long as the right code may, and longer than a mutant may.
        "import time\ndef test_a():\n    size(0)\n    end = time.process_time() + 1.4\n"
        "    while time.process_time() < end: pass",
    ],
    ids=["files", "processes", "time"],
)  # fmt: skip
def test_tests_that_call_the_right_code_faulty_later_notice_no_mutant(tests: str) -> None:
    assert graded(tests) == (0, "flaky")


def parity() -> str:
    from pawl.sandbox import run

    seen = [run({"m.py": "print(hash('pawl') % 2)"}, ["m.py"], hash_seed=s).stdout.strip() for s in (0, 1)]
    if seen[0] == seen[1]:
        pytest.fail("the two seeds must differ for this word; choose another")
    return seen[0]


def test_every_level_of_the_sandbox_says_the_same() -> None:
    seen = []
    for level in (lv for lv in BEST_FIRST if available(lv)):
        found = [{"code": SIZE, "entry": "size", "seeds": [], "assertions": []}]
        job = {"do": "evaluate", "code": SIZE, "tests": GOOD, "mutants": True}
        told = in_sandbox({"do": "observe", "items": found}, level=level), in_sandbox(job, packages=PYTEST, level=level)
        assert told[0][0] and told[1]["kills"]
        seen.append(told)
    assert all(s == seen[0] for s in seen)


def test_nothing_that_tests_do_reaches_the_next_run_or_forges_a_result() -> None:
    forged = textwrap.dedent(
        """
        import os
        def test_a():
            for n in range(3, 64):
                try:
                    os.write(n, b'{"ran": true, "tests": 1, "failed": [], "lines": [2], "branches": [], "steps": 1}')
                except OSError:
                    pass
            os.kill(os.getpid(), 9)
        """
    )
    assert graded(forged) == (0, "does_not_run")
    assert graded("import sys\ndef test_a():\n    print('{}'); sys.exit(0)")[0] == 0
    assert graded("size = lambda n: 'small'\ndef test_a():\n    assert size(1) == 'small'") == (0, "kills_nothing")


def test_the_score_is_what_it_says() -> None:
    assert oracle.score_of(1, 1) == pytest.approx(1) and oracle.score_of(0, 1) == 0
    assert oracle.score_of(0.5, 1) == pytest.approx(0.65) and oracle.score_of(1, 0.5) == pytest.approx(0.85)
    assert oracle.share({1, 2, 9}, {1, 2, 3, 4}) == 0.5 and oracle.share(set(), set()) == 1


def test_mutants_differ_in_one_place_and_are_the_same_each_time() -> None:
    import ast

    made = mutants(SIZE)
    texts = [ast.unparse(m.tree) for m in made]
    assert texts == [ast.unparse(m.tree) for m in mutants(SIZE)] and len(set(texts)) == len(made) <= MOST
    assert ast.unparse(ast.parse(SIZE)) not in texts and possible(SIZE) >= len(made)
    assert {m.kind for m in made} == {"comparison", "condition", "return", "constant"}
    known = observation(Snippet(source="x", entry="size", code=SIZE))
    assert known is not None and len(known.killable) >= len(made) - 2  # the text of the error is nobody's business


def test_mutants_that_nothing_can_kill_do_not_count() -> None:
    # `<` and `<=` are the same here: for equal values both give that value.
    code = "def larger(a, b):\n    if a < b:\n        return b\n    return a\n"
    snippet = Snippet(source="x", entry="larger", code=code)
    known = observation(snippet)
    assert known is not None and len(known.killable) < known.mutants
    tests = (
        "def test_a():\n    assert larger(1, 2) == 2\n    assert larger(2, 1) == 2\n    assert larger(-1, -2) == -1\n"
    )
    assert oracle.judged(snippet, tests).score == pytest.approx(1.0)


def test_lines_and_decisions_are_told_and_the_code_stays_what_it_was() -> None:
    import ast

    code = "def f(xs):\n    '''Doc.'''\n    n = 0\n    for x in xs:\n        if x:\n            n += 1\n"
    code += "    while n > 3: n -= 1\n    return [y for y in xs if y] if n else None\n"
    made, lines, branches = instrumented(ast.parse(code))
    assert lines == {3, 4, 5, 6, 7, 8} and {b.partition(":")[0] for b in branches} == {"4", "5", "7", "8"}
    names: dict[str, object] = {
        "__pawl_line__": lambda n: None,
        "__pawl_if__": lambda n, v: bool(v),
        "__pawl_for__": lambda n, v: v,
    }
    exec(compile(made, "x", "exec"), names)
    plain: dict[str, object] = {}
    exec(code, plain)
    for xs in ([], [0], [1, 2, 0], [1] * 9):
        assert names["f"](xs) == plain["f"](xs)  # type: ignore[operator]


def test_functions_come_with_what_they_need_and_only_harmless_ones_come() -> None:
    text = textwrap.dedent(
        """
        import math
        import os
        LIMIT = 3
        def small(n):
            return n < LIMIT and math.floor(n) >= 0
        def wanted(values, most=LIMIT):
            total = 0
            for v in values:
                if small(v) and v <= most:
                    total += v
            return total
        def reads(path):
            if path:
                return open(path).read() + str(len(path) + 1 + 2 + 3)
            return None
        def lists(path):
            return [p for p in os.listdir(path) if p > "a" and p < "z" and len(p) > 3]
        def of_an_object(frame):
            if frame.f_lineno > 3 and frame.f_lineno < 100:
                return frame.f_code + 1
            return None
        """
    )
    found = snippets(text, "m")
    assert [s.entry for s in found] == ["wanted"]
    assert found[0].code.startswith("import math\n") and "LIMIT = 3" in found[0].code and "def small" in found[0].code
    assert snippets("def (", "m") == []


def test_code_has_a_class() -> None:
    assert kind_of_code(SIZE) == "errors" and kind_of_code("not python at all") == ""
    assert kind_of_code("def f(n): return n and f(n - 1)") == "recursion"
    assert kind_of_code("def f(s): return s.strip()") == "strings" and kind_of_code("def f(n): return n + 1") == "plain"


def test_rows_bring_their_own_tests() -> None:
    items = TASK.items(ROWS)
    assert [i.id for i in items] == [
        "python_problems-000.is_leap", "python_problems-001.between", "python_problems-002.vowels",
        "python_problems-003.divisor", "python_problems-004.size",
    ]  # fmt: skip
    for item in items:
        answer = TASK.reference(item, random.Random(1))
        assert answer is not None and all(a in answer for a in item.truth["assertions"])
        assert graded(answer, item) == (pytest.approx(1.0), "")
        own = "\n".join(f"def test_{n}():\n    {a}" for n, a in enumerate(item.truth["assertions"]))
        assert 0 < graded(own, item)[0] <= 1
    assert len({TASK.reference(items[1], random.Random(seed)) for seed in range(8)}) > 1
    assert prompt.parsed(items[0].messages) == Snippet(
        source="python_problems-000", entry="is_leap", code=sources.from_jsonl(str(ROWS.location))[0].code
    )


def test_unusable_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="location"):
        TASK.items(TaskSourceSpec(kind="jsonl"))
    with pytest.raises(SourceError, match="folder"):
        TASK.items(TaskSourceSpec(kind="python", location=str(tmp_path / "none")))
    (tmp_path / "a.py").write_text("import os\n")
    with pytest.raises(SourceError, match="by itself"):
        TASK.items(TaskSourceSpec(kind="python", location=str(tmp_path)))
    (tmp_path / "rows.jsonl").write_text('{"text": "x", "code": "def f(): pass", "test_list": "assert f()"}')
    with pytest.raises(SourceError, match="line 1: field `test_list`"):
        TASK.items(TaskSourceSpec(kind="jsonl", location=str(tmp_path / "rows.jsonl")))


def test_a_folder_of_ones_own_code_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "sizes.py").write_text(SIZE)
    items = TASK.items(TaskSourceSpec(kind="python", location=str(tmp_path)))
    assert [(i.id, i.source, i.scenario) for i in items] == [("deep.sizes.size", "deep.sizes", "errors")]


def test_code_that_harms_is_held_back_while_it_is_tried_out(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "def bad(n):\n    kept = []\n    while n < 100 or n >= 100:\n"
        "        kept.append('x' * 10_000_000)\n        n += 1\n    return kept\n" + SIZE
    )
    items = TASK.items(TaskSourceSpec(kind="python", location=str(tmp_path)))
    assert [i.id for i in items] == ["m.size"]


@pytest.mark.skipif(not os.environ.get("PAWL_DATA_DIR"), reason="PAWL_DATA_DIR names no folder with mbpp.jsonl.gz")
def test_references_of_real_problems_are_right_and_quick() -> None:
    location = str(Path(os.environ["PAWL_DATA_DIR"]) / "mbpp.jsonl.gz")
    items = TASK.items(TaskSourceSpec(kind="jsonl", location=location))
    assert len(items) > 300 and len({i.source for i in items}) > 20
    seconds, without = [], 0
    for item in random.Random(5).sample(list(items), 12):
        answer = TASK.reference(item, random.Random(1))
        if answer is None:
            without += 1
            continue
        began = time.monotonic()
        assert graded(answer, item)[0] >= 0.99, item.id
        seconds.append(time.monotonic() - began)
    assert without <= 2 and sorted(seconds)[len(seconds) // 2] < 2
