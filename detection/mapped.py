"""Tensors larger than memory: mapped from a safetensors file, let go of block by block, written block by block."""

from __future__ import annotations

import json
import math
import mmap
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

RESIDENT = 2**30
"""Bytes of a tensor from which on `empty` takes a file in place of memory: 1 GiB."""
MAPPED = 2**26
"""Bytes of a tensor from which on `load` maps it in place of reading it: 64 MiB."""
BLOCK = 2**25
"""Bytes that are looked at or written at a time: 32 MiB."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class MappedFile(mmap.mmap):
    """A mapped file that knows its address; it stays for as long as a tensor lies in it."""

    address: int


_MAPS: weakref.WeakSet[MappedFile] = weakref.WeakSet()


def load(path: str | Path) -> dict[str, Tensor]:
    """Open a safetensors file without reading its large tensors.

    Parameters
    ----------
    path : str or Path
        Must not change while a tensor of it is in use.

    Returns
    -------
    dict of str to Tensor
        On the CPU. Those from `MAPPED` bytes on lie in the file and are read where they are looked at, see `release`.
        They are read-only: writing into one ends the process, so clone it first.

    Raises
    ------
    ValueError
        For a file that is no safetensors file, or of a number format without a counterpart here.
    OSError
        Where it cannot be read.
    """
    path = Path(path)
    header, start = _header(path)
    with path.open("rb") as file:
        # a tensor without entries has no bytes to map, and a file without any tensor none at all
        mapped = map_file(file.fileno()) if any(_span(entry)[1] for entry in header.values()) else None
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            known = ", ".join(sorted(_DTYPES))
            raise ValueError(f"{path.name}: tensor {name!r} is {entry['dtype']}: save it as one of {known}")
        offset, size = _span(entry)
        tensors[name] = tensor_in(mapped, start + offset, size, _DTYPES[entry["dtype"]], entry["shape"])
    return tensors


def save(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file block by block, letting go of what is written.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Any devices and layouts.
    path : str or Path
    metadata : mapping of str to str, optional

    Raises
    ------
    ValueError
        For a number format that these files do not hold here, or the name ``__metadata__``, which is theirs.
    """
    if "__metadata__" in tensors:
        raise ValueError("no tensor may be called '__metadata__': give it another name")
    # the widest first, as other writers do: every tensor then starts at a multiple of its numbers' width
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    stop = 0
    for name, tensor in ordered:
        if tensor.dtype not in _NAMES:
            raise ValueError(f"tensor {name!r} is {tensor.dtype}: no safetensors file of ours holds that")
        start, stop = stop, stop + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            for block in blocks(tensor if tensor.dim() else tensor[None]):
                file.write(block.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Make a tensor on the CPU that is to be filled; from `RESIDENT` bytes on it lies in an unnamed temporary file.

    Raises
    ------
    OSError
        Where the folder for temporary files (TMPDIR) has no room for it.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < RESIDENT:
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return tensor_in(map_file(file.fileno(), mmap.ACCESS_WRITE), 0, size, dtype, shape)


def map_file(descriptor: int, access: int = mmap.ACCESS_READ) -> MappedFile:
    """Map an open file that is not empty; it stays mapped for as long as a tensor of `tensor_in` lies in it."""
    mapped = MappedFile(descriptor, 0, access=access)
    mapped.address = _seen(mapped, torch.uint8, 1, 0).data_ptr()
    _MAPS.add(mapped)
    return mapped


def tensor_in(
    mapped: MappedFile | None, offset: int, size: int, dtype: torch.dtype, shape: Sequence[int]
) -> Tensor:
    """Give `size` bytes of a file as a tensor: from `MAPPED` bytes on it lies in the file, else it is read.

    Parameters
    ----------
    mapped : MappedFile, optional
        Left out where there are no bytes.
    offset, size : int
        Bytes; the caller has checked that they lie within the file and are those of the shape.
    dtype : torch.dtype
    shape : sequence of int
    """
    if mapped is None or not size:
        return torch.empty(tuple(shape), dtype=dtype)
    # a start between two numbers is no place for a tensor
    if size < MAPPED or offset % dtype.itemsize:
        return torch.frombuffer(bytearray(mapped[offset : offset + size]), dtype=dtype).view(tuple(shape))
    return _seen(mapped, dtype, size // dtype.itemsize, offset).view(tuple(shape))


def blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the rows of a tensor some at a time, and let go of each block after it was looked at."""
    row = max(1, math.prod(tensor.shape[1:]) * tensor.element_size())
    for block in tensor.split(max(1, BLOCK // row)):
        yield block
        release(block)


def release(tensor: Tensor) -> None:
    """Let go of the memory behind a mapped tensor, which is read again where it is looked at; else do nothing.

    Its pages stay in the system's cache of files, which other programs may claim, and count no more as this process's
    resident memory. What was written into a tensor of `empty` is kept.
    """
    start = tensor.data_ptr() if tensor.device.type == "cpu" else 0
    for mapped in tuple(_MAPS):
        offset = start - mapped.address
        if start and 0 <= offset < len(mapped) and hasattr(mapped, "madvise"):
            page = offset - offset % mmap.PAGESIZE
            stop = min(len(mapped), offset + _extent(tensor))
            mapped.madvise(mmap.MADV_DONTNEED, page, stop - page)


def gather(points: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Rows of a tensor, (N, ...), group after group: in a file where they are too large for memory, see `empty`.

    Parameters
    ----------
    points : Tensor
    groups : sequence of Tensor
        Row numbers, int64.
    """
    if points.device.type != "cpu":
        return points[torch.cat(list(groups))]
    found = empty((sum(len(rows) for rows in groups), *points.shape[1:]), points.dtype)
    stop = 0
    for rows in groups:
        start, stop = stop, stop + len(rows)
        torch.index_select(points, 0, rows, out=found[start:stop])
        release(found[start:stop])
        release(points)
    return found


def is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor lies in a file that this module has mapped."""
    start = tensor.data_ptr() if tensor.device.type == "cpu" else 0
    return any(start and 0 <= start - mapped.address < len(mapped) for mapped in tuple(_MAPS))


def _extent(tensor: Tensor) -> int:
    """Bytes from a tensor's first number to the end of its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size() if tensor.numel() else 0


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """What a file says of its tensors, and where their bytes start."""
    try:
        # checks that header, shapes and offsets belong together and fill the file; reads no tensor
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file, or is damaged: {error}") from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    start, stop = entry["data_offsets"]
    return start, stop - start


def _seen(mapped: MappedFile, dtype: torch.dtype, count: int, offset: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset)
