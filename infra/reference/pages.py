"""The text of each reference page (pure but for what it imports)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from infra.reference.schema_table import escaped, kind_of, tables

_MADE = "Written by `python -m infra.reference` from the code; a test fails where it is not current.\n"

# What is no JSON, and so not in the OpenAPI document.
_BESIDE = (
    "Beside them: `POST /v1/files` (multipart form: `file`, `purpose=batch`) and `GET /v1/files/{id}/content` for "
    "batches, `GET /metrics` for Prometheus, and `POST /control/mlflow`, where MLflow delivers its signed webhook.",
)


def pages() -> dict[str, str]:
    """File name in docs/reference/ -> its Markdown."""
    return {"cli.md": _cli(), "settings.md": _settings(), "fleet.md": _fleet(), "api.md": _api()}


def _cli() -> str:
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from pawl.cli import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=Context(command, info_name="pawl"), name="pawl", title="Commands")
    # An option that everything has says nothing.
    text = re.sub(r"\n\*\*Options\*\*:\n\n\* `--help`: Show this message and exit\.\n", "", text)
    text = text.replace("* `--help`: Show this message and exit.\n", "")
    head, rest = text.split("\n", 1)
    return f"{head}\n\n{_MADE}{rest}".rstrip() + "\n"


def _settings() -> str:
    from pawl.settings import Settings

    lines = ["# Settings of a machine", "", _MADE]
    lines.append(f"{_prose(Settings)} An unknown one is not an error.\n")
    schema = Settings.model_json_schema()
    rows = list(tables({**schema, "description": ""}))
    lines += [re.sub(r"^\| `(\w+)`", lambda m: f"| `PAWL_{m[1].upper()}`", row) for row in rows]
    return "\n".join(lines) + "\n"


def _fleet() -> str:
    from pawl.fleet.spec import FleetSpec

    lines = ["# fleet.yaml", "", _MADE]
    lines.append(f"{_prose(FleetSpec)} `pawl fleet check` names every problem with its line.\n")
    return "\n".join([*lines, *tables(FleetSpec.model_json_schema())]) + "\n"


def _api() -> str:
    from pawl.gateway.api.openapi import document

    described = document(["AGENT"])
    lines = ["# The gateway's API", "", _MADE]
    lines.append(
        "Served by every gateway at `GET /openapi.json`, with the agents' names. Fields of OpenAI's API that are not "
        "named here pass through to the upstream.\n"
    )
    lines += ["| call | what it does | body (`?`: may be left out) | headers |", "|---|---|---|---|"]
    failures: dict[str, str] = {}
    for path, operations in described["paths"].items():
        for method, one in operations.items():
            lines.append(_call(path, method, one))
            failures |= {status: answer["description"] for status, answer in one["responses"].items()}
    lines += ["", *_BESIDE, "", "| status | when |", "|---|---|"]
    return "\n".join([*lines, *(f"| {status} | {escaped(told)} |" for status, told in failures.items())]) + "\n"


def _call(path: str, method: str, operation: Mapping[str, Any]) -> str:
    headers = "<br>".join(
        f"`{p['name']}`: {escaped(p['description'])}" for p in operation["parameters"] if p["in"] == "header"
    )
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return f"| `{method.upper()} {path}` | {escaped(operation['summary'])} | {_fields(schema)} | {headers} |"


def _fields(schema: Mapping[str, Any]) -> str:
    if several := schema.get("oneOf"):
        return "<br>or: ".join(_fields(one) for one in several)
    if schema.get("type") == "array":
        return f"a list of such, at most {schema['maxItems']}"
    needed = schema.get("required", ())
    return "<br>".join(
        f"`{name}{'' if name in needed else '?'}`: {escaped(kind_of(field, []))}"
        for name, field in schema.get("properties", {}).items()
    )


def _prose(of: type) -> str:
    return " ".join((inspect.getdoc(of) or "").split())
