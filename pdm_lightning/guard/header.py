"""What the header of a safetensors file says: strict JSON, and tensors that fill the file without gap or overlap."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pdm_lightning.guard.checks import GuardFileError, one_of, record, text

MAX_TENSORS = 20_000
MAX_NUMBERS = 2**48
"""Of a tensor, and of an empty one's other sides: strides beyond 2^63 make PyTorch raise errors of its own."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Spec(NamedTuple):
    """What the header says of one tensor: dtype as safetensors names it, shape, first byte and the one after."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_json(raw: bytes | str, where: str) -> Any:
    """Read strict JSON: UTF-8, no key twice, no NaN or infinity, no abyss of brackets; `GuardFileError` otherwise."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise GuardFileError(f"{where}: a key stands there twice")
        return found

    def refuse(word: str) -> Any:
        raise GuardFileError(f"{where}: {word} is no JSON")

    try:
        content = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        return json.loads(content, object_pairs_hook=once, parse_constant=refuse)
    except GuardFileError:
        raise
    except (ValueError, RecursionError):
        raise GuardFileError(f"{where}: this is no JSON") from None


def read_specs(header: Mapping[str, Any], size: int) -> dict[str, Spec]:
    """Read the tensors of a header.

    Parameters
    ----------
    header : mapping
        By name: dtype, shape and data_offsets.
    size : int
        Bytes that the tensors have to fill, without a gap or an overlap.

    Raises
    ------
    GuardFileError
        Where they do not.
    """
    if len(header) > MAX_TENSORS:
        raise GuardFileError(f"{len(header)} tensors, {MAX_TENSORS} allowed")
    specs = {name: _spec(name, entry) for name, entry in header.items()}
    place = 0
    for name, spec in sorted(specs.items(), key=lambda item: item[1][2:]):
        if spec.begin != place:
            raise GuardFileError(f"tensor {name[:60]!r} overlaps another one, or leaves a gap")
        place = spec.end
    if place != size:
        raise GuardFileError(
            f"the tensors take {place} bytes and the file has {size}: it is cut short, or too long"
        )
    return specs


_ENTRY = record(
    dtype=one_of(DTYPES),
    shape=lambda value, where: _numbers(value, where, 8),
    data_offsets=lambda v, w: _numbers(v, w, 2),
)


def _spec(name: str, entry: Any) -> Spec:
    where = f"tensor {text()(name, 'name of a tensor')!r}"
    told = _ENTRY(entry, where)
    spec = Spec(told["dtype"], tuple(told["shape"]), *_pair(told["data_offsets"], where))
    if math.prod(max(side, 1) for side in spec.shape) > MAX_NUMBERS:
        raise GuardFileError(f"{where}: the sides of its shape are too long")
    width = DTYPES[spec.dtype].itemsize
    if spec.end - spec.begin != math.prod(spec.shape) * width or spec.begin % width:
        raise GuardFileError(f"{where}: its shape and its place in the file do not belong together")
    return spec


def _pair(values: list[int], where: str) -> tuple[int, int]:
    if len(values) != 2:
        raise GuardFileError(f"{where}: two offsets needed")
    return values[0], values[1]


def _numbers(value: Any, where: str, limit: int) -> list[int]:
    plain = (
        isinstance(value, list)
        and len(value) <= limit
        and all(type(n) is int and 0 <= n < 2**48 for n in value)
    )
    if not plain:
        raise GuardFileError(f"{where}: at most {limit} whole numbers from 0 on needed")
    return list(value)
