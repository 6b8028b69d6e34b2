"""Traffic for the data benchmark: recorded interactions and feedback of an agent, written into a lake of its own.

Prompts are made from the operations of botocore's service models. As in real traffic most are asked again and again
(Zipf), some with a changed number or date, some hold personal data and keys, and three of ten get feedback.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pawl.fleet.spec import TaskSourceSpec
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.qe.operations import sources

AGENT = "api-tests"
DAYS = 30
BEGIN = 1_790_000_000.0
FEEDBACK_SHARE = 0.3
_CONTEXT = (
    "the nightly suite failed on this endpoint after the last deployment and nobody has looked at it yet",
    "two customers reported that a wrong body was accepted where the documentation says that it must be refused",
    "coverage of this operation is below the threshold that the team agreed on for the release",
    "the schema changed in the last sprint and the tests that exist were written against the version before",
    "a reviewer asked for cases at the borders of every numeric field and for each of the listed values",
    "the contract with the consumer names this operation and its errors one by one",
    "we saw timeouts when the payload was large so keep what you send small",
    "the team that owns the service wants to know which of the rules are enforced by the gateway already",
)
_FIELDS = (
    "amount",
    "currency",
    "reference",
    "due",
    "retries",
    "owner",
    "region",
    "priority",
    "label",
    "window",
    "quota",
)


class Amounts(NamedTuple):
    """What was written."""

    interactions: int
    feedback: int
    characters: int


def write(lake: ParquetLake, interactions: int, seed: int = 7) -> Amounts:
    """Fill the lake, a day at a time."""
    rng = random.Random(seed)
    operations = sources.load(TaskSourceSpec(max_schema_chars=400))
    distinct = max(200, interactions // 6)
    told = characters = 0
    for day, amount in enumerate(_days(interactions)):
        rows: list[Interaction | Feedback] = []
        for n in range(amount):
            number = int(distinct * rng.random() ** 2.2)
            at = BEGIN + day * 86_400 + 86_400 * n / amount
            i = _interaction(rng, operations, number, f"{day:02}-{n:06}", at)
            rows.append(i)
            characters += len(i.completion) + sum(len(m["content"]) for m in i.messages)
            if rng.random() < FEEDBACK_SHARE:
                said = _feedback(rng, i)
                told += len(said)
                rows += said
        lake.add(rows)
    return Amounts(interactions, told, characters)


def _days(interactions: int) -> Iterator[int]:
    for day in range(DAYS):
        yield interactions * (day + 1) // DAYS - interactions * day // DAYS


def _interaction(rng: random.Random, operations: list, number: int, name: str, at: float) -> Interaction:  # type: ignore[type-arg]
    mine = random.Random(number)  # the same number asks the same
    op = operations[mine.randrange(len(operations))]
    prompt = _prompt(mine, op, number)
    if rng.random() < 0.15:  # nearly the same again
        prompt += f" Ticket {rng.randrange(10_000)}."
    if rng.random() < 0.1:
        prompt += rng.choice(
            (
                f" Ask {rng.choice(('Ann', 'Peter', 'Maria'))} Keller at u{rng.randrange(999)}@corp{number % 50}.com.",
                f" Call +49 30 {rng.randrange(1_000_000, 9_999_999)} when it fails.",
                f" The host is 10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}.",
                f" Use Authorization: Bearer {rng.getrandbits(160):040x}.",
            )
        )
    cloud = rng.random() < 0.6
    return Interaction(
        id=f"chatcmpl-{name}",
        at=at,
        agent=AGENT,
        session=f"s{rng.randrange(50_000)}",
        key_id="bench",
        arm="cloud" if cloud else "champion",
        arm_kind="cloud" if cloud else "local",
        reason="split",
        messages=[{"role": "system", "content": "Write test cases."}, {"role": "user", "content": prompt}],
        completion=_completion(mine if rng.random() < 0.7 else rng, op.id),
        finish_reason="stop",
        status=200 if rng.random() < 0.99 else 503,
        prompt_tokens=260,
        completion_tokens=90,
        cost_usd=0.001 if cloud else 0.0,
        latency_s=rng.lognormvariate(0, 0.5),
        task={"source": op.source},
    )


def _prompt(mine: random.Random, op, number: int) -> str:  # type: ignore[no-untyped-def]
    schema = msgspec.json.encode(op.schema).decode()
    fields = mine.sample(_FIELDS, 4)
    asked = " ".join(f"The field {f}{number % 997} must be between {mine.randrange(50)} and {mine.randrange(50, 999)}."
                     for f in fields)  # fmt: skip
    why = " and ".join(mine.sample(_CONTEXT, 2))
    return f"{op.method} {op.path} {op.id}: {why}. {asked} Request {number}.\n{schema}"


def _completion(rng: random.Random, name: str) -> str:
    cases = [
        {
            "name": f"case {rng.randrange(1000)}",
            "payload": {f: rng.randrange(9_999) for f in rng.sample(_FIELDS, 3)},
            "expected_status": 400,
        }
        for _ in range(3)
    ]
    return msgspec.json.encode({"operation": name, "test_cases": cases}).decode()


def _feedback(rng: random.Random, i: Interaction) -> list[Feedback]:
    good = rng.random() < (0.85 if i.arm_kind == "cloud" else 0.6)
    late = rng.expovariate(1 / 3600) if rng.random() < 0.9 else rng.uniform(86_400, 5 * 86_400)
    kind = "outcome" if rng.random() < 0.8 else "rating"
    said = [Feedback(id=f"f-{i.id}", at=i.at + late, interaction=i.id, agent=AGENT, kind=kind, score=float(good))]
    if rng.random() < 0.03:  # changed their mind
        said.append(msgspec.structs.replace(said[0], id=f"g-{i.id}", at=said[0].at + 60, score=float(not good)))
    return said


def folder_of(root: Path) -> ParquetLake:
    """The lake under a folder, as `PAWL_HOME` has it."""
    return ParquetLake(root / "lake", root / "journal")
