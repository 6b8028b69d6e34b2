"""Calls that other tools traced: OpenAI-style logs, Langfuse, LangSmith and MLflow exports (JSON, or JSON lines)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from pawl.importers.imported import Problem, Reject, Rows, Target, feedback, interaction, messages_of, moment, text_of
from pawl.importers.json_rows import Row, rows
from pawl.lake.records import Interaction, LakeRecord


def openai_log(path: Path, target: Target) -> Rows:
    """Lines with `request` and `response` (or `body`), or the two in one object; times in `created`."""

    def read(row: Row) -> list[LakeRecord]:
        request = _dict(row.get("request") or row.get("body") or row)
        answer = _dict(row.get("response") or row)
        answer = _dict(answer.get("body") or answer)
        usage = _dict(answer.get("usage"))
        choice = _dict((answer.get("choices") or [{}])[0])
        made = {
            "id": answer.get("id"),
            "at": moment(answer.get("created") or row.get("timestamp") or row.get("created_at")),
            "model": answer.get("model") or request.get("model"),
            "messages": messages_of(request),
            "completion": text_of(choice.get("message") or choice.get("text") or row.get("completion")),
            "finish_reason": choice.get("finish_reason"),
            "session": request.get("user"),
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "task": request.get("metadata"),
        }
        return [interaction(target, "openai", made)]

    return _read(path, read)


def langfuse(path: Path, target: Target) -> Rows:
    """Observations of type GENERATION; scores with a value of 0 to 1 become feedback."""

    def read(row: Row) -> list[LakeRecord]:
        if str(row.get("type", "GENERATION")).upper() != "GENERATION":
            raise Problem(f"an observation of type {row['type']}, not GENERATION")
        at = moment(row.get("startTime") or row.get("timestamp"))
        usage = _dict(row.get("usage") or row.get("usageDetails"))
        end = row.get("endTime")
        made = interaction(
            target,
            "langfuse",
            {
                "id": row.get("id"),
                "at": at,
                "model": row.get("model"),
                "messages": messages_of(row.get("input")),
                "completion": text_of(row.get("output")),
                "session": row.get("sessionId") or row.get("userId") or row.get("traceId"),
                "prompt_tokens": usage.get("input") or usage.get("promptTokens"),
                "completion_tokens": usage.get("output") or usage.get("completionTokens"),
                "cost_usd": row.get("calculatedTotalCost") or row.get("totalCost"),
                "latency_s": moment(end) - at if end else 0.0,
                "task": row.get("metadata"),
            },
        )
        return [made, *_ratings(target, "langfuse", made, row.get("scores"), "value", "name", row.get("startTime"))]

    return _read(path, read)


def langsmith(path: Path, target: Target) -> Rows:
    """Runs of type llm; feedback with a score of 0 to 1 comes along."""

    def read(row: Row) -> list[LakeRecord]:
        if row.get("run_type") not in (None, "llm"):
            raise Problem(f"a run of type {row['run_type']}, not llm")
        if row.get("error"):
            raise Problem("the run ended in an error")
        at = moment(row.get("start_time"))
        extra = _dict(_dict(row.get("extra")).get("metadata"))
        made = interaction(
            target,
            "langsmith",
            {
                "id": row.get("id"),
                "at": at,
                "model": extra.get("ls_model_name") or row.get("name"),
                "messages": messages_of(row.get("inputs")),
                "completion": text_of(row.get("outputs")),
                "session": row.get("thread_id") or row.get("session_id") or row.get("trace_id"),
                "prompt_tokens": row.get("prompt_tokens"),
                "completion_tokens": row.get("completion_tokens"),
                "cost_usd": row.get("total_cost"),
                "latency_s": moment(row["end_time"]) - at if row.get("end_time") else 0.0,
            },
        )
        return [made, *_ratings(target, "langsmith", made, row.get("feedback"), "score", "key", row.get("start_time"))]

    return _read(path, read)


def mlflow_traces(path: Path, target: Target) -> Rows:
    """Traces as MLflow exports them: the root span's inputs and outputs; assessments become feedback."""

    def read(row: Row) -> list[LakeRecord]:
        info, data = _dict(row.get("info") or row), _dict(row.get("data"))
        spans = [s for s in data.get("spans") or () if isinstance(s, dict)]
        root = next((s for s in spans if not s.get("parent_span_id") and not s.get("parent_id")), {})
        attributes = _dict(root.get("attributes"))
        asked = _json(row.get("request") or data.get("request") or attributes.get("mlflow.spanInputs"))
        said = _json(row.get("response") or data.get("response") or attributes.get("mlflow.spanOutputs"))
        at = moment(info.get("request_time") or info.get("timestamp_ms"))
        took = info.get("execution_time_ms") or info.get("execution_duration_ms")
        identity = info.get("trace_id") or info.get("request_id")
        made = interaction(
            target,
            "mlflow",
            {
                "id": identity,
                "at": at,
                "model": _dict(asked).get("model"),
                "messages": messages_of(asked),
                "completion": text_of(said),
                "session": _dict(info.get("trace_metadata")).get("mlflow.trace.session"),
                "latency_s": took / 1000 if isinstance(took, int | float) else 0.0,
            },
        )
        found: list[LakeRecord] = [made]
        for given in info.get("assessments") or ():
            value = _dict(_dict(given).get("feedback")).get("value")
            value = 1.0 if value is True else 0.0 if value is False else value
            if isinstance(value, int | float):
                when = moment(given.get("create_time") or at)
                found.append(
                    feedback(
                        target, "mlflow", made.id, made.agent, when, kind="rating", score=float(value),
                        detail={"name": given.get("assessment_name") or given.get("name")},
                    )
                )  # fmt: skip
        return found

    return _read(path, read)


def _ratings(
    target: Target, source: str, made: Interaction, given: Any, value: str, name: str, otherwise: Any
) -> list[LakeRecord]:
    """Feedback from a call's scores, by the fields of value and name; `otherwise`: when, of one that does not say."""
    found: list[LakeRecord] = []
    for row in given or ():
        score = _dict(row).get(value)
        if isinstance(score, int | float):
            when = moment(row.get("timestamp") or row.get("createdAt") or row.get("created_at") or otherwise)
            detail = {"name": row.get(name), "comment": row.get("comment")}
            found.append(
                feedback(target, source, made.id, made.agent, when, kind="rating", score=float(score), detail=detail)
            )
    return found


def _read(path: Path, one: Callable[[Row], list[LakeRecord]]) -> Rows:
    for n, row in rows(path, ("data", "traces")):
        if isinstance(row, Reject):
            yield row
            continue
        try:
            yield one(row)
        except Problem as e:
            yield Reject(n, str(e))
        except (AttributeError, IndexError, KeyError, TypeError) as e:  # another shape than any export has
            yield Reject(n, f"not understood ({type(e).__name__}: {e})")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value
