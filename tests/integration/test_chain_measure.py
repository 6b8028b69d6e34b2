"""A chain measured end to end: through a real gateway, by its oracle, and by a real FastAPI server under test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from pawl.cli import app
from pawl.errors import ServerNotUp
from pawl.evaluation.chains import ChainReport
from pawl.qe.operations import live
from pawl.qe.operations.operation import Operation
from tests.integration.gateway_process import FLEET, GOOD, LiveGateway

CHAINS = (
    FLEET
    + """\
  - {{name: writer, task: generic, max_tokens: 77}}
chains:
  - name: api-tests
    steps:
      - {{name: write, agents: [functional-negative], prompt: "{{input}}", combine: {{}}}}
  - name: talk
    steps: [{{name: say, agents: [writer]}}]
"""
)


class Order(BaseModel):
    n: int = Field(ge=1)


class Careless(BaseModel):
    """What the second service really takes, whatever its document says."""

    n: int = 1


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    api = FastAPI()

    @api.post("/orders", tags=["orders"], operation_id="place")
    def place(order: Order) -> int:
        return order.n

    @api.put("/people/{who}/orders", tags=["people"], operation_id="change")
    def change(who: str, order: Careless) -> int:
        return order.n

    @api.post("/moved")
    def moved(order: dict[str, Any]) -> RedirectResponse:
        return RedirectResponse("/landed", status_code=302)

    @api.get("/landed")
    def landed() -> int:
        return 1

    @api.post("/broken", tags=["broken"], operation_id="fail")
    async def fail(order: dict[str, Any]) -> None:
        raise RuntimeError("it always does")

    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="critical"))
    running = threading.Thread(target=server.run)
    running.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    running.join()


def operation(path: str, method: str = "POST") -> Operation:
    return Operation(id="a.b", source="a", method=method, path=path, schema={})


@pytest.mark.parametrize(
    ("path", "method", "payload", "expected", "outcome"),
    [
        ("/orders", "POST", {"n": 0}, "refused", "as_expected"),
        ("/orders", "POST", {"n": 1}, "refused", "taken"),
        ("/orders", "POST", {"n": 1}, "taken", "as_expected"),
        ("/orders", "POST", {}, "taken", "refused"),
        ("/people/{who}/orders", "PUT", {"n": "x"}, "refused", "as_expected"),
        ("/people/{who}/orders", "PUT", {}, "refused", "taken"),
        ("/people/{who}/orders", "POST", {}, "refused", "elsewhere"),
        ("/broken", "POST", {"n": 0}, "refused", "broken"),
        ("/moved", "POST", {"n": 1}, "taken", "elsewhere"),
        (".localhost/orders", "POST", {"n": 0}, "refused", "taken"),  # a path below this server: there is none
        ("/not there", "POST", {"n": 0}, "taken", "as_expected"),  # a 404: what is named is not there
    ],
)
def test_what_a_server_does_with_a_case(
    service: str, path: str, method: str, payload: Any, expected: live.Expected, outcome: str
) -> None:
    assert live.try_case(operation(path, method), {"name": "x", "payload": payload}, expected, service) == outcome


def test_what_cannot_be_sent_and_who_does_not_answer(service: str) -> None:
    assert live.try_case(operation("/orders"), "no case", "refused", service) == "unsendable"
    assert live.try_case(operation("/orders"), {"payload": 2**70}, "refused", service) == "unsendable"
    with pytest.raises(ServerNotUp, match="does not answer"):
        live.try_case(operation("/orders"), {"payload": {}}, "refused", "http://127.0.0.1:9")


def run(live_gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    settings = live_gateway.settings
    places = {"HOME": settings.home, "FLEET": settings.fleet, "GATEWAY_PORT": settings.gateway_port}
    for name, value in {**places, "API_KEY": live_gateway.key}.items():
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    done = CliRunner().invoke(app, ["chain", *arguments])
    return done.exit_code, done.stdout + (str(done.exception) if done.exception else "") + done.stderr


def document(tmp_path: Path) -> str:
    """Both operations as the document describes them: n is required, and at least 1."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    body = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    paths = {
        "/orders": {"post": {"tags": ["orders"], "operationId": "place", **body}},
        "/people/{who}/orders": {"put": {"tags": ["people"], "operationId": "change", **body}},
    }
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps({"openapi": "3.1.0", "info": {}, "paths": paths}))
    return str(path)


def test_tests_that_are_valid_and_run_and_the_change(
    gateway: Callable[..., LiveGateway], service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = gateway(CHAINS)
    wrong = json.loads(GOOD)
    wrong["test_cases"][0]["payload"] = {"n": 7}  # the schema takes it
    there.upstream.answers["base"] = json.dumps(wrong)
    before, after, asked = tmp_path / "before.json", tmp_path / "after.json", document(tmp_path)
    code, said = run(
        there, monkeypatch, "measure", "api-tests", "--document", asked, "--against", service, "--out", str(before)
    )
    assert code == 0, said
    assert "2 operations of 2 sources, 0 without an answer, 6 tests" in said
    assert "valid tests 0.667" in said and "(wrongly_accepted 2)" in said
    there.upstream.answers["base"] = GOOD
    code, said = run(
        there, monkeypatch, "measure", "api-tests", "--document", asked, "--against", service, "--out", str(after),
        "--beside", str(before),
    )  # fmt: skip
    assert code == 0, said
    found = msgspec.json.decode(after.read_bytes(), type=ChainReport)
    assert found.valid is not None and found.valid.mean == 1.0 and found.score.mean == 1.0
    # One service is not what its document says: it takes an order without n, and one of 0.
    assert found.ran == {"as_expected": 4, "taken": 2}
    assert found.as_expected is not None and found.as_expected.mean == pytest.approx(4 / 6)
    assert found.models == {"functional-negative": "base"}
    assert "valid and run as they say 0.667" in said and "change of score +0.333" in said
    other = tmp_path / "other.json"
    other.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, answers=())))
    arguments = ("measure", "api-tests", "--document", asked, "--items", "1")
    code, said = run(there, monkeypatch, *arguments, "--beside", str(other))
    assert code == 0 and "nothing can be said of a change" in said
    code, said = run(there, monkeypatch, *arguments, "--json")
    report = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert report["items"] == 1 and report["as_expected"] is None and report["answers"] == []


def test_a_chain_that_fails_counts_as_failed(
    gateway: Callable[..., LiveGateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = gateway(CHAINS)
    there.upstream.failing |= {"base", "big"}
    code, said = run(there, monkeypatch, "measure", "api-tests", "--document", document(tmp_path))
    assert code == 0 and "2 without an answer, 0 tests" in said and "score of answers 0.000" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("measure", "nobody"), "there are: api-tests, talk"),
        (("measure", "api-tests", "--against", "https://example.org"), "add --remote"),
        (("measure", "talk"), "no oracle"),
        (("measure", "talk", "--document", "nothing.json"), "no oracle"),
        (("measure", "api-tests", "--document", "nothing.json"), "cannot be read"),
        (("measure", "api-tests", "--beside", "nothing.json"), "no earlier measurement"),
    ],
)
def test_what_makes_no_sense_is_refused(
    gateway: Callable[..., LiveGateway], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], why: str
) -> None:
    code, said = run(gateway(CHAINS), monkeypatch, *arguments)
    assert code != 0 and why in " ".join(said.replace("│", " ").split())


def test_the_list_shows_steps(gateway: Callable[..., LiveGateway], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "api-tests: write (functional-negative)" in run(gateway(CHAINS), monkeypatch, "list")[1]
