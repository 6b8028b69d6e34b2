"""What evaluations repeat of clients' prompts: taken out of results, pages and tables, and of nothing else."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import regression
from pawl.curation.regression import Suite
from pawl.errors import LakeError, ServerNotUp
from pawl.evaluation.paired import compare
from pawl.evaluation.report import Comparison, Interval, ItemResult, JudgeCard, McNemar, SuiteResult
from pawl.evaluation.rows import columns
from pawl.improvement import erased_copies
from pawl.improvement.erased_copies import ERASED, batches_of, forget_copies, gone_items, page_without, table_without
from pawl.improvement.recorded import held_ids
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from pawl.monitoring.loop_data import LoopReport
from pawl.monitoring.loop_report import render
from pawl.registry.memory_registry import MemoryRegistry

# What would end a block of a page, or a cell of a table, if it were not escaped.
NASTY = 'Jane Roe, 7 Elm St </pre></div><div class="sample"><h3>i2</h3>" \\ \n<b>'
JUDGE = JudgeCard(
    judge="j", pairs=9, agreement=Interval(0.8, 0.7, 0.9), turned=0, failed=0, trusted=True, least=0.7, wanted=20
)


def result(item: str, score: float, text: str = "") -> ItemResult:
    told = text or f"about {item}"
    return ItemResult(
        item=item,
        source=f"s-{item}",
        score=score,
        prompt=f"{told}?",
        completion=f"{told}!",
        problem=f"{told} is wrong",
        completion_tokens=7,
    )


def comparison(n: int = 4, agent: str = "helper", **more: Any) -> Comparison:
    before = [result(f"i{k}", 0.25, NASTY if k == 1 else "") for k in range(n)]
    after = [result(f"i{k}", 0.75, NASTY if k == 1 else "") for k in range(n)]
    made = compare(agent, ("old", before), ("new", after), margin=0.1, alpha=0.05, dataset="d", training_sources=set())
    return msgspec.structs.replace(made, **{"judge": JUDGE, **more})


def tree(found: Comparison) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return made


def suite_result() -> SuiteResult:
    rows = (result("t1", 1.0), result("t2", 0.0))
    return SuiteResult(
        outcomes=McNemar(both=1, gained=0, lost=0, neither=1, p_gained=1, p_lost=1), champion=rows, challenger=rows
    )


def test_recorded_prompts_are_gone_with_the_lake_and_tested_ones_with_the_suite() -> None:
    found = tree(comparison(suite=suite_result()))
    assert gone_items(found, lambda: {"i0", "i2", "i3", "t1", "t2"}, lambda: {"t2"}) == {"i1", "t1"}
    assert gone_items(found, lambda: {"i0", "i1", "i2", "i3"}, lambda: {"t1", "t2"}) == set()


def test_items_of_a_task_are_nobodys_and_stay() -> None:
    def never() -> set[str]:
        raise AssertionError("the lake need not be read for them")

    assert gone_items(tree(comparison(judge=None)), never, never) == set()


def test_texts_go_and_figures_stay() -> None:
    before = comparison(suite=suite_result())
    found = tree(before)
    assert erased_copies.without_texts(found, {"i1", "t1"})
    after = msgspec.convert(found, Comparison)
    for old, new in zip(
        (*before.champion.items, *before.suite.champion), (*after.champion.items, *after.suite.champion), strict=True  # type: ignore[union-attr]
    ):  # fmt: skip
        if new.item in ("i1", "t1"):
            assert (new.prompt, new.completion, new.problem) == (ERASED,) * 3
            new = msgspec.structs.replace(new, prompt=old.prompt, completion=old.completion, problem=old.problem)
        assert new == old
    assert after.difference == before.difference and after.digest() != before.digest()
    assert "Jane" not in json.dumps(found)
    assert not erased_copies.without_texts(found, {"i1", "t1"}), "the second time nothing is left to take out"


def test_a_page_loses_the_blocks_of_the_gone_and_no_others() -> None:
    page = render(LoopReport(title="t", agent="helper", generated_at=0.0, comparison=comparison()))
    assert page.count(html.escape("7 Elm St")) == 3
    made = page_without(page.encode(), {"i1", "i3"}).decode()
    assert "Jane" not in made and made.count(f"<pre>{ERASED}</pre>") == 6
    assert "about i3" not in made and made.count("about i0?") == made.count("about i2?") == 1
    outside = made.replace(f"<pre>{ERASED}</pre>", "")
    assert len(page) - len(page.replace("<pre>", "")) == len(made) - len(made.replace("<pre>", ""))
    assert outside.count("</section>") == page.count("</section>")
    assert page_without(made.encode(), {"i1", "i3"}) == made.encode()
    assert page_without(page.encode(), {"i9"}) == page.encode()


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_table_loses_the_cells_of_the_gone_and_no_others(ascii_only: bool) -> None:
    shown = columns(comparison())
    rows = [list(r) for r in zip(*shown.values(), strict=True)]
    data = json.dumps({"columns": list(shown), "data": rows}, ensure_ascii=ascii_only).encode()
    made = json.loads(table_without(data, {"i1"}))
    for before, after in zip(rows, made["data"], strict=True):
        cells = {c: (b, a) for c, b, a in zip(shown, before, after, strict=True) if b != a}
        assert set(cells) == (
            {"prompt", "champion_answer", "challenger_answer", "problem"} if before[0] == "i1" else set()
        )
        assert all(a == ERASED for _, a in cells.values())
    for foreign in (b'{"columns":["a"],"data":[["i1"]]}', b"i1 {", b"[]", b'{"data":["i1"],"columns":3}'):
        assert table_without(foreign, {"i1"}) == foreign


def test_batches_that_hold_answers_to_the_gone_are_found(tmp_path: Path) -> None:
    for name, identity in (("batch_a", "c1"), ("batch_b", "c2"), ("batch_c", "c1")):
        (tmp_path / name).mkdir()
        row = {"id": "x", "response": {"status_code": 200, "request_id": identity, "body": {}}}
        file = "errors.jsonl" if name == "batch_c" else "output.jsonl"
        (tmp_path / name / file).write_text(json.dumps(row) + "\nnot json\n" + '{"response": null}\n')
    assert batches_of(tmp_path, ["c1"]) == ["batch_a", "batch_c"]
    assert batches_of(tmp_path / "none", ["c1"]) == []


class Home:
    """A lake with two persons' prompts, and a comparison that was made on them, with its page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lake = ParquetLake(path / "lake", path / "journal")
        self.lake.add(self.asked(n, who, text) for n, (who, text) in enumerate([("ann", NASTY), ("bob", "Hi there")]))
        self.ids = {who: i for who in ("ann", "bob") for i in held_ids(self.lake, "helper") if i in self.of(who)}
        found = comparison(2)
        sides = {
            side: msgspec.structs.replace(
                getattr(found, side),
                items=tuple(
                    msgspec.structs.replace(r, item=self.ids[who], prompt=text, completion=f"so: {text}")
                    for r, (who, text) in zip(
                        getattr(found, side).items, [("bob", "Hi there"), ("ann", NASTY)], strict=True
                    )
                ),
            )
            for side in ("champion", "challenger")
        }
        self.comparison = msgspec.structs.replace(found, **sides)
        self.file = path / "candidates" / "helper-1" / "comparison.json"
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(msgspec.json.encode(self.comparison))
        self.page = path / "reports" / "helper-1-evidence.html"
        self.page.parent.mkdir()
        self.page.write_text(
            render(LoopReport(title="t", agent="helper", generated_at=0.0, comparison=self.comparison))
        )
        kept = path / "answers" / "ab" / "abc.json"
        kept.parent.mkdir(parents=True)
        kept.write_text(json.dumps({"completion": f"so: {NASTY}"}))
        self.registry = MemoryRegistry()
        self.run = self.registry.log_training("helper", {}, {}, {})
        self.registry.log_table(self.run, "evaluation-1.json", columns(self.comparison))

    @staticmethod
    def asked(n: int, who: str, text: str) -> Interaction:
        return Interaction(
            id=f"c{n}", at=1e9 + n, agent="helper", session=who, key_id="k", arm="base", arm_kind="local",
            messages=[{"role": "user", "content": text}], completion=f"so: {text}",
        )  # fmt: skip

    def of(self, who: str) -> set[str]:
        other = ParquetLake(self.path / f"lake-{who}", self.path / "none")
        other.add(i for i in self.lake.interactions("helper") if i.session == who)
        return held_ids(other, "helper")

    def forget(self, registry: Any = None) -> erased_copies.Copies:
        gone = self.lake.erase("ann", 2e9)
        place = (self.path / "regression", self.path / "reports", registry or self.registry)
        return forget_copies(self.lake, self.path, *place, erased=bool(gone))

    def texts(self) -> str:
        folders = ("candidates", "reports", "answers")
        local = [p.read_text() for f in folders for p in (self.path / f).rglob("*") if p.is_file()]
        return "".join(local) + repr(self.registry.tables)


def test_nothing_of_the_erased_is_left_and_all_of_the_others(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.texts().count("Jane") == 6 + 3 + 1 + 4
    done = home.forget()
    assert "Jane" not in home.texts() and home.texts().count("Hi there") == 4 + 3 + 3
    assert done.comparisons == ["helper-1"] and done.pages == [str(home.page)] and done.answers == 1
    assert done.registry == [f"memory:{home.run}/evaluation-1.json"] and done.unreached == []
    after = msgspec.json.decode(home.file.read_bytes(), type=Comparison)
    assert after.difference == home.comparison.difference and after.pairs == 2
    assert home.forget() == erased_copies.Copies(comparisons=[], pages=[], registry=[], answers=0, unreached=[])


def test_a_registry_that_is_down_is_told_and_the_next_erasure_goes_on_there(tmp_path: Path) -> None:
    class Down:
        def rewrite(self, *_: Any) -> list[str]:
            raise ServerNotUp("MLflow does not answer")

    home = Home(tmp_path)
    (told,) = home.forget(Down()).unreached
    assert "helper" in told and "does not answer" in told
    assert "Jane" not in home.file.read_text() + home.page.read_text() and "Jane" in repr(home.registry.tables)
    again = home.forget()
    assert again.registry and again.comparisons == [] and "Jane" not in home.texts()


def test_what_left_the_suite_leaves_the_comparisons_of_agents_with_an_oracle_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    judged = comparison(judge=None, suite=suite_result(), agent="tests")
    other = tmp_path / "candidates" / "tests-1" / "comparison.json"
    other.parent.mkdir()
    other.write_bytes(msgspec.json.encode(judged))
    entry = {"messages": [], "source": "s", "cluster": "c", "content": "", "added_at": 0.0}
    items = tuple(regression.Item(id=i, interaction=f"x-{i}", **entry) for i in ("t1", "t2"))  # type: ignore[arg-type]
    regression.change(tmp_path / "regression", "tests", lambda s: Suite(agent="tests", items=items))
    assert home.forget().comparisons == ["helper-1"]
    regression.change(tmp_path / "regression", "tests", lambda s: Suite(agent="tests", items=items[:1]))
    assert home.forget().comparisons == ["tests-1"]
    assert "about t2" not in other.read_text() and other.read_text().count("about t1") == 6


def test_a_comparison_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.file.write_text("{")
    with pytest.raises(LakeError, match=r"comparison\.json cannot be read"):
        home.forget()
