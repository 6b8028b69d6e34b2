"""Champion and challenger judged on real items of the task, with the regression suite; the models are a small real
server that speaks OpenAI's chat API and vLLM's adapter API, and answers by the task's own reference."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from pawl.cli import app
from pawl.curation import dataset as datasets
from pawl.curation import regression
from pawl.curation.dataset import DatasetVersion, Example
from pawl.evaluation.report import Comparison
from pawl.improvement.evaluation_plan import plan, told
from pawl.improvement.failing_classes import focus
from pawl.improvement.held_out import split_of
from pawl.improvement.judging import judge
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.loop_data import LoopReport
from pawl.monitoring.loop_report import render
from pawl.qe.functional_negative import reference
from pawl.qe.item import Item
from pawl.qe.operations.prompt import parsed
from pawl.qe.task import user_text
from pawl.registry.adapter_hash import adapter_sha256
from pawl.rollout.route import Arm, Route
from pawl.settings import Settings
from pawl.training.result import TrainResult
from tests.tiny_adapter import make_adapter, tensors

AGENT = "functional-negative"


class Models:
    """The base model answers right with chance `base`, every adapter with chance `adapter`, by the prompt's hash."""

    def __init__(self, base: float, adapter: float) -> None:
        self.chance = {"base": base}
        self.loaded = {"base": "base"}
        self.asked: list[tuple[str, str]] = []
        self.tells_tokens, self.token_calls = True, 0
        models = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def _send(self, body: Any, status: int = 200) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self._send({"data": [{"id": n, "root": p} for n, p in models.loaded.items()]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/v1/load_lora_adapter":
                    models.loaded[body["lora_name"]] = body["lora_path"]
                    self._send({})
                    return
                if self.path != "/v1/chat/completions":
                    self._send(*models.tokens(self.path, body))
                    return
                text = models.answer(body["model"], body["messages"], models.chance.get(body["model"], adapter))
                usage = {"prompt_tokens": 100, "completion_tokens": 50}
                self._send({"choices": [{"message": {"content": text}}], "usage": usage})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def tokens(self, path: str, body: dict[str, Any]) -> tuple[Any, int]:
        """A character a token. The base model would always write an e; an adapter knows a little JSON."""
        if not self.tells_tokens:
            return {"detail": "Not Found"}, 404
        self.token_calls += 1
        if path == "/tokenize":
            text = body["prompt"] if "prompt" in body else user_text(body["messages"])
            return {"tokens": [ord(c) for c in text], "max_model_len": 100_000}, 200

        likely = {} if body["model"] == "base" else {"{": '"', ",": '"', "[": "{", '"': ":", "}": ","}
        ends = [chr(ids[-1]) for ids in body["prompt"]]
        return {"choices": [{"index": n, "token_ids": [ord(likely.get(c, "e"))]} for n, c in enumerate(ends)]}, 200

    def answer(self, model: str, messages: list[dict[str, Any]], chance: float) -> str:
        if user_text(messages) != "hi":  # a probe of the reconciler
            self.asked.append((model, user_text(messages)))
        rng = random.Random(f"{model}{user_text(messages)}")
        if "\n" not in user_text(messages) or rng.random() > chance:  # a greeting, or one that it gets wrong
            return "I cannot do that."
        return reference.answer(parsed(messages).schema, rng, 0.0)


@pytest.fixture
def fleet(tmp_path: Path, root: Path) -> Path:
    tree = yaml.safe_load((root / "infra" / "fleet.yaml").read_text())
    tree["agents"][0]["evaluation"] = {"items": 60, "margin": 0.1, "protected": ["range"], "protected_margin": 0.5}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def serve(tmp_path: Path, fleet: Path) -> Iterator[Any]:
    servers: list[Models] = []

    def start(base: float, adapter: float) -> tuple[Workplace, Models]:
        models = Models(base, adapter)
        servers.append(models)
        port = int(models.server.server_address[1])
        return Workplace(Settings(home=tmp_path / "home", fleet=fleet, vllm_port=port), AGENT), models

    yield start
    for models in servers:
        models.server.shutdown()


def candidate(place: Workplace, sources: tuple[str, ...]) -> Candidate:
    made = place.candidate("f", place.agent.training, "base")
    make_adapter(made.adapter, tensors(0.25))
    example = Example(id="e", messages=[], completion="{}", quality=1.0, source=sources[0], interactions=("i",))
    path = datasets.save(DatasetVersion(agent=AGENT, examples=(example,), sources=sources), place.settings.datasets_dir)
    made.write("training", TrainResult(
        adapter_dir="adapter", steps=1, examples=1, dropped=0, tokens=10, completion_tokens=5, seconds=1.0,
        tokens_per_s=10.0, loss_first=2.0, loss_last=1.0, parameters=1, dtype="bfloat16",
    ))  # fmt: skip
    made.write("lineage", Lineage(
        dataset=path.name, dataset_fingerprint="f", base_sha256="b", adapter_sha256=adapter_sha256(made.adapter),
        code_version="1", parent="base", candidate=made.id,
    ))  # fmt: skip
    return made


def failed(item: Item, task_content: str) -> regression.Item:
    return regression.Item(
        id=f"p-{item.id}", messages=item.messages, source=item.source, cluster="short", content=task_content,
        interaction="i", added_at=1.0,
    )  # fmt: skip


def keep(place: Workplace, items: list[Item]) -> None:
    entries = tuple(failed(i, user_text(i.messages)) for i in items)
    regression.change(place.settings.regression_dir, AGENT, lambda suite: msgspec.structs.replace(suite, items=entries))


def test_a_better_challenger_is_promoted_with_all_that_an_approver_reads(serve: Any) -> None:
    place, models = serve(0.1, 0.95)
    known = split_of(place.agent)
    sources = tuple(sorted({i.source for i in known.train}))[:5]
    taught = next(i for i in known.train if i.source == sources[0])
    keep(place, [*known.validation[:6], taught])
    told_of: list[str] = []
    made = candidate(place, sources)
    comparison, decision = judge(place, made, lambda step, *_: told_of.append(step))
    assert decision.decision == "promote", decision.reasons
    assert comparison.verdict == "better" and comparison.pairs == 60 and comparison.power is not None
    assert comparison.power.available == len(known.test)
    assert {s.by for s in comparison.slices} == {"scenario", "conforms"}
    (protected,) = [s for s in comparison.slices if s.protected]
    assert protected.name == "range"
    assert comparison.failures and sum(p.mended for p in comparison.failures) > 30
    metrics = comparison.challenger.metrics
    assert metrics is not None and metrics.means["validity"].mean > 0.8 and metrics.completion_tokens == 50
    assert comparison.suite is not None and comparison.suite.left_out == 1, "a source it was trained on proves nothing"
    assert len(comparison.suite.challenger) == 6 and "regression suite" in " ".join(told_of)
    assert made.read("comparison", Comparison).digest() == comparison.digest()
    _, kept = place.control.pointer(f"quality:{place.agent_name}:sha256:{made.read('lineage', Lineage).adapter_sha256}")
    assert float(kept) == pytest.approx(comparison.challenger.score.mean, abs=1e-6), "the alert's baseline"
    asked = len(models.asked)
    again, _ = judge(place, made, lambda *_: None)
    assert again.digest() == comparison.digest() and len(models.asked) == asked, "answers are kept"


def test_token_accuracy_stands_beside_the_score_and_fails_nothing(serve: Any) -> None:
    place, models = serve(0.1, 0.95)
    made = candidate(place, ("elsewhere",))
    first, decision = judge(place, made, lambda *_: None)
    old, new = (s.metrics.token_accuracy for s in (first.champion, first.challenger) if s.metrics)
    assert old is not None and new is not None and old.share is not None and new.share is not None
    assert old.items == new.items == 24 and old.tokens == new.tokens == 24 * 8 and old.problem == new.problem == ""
    assert 1 > new.share.upper > new.share.mean > old.share.mean > old.share.lower > 0
    assert made.read("comparison", Comparison).digest() == first.digest()
    calls = models.token_calls
    again, _ = judge(place, made, lambda *_: None)
    assert again.digest() == first.digest() and models.token_calls == calls == 3 * 2 * 24
    # A server that tells no probabilities: the same evaluation, and the page says why the figure is missing.
    models.tells_tokens = False
    for path in (place.settings.home / "answers").rglob("*.tokens.json"):
        path.unlink()
    without, decided = judge(place, made, lambda *_: None)
    assert without.difference == first.difference and decided == decision
    assert without.challenger.metrics is not None and without.challenger.metrics.token_accuracy is not None
    assert without.challenger.metrics.token_accuracy.share is None
    assert "status 404" in without.challenger.metrics.token_accuracy.problem
    shown = render(LoopReport(title="x", agent=AGENT, generated_at=0.0, comparison=without))
    assert "Token accuracy, after: 0 of 24 references" in shown and "would have written" not in shown
    assert "would have written, on 24 tasks" in render(
        LoopReport(title="x", agent=AGENT, generated_at=0.0, comparison=first)
    )


def test_a_small_protected_slice_gets_the_items_it_needs(serve: Any, fleet: Path) -> None:
    place, models = serve(0.1, 0.95)
    plain, _ = judge(place, candidate(place, ("elsewhere",)), lambda *_: None)
    tree = yaml.safe_load(fleet.read_text())
    tree["agents"][0]["evaluation"]["protected_items"] = 40
    fleet.write_text(yaml.safe_dump(tree))
    place = Workplace(place.settings, AGENT)
    asked = len(models.asked)
    found, _ = judge(place, candidate(place, ("elsewhere",)), lambda *_: None)
    (before,), (after,) = ([s for s in c.slices if s.protected] for c in (plain, found))
    assert before.items < 40 == after.items and after.beyond == 40 - before.items
    assert len(models.asked) == asked + 2 * after.beyond, "the draw was asked before"
    assert (found.difference, found.champion, found.challenger) == (plain.difference, plain.champion, plain.challenger)
    assert found.beyond is not None and {i.scenario for i in found.beyond.champion} == {"range"}
    assert not {i.item for i in found.beyond.champion} & {i.item for i in found.champion.items}
    assert after.loss_at_most <= before.loss_at_most


def test_the_next_dataset_learns_the_names_of_the_classes_that_what_serves_fails_in(serve: Any) -> None:
    place, _ = serve(0.4, 0.7)
    assert focus(place) == ()
    made = candidate(place, ("elsewhere",))
    comparison, _ = judge(place, made, lambda *_: None)
    found = focus(place)
    assert found and max(c.failed / c.asked for c in found) > 0.5 and sum(sum(c.ways.values()) for c in found) > 10
    assert {c.name for c in found} <= {i.scenario for i in comparison.champion.items}
    told = msgspec.json.encode(found).decode()
    assert not [i for i in comparison.champion.items if i.item in told or i.source in told or i.prompt in told]

    # Once the challenger serves, its own failures count; another champion was in no comparison.
    served = f"{AGENT}-v1-{adapter_sha256(made.adapter)[:8]}"
    for name, failed in ((served, comparison.challenger), (f"{AGENT}-v9-00000000", None)):
        place.control.put_route(Route(agent=AGENT, champion=Arm(name, "local", name, "local"),
                                      revision=(r.revision if (r := place.control.route(AGENT)) else 0)))  # fmt: skip
        found = focus(place)
        wrong = [i.scenario for i in failed.items if (i.score or 0.0) < 0.5] if failed else []
        assert {c.name: c.failed for c in found} == {c.name: wrong.count(c.name) for c in found}
        assert bool(found) == bool(wrong)


def test_a_worse_challenger_is_rejected(serve: Any) -> None:
    place, _ = serve(0.95, 0.1)
    comparison, decision = judge(place, candidate(place, ("elsewhere",)), lambda *_: None)
    assert decision.decision == "reject" and comparison.verdict == "worse" and comparison.suite is None
    assert "worse than the champion" in decision.reasons[0]
    assert sum(p.broken for p in comparison.failures) > 30


def test_what_must_pass_rejects_a_better_one_until_the_mark_is_taken_away(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, models = serve(0.1, 1.0)
    made = candidate(place, ("elsewhere",))
    items = split_of(place.agent).validation[:4]
    keep(place, items)
    broken = user_text(items[2].messages)
    whole = models.answer
    models.answer = lambda m, messages, c: "no" if user_text(messages) == broken else whole(m, messages, c)  # type: ignore[method-assign]
    assert judge(place, made, lambda *_: None)[1].decision == "promote"

    def cli(*words: str) -> str:
        settings = place.settings
        monkeypatch.setenv("PAWL_HOME", str(settings.home))
        monkeypatch.setenv("PAWL_FLEET", str(settings.fleet))
        monkeypatch.setenv("PAWL_API_KEY", key)
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    key = place.control.create_key("operator", "dana")[1]
    name = f"p-{items[2].id}"
    assert "1 of 4" in cli("regression", "must-pass", AGENT, name)
    assert "MUST PASS" in cli("regression", "list", AGENT).splitlines()[0]
    comparison, decision = judge(place, made, lambda *_: None)
    assert decision.decision == "reject" and comparison.verdict == "better"
    assert comparison.suite is not None and comparison.suite.must_pass_failed == (name,)
    assert any(e["event"] == "regression items marked" for e in place.control.audit_log())
    cli("regression", "must-pass", AGENT, name, "--off")
    assert judge(place, made, lambda *_: None)[1].decision == "promote"


def test_the_plan_is_by_the_held_out_items_and_the_latest_comparison(serve: Any) -> None:
    place, _ = serve(0.5, 0.5)
    before = plan(place)
    assert before.known_from == "" and before.available == len(split_of(place.agent).test)
    assert plan(place, margin=0.02).chance < before.chance < plan(place, margin=0.3).chance
    made = candidate(place, ("elsewhere",))
    judge(place, made, lambda *_: None)
    after = plan(place)
    assert after.known_from == made.id and after.sd != before.sd
    assert plan(place, sd=0.4).known_from == ""
    assert "too few" in told(after) and "held out" in told(after)
    assert plan(place, margin=0.5).good and "good" in told(plan(place, margin=0.5))
