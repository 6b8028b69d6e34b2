"""What a safetensors file holds by its header, and whether an adapter's tensors fit a base model (no framework)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pawl.errors import ModelFileError

PREFIX = "base_model.model."  # what peft puts before the base model's own names
_MOST_HEADER = 25 << 20  # bytes; a 14B model's adapter has about 100 KB
_CHUNK = 8 << 20
_WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# Unsigned view of a float, and its exponent's bits: all of them set means infinite or not a number.
_EXPONENT = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
_EMBEDDING = re.compile(r"(^|\.)(embed\w*|\w*embeddings?|wte|wpe)$")
_PART = re.compile(r"^(?P<layer>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_magnitude_vector)$")


class Tensor(NamedTuple):
    """One entry of a header. `start`, `end`: bytes from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Linear(NamedTuple):
    """A linear layer: its weight has shape (outputs, inputs)."""

    outputs: int
    inputs: int


def header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name, in the file's order.

    ModelFileError where the header is not readable, or does not describe exactly the bytes that are there.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > size - 8:
            raise ModelFileError(f"{path.name} is truncated in its header")
        if length > _MOST_HEADER:
            raise ModelFileError(f"{path.name} has a header of {length / 1e6:.0f} MB; that is no adapter's")
        try:
            found = json.loads(file.read(length))
            entries = {n: _entry(t, 8 + length) for n, t in found.items() if n != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ModelFileError(f"{path.name} has no readable header") from e
    at = 8 + length
    for name, tensor in sorted(entries.items(), key=lambda kv: (kv[1].start, kv[1].end)):
        width = _WIDTH.get(tensor.dtype)
        if tensor.start != at or tensor.end < at:
            raise ModelFileError(f"{path.name}: the bytes of {name} overlap others or leave a gap")
        if width is not None and tensor.end - tensor.start != width * math.prod(tensor.shape):
            raise ModelFileError(f"{path.name}: {name} has not the bytes that its shape {list(tensor.shape)} needs")
        at = tensor.end
    if at != size:
        raise ModelFileError(f"{path.name} has {size} bytes where its header says {at}")
    return entries


def _entry(found: Any, offset: int) -> Tensor:
    start, end = found["data_offsets"]
    shape = tuple(found["shape"])
    if not all(type(n) is int and n >= 0 for n in (start, end, *shape)):
        raise ValueError("not a whole number")
    return Tensor(str(found["dtype"]), shape, offset + start, offset + end)


def linear_layers(base_dir: Path) -> dict[str, Linear]:
    """The base model's linear layers by name, from its weights' headers: two-dimensional weights, embeddings apart.

    A base with quantised weights shows none or few of its layers so. ModelFileError for a header that is broken.
    """
    found: dict[str, Linear] = {}
    for path in sorted(base_dir.glob("*.safetensors")):
        for name, tensor in header(path).items():
            layer = name.removesuffix(".weight")
            if layer != name and len(tensor.shape) == 2 and not _EMBEDDING.search(layer):
                found[layer] = Linear(*tensor.shape)
    return found


def parameters(base_dir: Path) -> int:
    """How many numbers the base model's weights hold. ModelFileError for a header that is broken."""
    return sum(math.prod(t.shape) for p in sorted(base_dir.glob("*.safetensors")) for t in header(p).values())


def layers_of(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names of the layers that an adapter's tensors belong to, as the base model calls them."""
    return {m["layer"].removeprefix(PREFIX) for name in tensors if (m := _PART.match(name))}


def fit_problems(
    tensors: Mapping[str, Tensor],
    linear: Mapping[str, Linear] | None,
    wanted: set[str] | None,
    rank_of: Mapping[str, int],
    rank: int,
    *,
    dora: bool,
) -> list[str]:
    """What does not fit between an adapter's tensors, its config and the base model (pure).

    `linear`: the base's layers, None where it is not at hand. `wanted`: the layers that the config targets, None where
    that is not known. `rank_of`: ranks that differ from `rank`, by the end of a layer's name, the first match counts
    as in peft.
    """
    if not tensors:
        return ["it holds no weights"]
    problems: list[str] = []
    parts: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        match = _PART.match(name)
        if match is None or not name.startswith(PREFIX):
            problems.append(f"{name} is no LoRA weight of a linear layer")
            continue
        layer, part = match["layer"].removeprefix(PREFIX), match["part"]
        parts.setdefault(layer, set()).add(part)
        if tensor.dtype not in _EXPONENT:
            problems.append(f"{name} holds {tensor.dtype}; only F32, F16 and BF16 are taken")
        if part == "lora_magnitude_vector" and not dora:
            problems.append(f"{name} is DoRA's, and the config has no use_dora")
        r = next((n for end, n in rank_of.items() if layer == end or layer.endswith(f".{end}")), rank)
        if linear is not None and layer not in linear:
            problems.append(f"{name}: the base model has no linear layer {layer}")
            continue
        shape = linear[layer] if linear is not None else None
        # Without the base, the rank's side of each shape is still known.
        expected: tuple[int | None, ...] = {
            "lora_A.weight": (r, shape.inputs if shape else None),
            "lora_B.weight": (shape.outputs if shape else None, r),
            "lora_magnitude_vector": (shape.outputs if shape else None,),
        }[part]
        if len(tensor.shape) != len(expected) or any(
            e not in (None, t) for e, t in zip(expected, tensor.shape, strict=True)
        ):
            told = ["any" if e is None else e for e in expected]
            problems.append(f"{name} has shape {list(tensor.shape)} where {told} fits".replace("'any'", "any"))
    needs = {"lora_A.weight", "lora_B.weight"} | ({"lora_magnitude_vector"} if dora else set())
    for layer in sorted(parts.keys() | (wanted or set())):
        lacks = sorted(needs - parts.get(layer, set()))
        if lacks:
            problems.append(f"{layer} lacks {' and '.join(lacks)}")
        elif wanted is not None and layer not in wanted:
            problems.append(f"{layer} has weights, and target_modules does not name it")
    return problems


def not_finite(path: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the float tensors that hold a value which is infinite or not a number. Reads the file once."""
    import numpy as np

    found = []
    with path.open("rb") as file:
        for name, tensor in tensors.items():
            if tensor.dtype not in _EXPONENT:
                continue
            view, exponent = _EXPONENT[tensor.dtype]
            file.seek(tensor.start)
            left = tensor.end - tensor.start
            while left:
                chunk = file.read(min(_CHUNK, left))
                left -= len(chunk)
                bits = np.frombuffer(chunk, view)
                if bool(((bits & exponent) == exponent).any()):
                    found.append(name)
                    break
    return found
