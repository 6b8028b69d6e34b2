"""A user's own OpenAPI document, from a real FastAPI app, from YAML, over HTTP, and broken in every way."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Iterator
from enum import StrEnum
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from pawl.errors import SourceError
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative import oracle
from pawl.qe.item import Item
from pawl.qe.operations import openapi_source, sources
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.validator import compiled
from pawl.qe.tasks import task_of


class Colour(StrEnum):
    red = "red"
    blue = "blue"


class Address(BaseModel):
    city: str = Field(min_length=1)
    zip_code: str | None = Field(default=None, pattern=r"^\d{5}$")


class Order(BaseModel):
    amount: int = Field(gt=0, le=10)
    colour: Colour
    address: Address


class Node(BaseModel):
    name: str
    children: list[Node] = []


@pytest.fixture(scope="module")
def fastapi_document() -> dict[str, Any]:
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/orders", tags=["orders"])
    def place(order: Order) -> None: ...

    @app.put("/people/{who}/address", tags=["people"])
    def move(who: str, address: Address) -> None: ...

    @app.post("/trees", tags=["trees"])
    def plant(node: Node) -> None: ...

    @app.get("/orders", tags=["orders"])
    def listed() -> None: ...

    document: dict[str, Any] = app.openapi()
    return document


def write(folder: Path, document: Any, name: str = "api.json") -> str:
    path = folder / name
    path.write_bytes(document if isinstance(document, bytes) else orjson.dumps(document))
    return str(path)


def body(schema: dict[str, Any], **operation: Any) -> dict[str, Any]:
    return {**operation, "requestBody": {"content": {"application/json": {"schema": schema}}}}


SMALL = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n"]}


def test_fastapi_document_gives_its_operations(fastapi_document: dict[str, Any], tmp_path: Path) -> None:
    found = openapi_source.operations(write(tmp_path, fastapi_document))
    assert [(o.source, o.method, o.path) for o in found] == [
        ("orders", "POST", "/orders"),
        ("people", "PUT", "/people/{who}/address"),
    ]  # the tree is recursive, the GET has no body
    order = compiled(found[0].schema)
    good = {"amount": 1, "colour": "red", "address": {"city": "x", "zip_code": None}}
    assert order.is_valid(good)
    for wrong in ({"amount": 0}, {"colour": "pink"}, {"address": {"city": ""}}, {"address": {}}):
        assert not order.is_valid({**good, **wrong})
    assert b"$ref" not in orjson.dumps([o.schema for o in found])


def test_source_spec_reaches_the_document(fastapi_document: dict[str, Any], tmp_path: Path) -> None:
    spec = TaskSourceSpec(kind="openapi", location=write(tmp_path, fastapi_document))
    assert [o.source for o in sources.load(spec)] == ["orders", "people"]
    with pytest.raises(SourceError, match="location"):
        sources.load(TaskSourceSpec(kind="openapi"))


def test_openapi_30_spellings_become_2020_12(tmp_path: Path) -> None:
    text = b"""
openapi: 3.0.3
paths:
  /things:
    post:
      requestBody: {$ref: '#/components/requestBodies/Thing'}
components:
  requestBodies:
    Thing:
      content:
        application/vnd.api+json; charset=utf-8:
          schema:
            allOf:
              - $ref: '#/components/schemas/Base'
              - type: object
                required: [price]
                properties:
                  price: {type: number, minimum: 0, exclusiveMinimum: true}
  schemas:
    Base:
      type: object
      required: [id, note]
      properties:
        id: {type: integer, readOnly: true}
        note: {type: string, nullable: true, enum: [a, b], description: long}
        since: {type: string, enum: [2024-01-01]}
"""
    (op,) = openapi_source.operations(write(tmp_path, text, "api.yaml"))
    assert op.source == "things" and op.schema == {
        "type": "object",
        "properties": {
            "note": {"type": ["string", "null"], "enum": ["a", "b", None]},
            "since": {"type": "string", "enum": ["2024-01-01"]},
            "price": {"type": "number", "exclusiveMinimum": 0},
        },
        "required": ["note", "price"],
    }


def test_untagged_paths_are_told_apart_by_a_deeper_segment(tmp_path: Path) -> None:
    paths = {f"/api/v1/{n}": {"post": body(SMALL)} for n in ("cats", "dogs")}
    found = openapi_source.operations(write(tmp_path, {"openapi": "3.1.0", "paths": paths}))
    assert [o.source for o in found] == ["api-v1-cats", "api-v1-dogs"]


def test_alias_bomb_is_left_out_in_bounded_time(tmp_path: Path) -> None:
    schemas: dict[str, Any] = {"l0": SMALL}
    for n in range(1, 40):
        twice = {"$ref": f"#/components/schemas/l{n - 1}"}
        schemas[f"l{n}"] = {"type": "object", "properties": {"a": twice, "b": twice}}
    paths = {
        "/bomb": {"post": body({"$ref": "#/components/schemas/l39"})},
        "/fine": {"post": body(SMALL)},
    }
    document = {"openapi": "3.1.0", "paths": paths, "components": {"schemas": schemas}}
    assert [o.path for o in openapi_source.operations(write(tmp_path, document))] == ["/fine"]


ODD = {
    "a number that JSON has not": b"minimum: 99999999999999999999999",
    "a type that there is not": b"type: 7",
    "a length that is a word": b"maxLength: x",
    "a length that nothing has": b"minLength: 1000000000000",
    "items without end": b"type: array, minItems: 1000000000000, items: {type: array, minItems: 1000000}",
}


@pytest.mark.parametrize("rule", ODD.values(), ids=ODD)
def test_one_odd_operation_costs_no_other(rule: bytes, tmp_path: Path) -> None:
    form = b"{post: {requestBody: {content: {application/json: {schema: {type: object, required: [n], properties: {n: "
    fine = b"/fine: " + form + b"{type: string}}}}}}}}"
    odd = b"/odd: " + form + b"{" + rule + b"}}}}}}}}"
    location = write(tmp_path, b"openapi: 3.1.0\npaths: {" + fine + b", " + odd + b"}", "api.yaml")
    for name in ("functional-negative", "functional-positive", "spec-analyzer", "test-validator"):
        task = task_of(name)
        items = task.items(TaskSourceSpec(kind="openapi", location=location))
        assert "fine.post-fine" in [i.id for i in items], name
        for item in items:
            task.class_of(item)
            answer = task.reference(item, random.Random(1))
            found = task.grade(item.messages, answer or "", item.truth)
            assert found is not None and (found.score == 1.0 or "odd" in item.id), (name, item.id)


def test_a_clients_prompt_with_rules_that_are_none_has_no_class() -> None:
    for rule in ('"type":7', '"minLength":"x"', '"minLength":1000000000000'):
        text = 'POST /a a.b\n{"type":"object","required":["n"],"properties":{"n":{' + rule + "}}}"
        for name in ("functional-negative", "functional-positive", "spec-analyzer", "test-validator"):
            found = task_of(name).class_of(Item(id="x", source="a", messages=[{"role": "user", "content": text}]))
            assert isinstance(found, str)


def test_a_path_stays_one_word_of_the_prompt(tmp_path: Path) -> None:
    paths = {"/a\nGET /b c\td": {"post": body(SMALL)}}
    (found,) = openapi_source.operations(write(tmp_path, {"openapi": "3.1.0", "paths": paths}))
    assert found.path == "/a%0AGET%20/b%20c%09d" and parsed(oracle.messages(found)).path == found.path


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"{", "neither JSON nor YAML"),
        (b"\xff\xfe\x00", "neither JSON nor YAML"),
        (b"[]", "not an OpenAPI 3 document"),
        ({"swagger": "2.0"}, "Swagger 2.0"),
        ({"paths": {}}, "not an OpenAPI 3 document"),
        ({"openapi": "3.1.0"}, "no operation with a JSON body"),
        ({"openapi": "3.1.0", "paths": {"/a": {"get": {}}}}, "no operation with a JSON body"),
        ({"openapi": "3.1.0", "paths": {"/a": {"post": body({"$ref": "other.yaml#/X"})}}}, "refers outside"),
        ({"openapi": "3.1.0", "paths": {"/a": {"post": body({"$ref": "#/no/where"})}}}, "none of 1"),
        (
            {"openapi": "3.1.0", "paths": {"/a": {"post": body({"properties": {"x" * 500: SMALL}})}}},
            "set max_schema_chars",
        ),
    ],
)
def test_unusable_documents_say_what_is_wrong(document: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=says):
        openapi_source.operations(write(tmp_path, document))


def test_missing_file_and_closed_port_are_source_errors(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        openapi_source.operations(str(tmp_path / "none.yaml"))
    with pytest.raises(SourceError, match="cannot be fetched"):
        openapi_source.operations(f"http://127.0.0.1:{free_port}/openapi.json")


def test_a_huge_file_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(SourceError, match="larger than 32 MiB"):
        openapi_source.operations(str(path))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_document_over_http(web: str, fastapi_document: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, fastapi_document)
    assert len(openapi_source.operations(f"{web}/api.json")) == 2
    with pytest.raises(SourceError, match="404"):
        openapi_source.operations(f"{web}/none.json")
