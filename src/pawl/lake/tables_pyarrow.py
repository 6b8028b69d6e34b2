"""Records as Parquet and back: one schema a table, zstd, dictionaries for what repeats.

Columns are made and read as columns: no record becomes a dict on its way.
"""

from __future__ import annotations

import datetime as dt
import gc
import hashlib
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pawl.lake.records import TABLES as TABLES  # which table a kind of record is in
from pawl.lake.records import Feedback, Interaction, LakeRecord, Observation

Kind = TypeVar("Kind", Interaction, Feedback, Observation)
# JSON text in Parquet: their shape is the client's
NESTED = {"messages", "tool_calls", "task", "detail", "figures", "labels"}
_NUMBERS = {float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
_REPEATING = {
    "record", "agent", "arm", "arm_kind", "role", "endpoint", "rollout", "stage", "reason", "strategy", "complexity",
    "privacy", "consent", "key_id", "finish_reason", "kind", "source", "component", "severity",
}  # fmt: skip
_encoder = msgspec.json.Encoder()


def schema(kind: type) -> pa.Schema:
    """The table's columns. Always the same, so that files of all ages read as one table."""
    return pa.schema([pa.field("record", pa.string()), *(pa.field(c.name, c.type) for c in _columns(kind))])


def partitions(records: Iterable[LakeRecord]) -> dict[tuple[type[LakeRecord], str, str], list[Any]]:
    """Records by (kind, UTC date, agent); each id once, in order of time."""
    found: dict[tuple[type[LakeRecord], str, str], dict[str, Any]] = {}
    for r in records:
        date = dt.datetime.fromtimestamp(r.at, dt.UTC).date().isoformat()
        found.setdefault((type(r), date, r.agent), {})[r.id] = r
    order = sorted(found.items(), key=lambda kv: (kv[0][0].__name__, kv[0][1], kv[0][2]))
    return {key: sorted(rows.values(), key=lambda r: (r.at, r.id)) for key, rows in order}


def write(rows: Sequence[Any], path: Path) -> str:
    """Write records of one kind; returns the digest that names the object."""
    made = table(type(rows[0]), rows)
    columns = [c for c in made.column_names if c in _REPEATING]
    pq.write_table(made, path, compression="zstd", use_dictionary=columns)
    digest = hashlib.sha256()
    for start in range(0, len(rows), 1000):  # not all of it a second time in memory
        digest.update(_encoder.encode_lines(rows[start : start + 1000]))
    return digest.hexdigest()[:16]


def table(kind: type, rows: Sequence[Any]) -> pa.Table:
    """Records of one kind in memory, columns as in the files."""
    arrays = [pa.repeat(pa.scalar(kind.__struct_config__.tag, pa.string()), len(rows))]  # type: ignore[attr-defined]
    for column in _columns(kind):
        values: Any = map(attrgetter(column.name), rows)
        if column.name in NESTED:
            values = (_encoder.encode(v).decode() for v in values)
        arrays.append(pa.array(list(values), column.type))
    return pa.Table.from_arrays(arrays, schema=schema(kind))


def read(kind: type[Kind], path: Path) -> list[Kind]:
    """The records of one file. Columns that older versions lack are filled by defaults; ValueError on foreign ones."""
    make: Any = kind
    fields: tuple[_Column, ...] = _columns(make)
    tag = make.__struct_config__.tag
    known = {"record", *(c.name for c in fields)}.intersection(pq.read_schema(path).names)
    with pq.ParquetFile(path, read_dictionary=sorted(known & _REPEATING)) as file:
        stored = file.read(columns=sorted(known))
    if "record" not in known or {w for c in stored["record"].chunks for w in c.dictionary.to_pylist()} - {tag}:
        raise ValueError(f"it holds other records than {tag}s")
    names: list[str] = []
    values: list[Iterable[Any]] = []
    for column in fields:
        if column.name in known:
            found = column.values(stored[column.name])
            if found is not None:
                names.append(column.name)
                values.append(found)
        elif column.required:
            raise ValueError(f"it has no column {column.name}")
    with _no_collection():
        return [make(**dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]


def columns(path: Path, names: tuple[str, ...], ids: set[str] | None = None) -> list[tuple[Any, ...]]:
    """Those columns of the rows with such an id, or of all; None where an older file lacks one.

    `names` begin with "id"; nested ones are JSON text.
    """
    with pq.ParquetFile(path) as file:
        table = file.read(columns=list(names))
    if ids is not None:
        table = table.filter(pc.is_in(table["id"], pa.array(sorted(ids), pa.string())))
    lists = [table[n].to_numpy().tolist() if n in table.column_names else [None] * len(table) for n in names]
    return list(zip(*lists, strict=True))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing here is garbage: looking for it again and again took two thirds of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Column:
    """One field of a record as a column."""

    def __init__(self, field: msgspec.structs.FieldInfo) -> None:
        self.name, self.required = field.name, field.required
        options = get_args(field.type) if get_origin(field.type) in (Union, types.UnionType) else (field.type,)
        self._nullable = type(None) in options
        literal = next((o for o in options if get_origin(o) is Literal), None)
        self._allowed = set(get_args(literal)) if literal else None
        self._decode = msgspec.json.Decoder(field.type).decode if field.name in NESTED else None
        self.type = pa.string()
        if not self._decode:
            self.type = next((n for t, n in _NUMBERS.items() if t in options), pa.string())
        self._default = field.default if field.default is not msgspec.NODEFAULT else msgspec.NODEFAULT
        if field.default_factory is not msgspec.NODEFAULT:
            self._default = field.default_factory()

    def values(self, stored: pa.ChunkedArray) -> Iterable[Any] | None:
        """What the records hold; None where each has the default. ValueError where no record can hold it."""
        if self._decode is None and not self._nullable and stored.null_count:
            raise ValueError(f"the column {self.name} has rows without a value")
        if pa.types.is_dictionary(stored.type):
            return self._words(stored)
        if stored.type != self.type:
            stored = stored.cast(self.type)
        if self._decode is not None:
            return self._decoded(stored)
        if not self.required and self._is_default(stored):
            return None
        # Arrow's own conversion makes scalars first; numpy's does not, but knows no missing numbers.
        missing = stored.null_count and self.type != pa.string()
        return stored.to_pylist() if missing else stored.to_numpy().tolist()  # type: ignore[no-any-return]

    def _words(self, stored: pa.ChunkedArray) -> Iterable[Any] | None:
        found: list[Any] = []
        for chunk in stored.chunks:
            words = [*chunk.dictionary.to_pylist(), None]
            if self._allowed is not None and not self._allowed.issuperset(words[:-1]):
                raise ValueError(f"the column {self.name} holds other values than {sorted(self._allowed)}")
            places = chunk.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)
            found.extend(map(words.__getitem__, places.tolist()))
        if not self.required and all(word == self._default for word in set(found)):
            return None
        return found

    def _decoded(self, stored: pa.ChunkedArray) -> Iterable[Any] | None:
        if self.required and stored.null_count:
            raise ValueError(f"the column {self.name} has rows without a value")
        assert self._decode is not None
        if self.required:
            return map(self._decode, stored.to_numpy().tolist())
        empty = _encoder.encode(self._default).decode()
        if self._is_default(stored.fill_null(empty), empty):
            return None
        return map(self._decode, stored.fill_null(empty).to_numpy().tolist())

    def _is_default(self, stored: pa.ChunkedArray, value: Any = None) -> bool:
        wanted = self._default if value is None else value
        if wanted is None:
            return bool(stored.null_count == len(stored))
        if stored.null_count:
            return False
        return bool(pc.all(pc.equal(stored, pa.scalar(wanted, stored.type))).as_py())


@cache
def _columns(kind: Any) -> tuple[_Column, ...]:
    return tuple(map(_Column, msgspec.structs.fields(kind)))
