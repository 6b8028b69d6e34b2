"""Records as Parquet and back: one schema a table, zstd, dictionaries for what repeats."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pawl.lake.records import Feedback, Interaction, Record

Kind = TypeVar("Kind", Interaction, Feedback)
TABLES: dict[type, str] = {Interaction: "interactions", Feedback: "feedback"}
NESTED = {"messages", "tool_calls", "task", "detail"}  # JSON text in Parquet: their shape is the client's
_NUMBERS = {float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
_REPEATING = (
    "record", "agent", "arm", "arm_kind", "role", "endpoint", "rollout", "stage", "reason", "strategy", "complexity",
    "privacy", "key_id", "finish_reason", "kind", "source",
)  # fmt: skip


def schema(kind: type) -> pa.Schema:
    """The table's columns. Always the same, so that files of all ages read as one table."""
    fields = [pa.field("record", pa.string())]
    for field in msgspec.structs.fields(kind):
        named = field.type
        options = [named, *getattr(named, "__args__", ())]
        number = next((n for t, n in _NUMBERS.items() if t in options), None)
        fields.append(pa.field(field.name, number if field.name not in NESTED and number else pa.string()))
    return pa.schema(fields)


def partitions(records: Iterable[Record]) -> dict[tuple[type, str, str], list[Any]]:
    """Records by (kind, UTC date, agent); each id once, in order of time."""
    found: dict[tuple[type, str, str], dict[str, Any]] = {}
    for r in records:
        date = dt.datetime.fromtimestamp(r.at, dt.UTC).date().isoformat()
        found.setdefault((type(r), date, r.agent), {})[r.id] = r
    order = sorted(found.items(), key=lambda kv: (kv[0][0].__name__, kv[0][1], kv[0][2]))
    return {key: sorted(rows.values(), key=lambda r: (r.at, r.id)) for key, rows in order}


def write(rows: list[Any], path: Path) -> str:
    """Write records of one kind; returns the digest that names the object."""
    plain = _plain(rows)
    made = schema(type(rows[0]))
    columns = [c for c in _REPEATING if c in made.names]
    pq.write_table(pa.Table.from_pylist(plain, made), path, compression="zstd", use_dictionary=columns)
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()[:16]


def table(kind: type, rows: list[Any]) -> pa.Table:
    """Records of one kind in memory, columns as in the files."""
    return pa.Table.from_pylist(_plain(rows), schema(kind))


def _plain(rows: list[Any]) -> list[dict[str, Any]]:
    return [
        {f: msgspec.json.encode(v).decode() if f in NESTED else v for f, v in msgspec.to_builtins(r).items()}
        for r in rows
    ]


def read(kind: type[Kind], path: Path) -> list[Kind]:
    """The records of one file. Columns that older versions lack are filled by defaults."""
    known = set(kind.__struct_fields__)
    return [
        msgspec.convert(
            {
                f: msgspec.json.decode(v) if f in NESTED else v
                for f, v in row.items()
                if f in known and not (f in NESTED and v is None)
            }
            | {"record": row["record"]},
            kind,
        )
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def columns(path: Path, names: tuple[str, ...], ids: set[str]) -> list[tuple[Any, ...]]:
    """Those columns of the rows with such an id; `names` begin with "id"."""
    table = pq.ParquetFile(path).read(columns=list(names))
    picked = table.filter(pc.is_in(table["id"], pa.array(sorted(ids), pa.string())))
    return list(zip(*(picked[n].to_pylist() for n in names), strict=True))
