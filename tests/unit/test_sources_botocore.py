"""The real service models, and the grader's round trip over every task they give."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import orjson
import pytest

from pawl.errors import SourceError
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative.oracle import messages
from pawl.qe.operations import botocore_source, sources
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.validator import compiled


@pytest.fixture(scope="module")
def operations() -> list[Operation]:
    return sources.load(TaskSourceSpec())


def test_thousands_of_small_distinct_tasks(operations: list[Operation]) -> None:
    assert len(operations) > 4000 and len({o.source for o in operations}) > 300
    assert [o.id for o in operations] == sorted({o.id for o in operations})
    encoded = [orjson.dumps(o.schema).decode() for o in operations]
    assert max(map(len, encoded)) <= 400
    assert len(set(encoded)) == len(encoded), "services that share a shape must not share a task"
    assert {len(o.schema["properties"]) for o in operations} == {2, 3, 4, 5, 6}


def test_prompt_tells_the_whole_task(operations: list[Operation]) -> None:
    for op in operations:
        assert parsed(messages(op)) == op


def test_every_schema_compiles(operations: list[Operation]) -> None:
    for op in operations[::10]:
        compiled(op.schema)


def test_known_operations(operations: list[Operation]) -> None:
    by_id = {o.id: o for o in operations}
    tag = by_id["kms.TagResource"]
    assert (tag.method, tag.path, tag.source) == ("POST", "/", "kms")
    schema = compiled(tag.schema)
    assert schema.is_valid({"KeyId": "k", "Tags": [{"TagKey": "a", "TagValue": ""}]})
    for wrong in ({"KeyId": ""}, {"Tags": [{"TagKey": "a"}]}, {"Tags": "a"}, {"KeyId": None}):
        assert not schema.is_valid({"KeyId": "k", "Tags": [], **wrong})
    rotation = compiled(by_id["kms.EnableKeyRotation"].schema)
    assert rotation.is_valid({"KeyId": "k", "RotationPeriodInDays": 90})
    assert not rotation.is_valid({"KeyId": "k", "RotationPeriodInDays": 89})
    export = compiled(by_id["acm.ExportCertificate"].schema)
    assert export.is_valid({"CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/1", "Passphrase": "x"})
    assert not export.is_valid({"CertificateArn": "arn:aws:s3:us-east-1:123456789012:x/1", "Passphrase": "x"})


def test_reading_all_models_is_quick() -> None:
    started = time.process_time()
    botocore_source.operations(400)
    assert time.process_time() - started < 8  # about 1 s on a quiet core


def model(folder: Path, shapes: dict[str, object]) -> Path:
    place = folder / "tiny.svc" / "2020-01-01"
    place.mkdir(parents=True)
    operation = {"http": {"method": "POST", "requestUri": "/"}, "input": {"shape": "In"}}
    data = {"operations": {"Do": operation}, "shapes": shapes}
    (place / "service-2.json.gz").write_bytes(gzip.compress(orjson.dumps(data)))
    return folder


def member(name: str) -> dict[str, str]:
    return {"shape": name}


def test_patterns_the_validator_reads_otherwise_are_dropped(tmp_path: Path) -> None:
    shapes: dict[str, object] = {
        "In": {"type": "structure", "members": {"a": member("Java"), "b": member("Bad"), "c": member("Good")}},
        "Java": {"type": "string", "pattern": "[a-z&&[^b]]+"},
        "Bad": {"type": "string", "pattern": "("},
        "Good": {"type": "string", "pattern": "^x$"},
    }
    (op,) = botocore_source.operations(400, data=model(tmp_path, shapes))
    patterns = {k: v.get("pattern") for k, v in op.schema["properties"].items()}
    assert op.source == "tiny-svc" and patterns == {"a": None, "b": None, "c": "^x$"}


def test_recursive_inputs_are_left_out(tmp_path: Path) -> None:
    shapes: dict[str, object] = {
        "In": {"type": "structure", "members": {"a": member("In"), "b": member("S")}},
        "S": {"type": "string"},
    }
    with pytest.raises(SourceError, match="raise max_schema_chars"):
        botocore_source.operations(400, data=model(tmp_path, shapes))


def test_unreadable_models_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a folder"):
        botocore_source.operations(400, data=tmp_path / "none")
    place = tmp_path / "x" / "2020-01-01"
    place.mkdir(parents=True)
    (place / "service-2.json.gz").write_bytes(b"cut")
    with pytest.raises(SourceError, match="cannot be read"):
        botocore_source.operations(400, data=tmp_path)
