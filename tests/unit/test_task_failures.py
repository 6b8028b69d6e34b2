"""What is tried again and what is not: every error of the tree, what servers say, and Prefect's engine with it."""

from __future__ import annotations

import socket
import urllib.error
from email.message import Message

import httpx
import pytest
from pydantic import BaseModel

from pawl import errors
from tasks.failures import kind_of


def wrapped(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as e:
            raise outer from e
    except Exception as made:
        return made


def status(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://x", code, "", Message(), None)


def answered(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(code, request=request))


def invalid() -> Exception:
    class Model(BaseModel):
        x: int

    try:
        Model(x="y")
    except Exception as e:
        return e
    raise AssertionError


class Registry(Exception):
    """As MLflow's client raises it."""

    def __init__(self, code: int) -> None:
        self._code = code

    def get_http_status_code(self) -> int:
        return self._code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.ServerNotUp("vLLM"), "passing"),
        (errors.StaleWrite("row"), "passing"),
        (errors.ResourceError("memory"), "passing"),
        (status(503), "passing"),
        (status(429), "passing"),
        (status(404), "final"),
        (answered(502), "passing"),
        (answered(422), "final"),
        (httpx.ConnectError("refused"), "passing"),
        (ConnectionResetError(), "passing"),
        (wrapped(errors.PawlError("MLflow refused"), Registry(503)), "passing"),
        (wrapped(errors.PawlError("MLflow refused"), Registry(400)), "final"),
        (wrapped(errors.DataRejected("rows"), status(503)), "final"),
        (errors.PawlError("no such entry"), "final"),
        (errors.ConfigError("fleet.yaml", ["x"]), "final"),
        (errors.DataRejected("rows"), "final"),
        (errors.NotEnoughData("12"), "final"),
        (errors.PolicyViolation("licence"), "final"),
        (errors.TrainingFailed("NaN"), "final"),
        (errors.ApprovalInvalid("code"), "final"),
        (errors.NotAllowed("role"), "final"),
        (errors.ModelFileError("missing"), "final"),
        (errors.SourceError("document"), "final"),
        (errors.LakeError("disk"), "unclear"),
        (OSError(28, "no space"), "unclear"),
        (RuntimeError("?"), "unclear"),
        (TimeoutError("too long"), "unclear"),
        (socket.gaierror(-2, "unknown name"), "unclear"),
        (TypeError("bug"), "final"),
        (invalid(), "final"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_kinds(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


def test_every_error_of_the_tree_has_a_kind() -> None:
    named = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.PawlError)]
    made = [e("where", ["x"]) if e is errors.ConfigError else e("x") for e in named]
    assert {kind_of(e) for e in made} == {"passing", "unclear", "final"} and len(named) > 10
