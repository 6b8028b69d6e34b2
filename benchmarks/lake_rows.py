"""How fast records go into Parquet files and out of them: `python -m benchmarks.lake_rows [--quick] [--json]`.

The peer is the plain way with the same two libraries: each record a dict, `Table.from_pylist` and `to_pylist`, and
msgspec to and from the dicts. Both write files that the other reads. Repeats are interleaved; the ratio is of the
medians of process time (both use one core but for compression), so that a busy machine changes it little.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.claims import Claim, rates, table
from pawl.lake import tables_pyarrow as tables
from pawl.lake.records import Feedback, Interaction

_REPEATS = 5
_LETTERS = "abcdefghij klmnop{}[]"


def interactions(rows: int) -> list[Interaction]:
    """Like a gateway's: two messages of 650 characters, 400 of answer."""
    chance = random.Random(1)
    return [
        Interaction(
            id=f"chatcmpl-{chance.getrandbits(128):032x}", at=1.795e9 + n * 0.8, agent="functional-negative",
            session=f"{chance.getrandbits(64):016x}", key_id=f"key-{n % 7}", arm="functional-negative-v7-3fa9c1d2",
            arm_kind="local" if n % 5 else "cloud", rollout="r1" if n % 3 else None, stage="20" if n % 3 else None,
            messages=[{"role": "system", "content": "You write negative tests " * 10},
                      {"role": "user", "content": "".join(chance.choices(_LETTERS, k=400))}],
            completion="".join(chance.choices(_LETTERS, k=400)), finish_reason="stop", latency_s=chance.random(),
            prompt_tokens=chance.randrange(500), completion_tokens=chance.randrange(300), cost_usd=chance.random(),
            first_token_s=chance.random() if n % 2 else None, task={"id": f"t{n}", "source": f"s{n % 50}"},
        )
        for n in range(rows)
    ]  # fmt: skip


def feedback(about: list[Interaction]) -> list[Feedback]:
    """One outcome each."""
    return [
        Feedback(id=f"{n:032x}", at=i.at + 5, interaction=i.id, agent=i.agent, kind="outcome", score=0.5,
                 detail={"cases": [{"n": n, "ok": True}]})
        for n, i in enumerate(about)
    ]  # fmt: skip


def plain_write(rows: list[Any], path: Path) -> None:
    """The peer."""
    plain = [
        {f: msgspec.json.encode(v).decode() if f in tables.NESTED else v for f, v in msgspec.to_builtins(r).items()}
        for r in rows
    ]
    pq.write_table(pa.Table.from_pylist(plain, tables.schema(type(rows[0]))), path, compression="zstd")
    hashlib.sha256(msgspec.json.encode(plain)).hexdigest()  # the content names the object


def plain_read(kind: type[Any], path: Path) -> list[Any]:
    """The peer."""
    return [
        msgspec.convert({f: msgspec.json.decode(v) if f in tables.NESTED else v for f, v in row.items()}, kind)
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def _seconds(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    """Print one line a claim, or a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 rows instead of 100,000")
    parser.add_argument("--json", action="store_true", help="one JSON object a claim")
    given = parser.parse_args()
    claims = measured(20_000 if given.quick else 100_000)
    if given.json:
        print("\n".join(c.json() for c in claims))
    else:
        Console().print(table(claims))


def measured(rows: int) -> list[Claim]:
    """Writing and reading, of each kind."""
    asked = interactions(rows)
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        for given in (asked, feedback(asked)):
            kind: type[Any] = type(given[0])
            tables.write(given, path)
            if plain_read(kind, path) != given or tables.read(kind, path) != given:
                raise SystemExit("what was written is not what is read")
            steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "write": (lambda g=given: tables.write(g, path), lambda g=given: plain_write(g, path)),  # type: ignore[misc]
                "read": (lambda k=kind: tables.read(k, path), lambda k=kind: plain_read(k, path)),  # type: ignore[misc]
            }
            for name, (ours, plain) in steps.items():
                pairs = [(rows / _seconds(ours), rows / _seconds(plain)) for _ in range(_REPEATS)]
                claims.append(rates(f"{name} {tables.TABLES[kind]}", pairs, unit="rows/s"))
    return claims


if __name__ == "__main__":
    main()
