"""The file itself: a safetensors file whose header is checked before anything is allocated. Never a pickle.

The header says how many bytes, which tensors and where. All of that is compared with the size of the file first; the
metadata hold the guard's document (JSON) and a SHA-256 of document and tensors. That sum shows damage; it is no
signature: whoever changes a file on purpose can write a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detection.mapped import MappedFile, blocks, map_file, release, tensor_in
from pdm_lightning.durable import replacing
from pdm_lightning.guard.checks import GuardFileError, record, text
from pdm_lightning.guard.header import DTYPES, Spec, parse_json, read_specs

MAX_HEADER = 16 * 2**20
"""Bytes of a header."""
MAX_BYTES = 16 * 2**30
"""Bytes of a file, unless the caller allows more."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CHUNK = 2**24
_METADATA = record(guard=text(MAX_HEADER), sha256=text(64))


class Container:
    """An open guard file: its document, and its tensors one by one. A context manager.

    Parameters
    ----------
    path : Path
        Of a regular file.
    max_bytes : int
        A larger file is refused.

    Raises
    ------
    GuardFileError
        For a file that is no safetensors file, lies about its sizes, is too large or has no guard's metadata.
    FileNotFoundError
        Where there is none.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        # a pipe would wait for its writer for ever
        self._descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        try:
            self._read_header(max_bytes)
        except BaseException as error:
            self.close()
            if isinstance(error, GuardFileError):
                raise GuardFileError(f"{path}: {error}") from None
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was mapped stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_header(self, max_bytes: int) -> None:
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise GuardFileError("this is no regular file: give a file that pdml fit or Guard.save wrote")
        if found.st_size > max_bytes:
            raise GuardFileError(
                f"{found.st_size} bytes, {max_bytes} allowed: raise max_bytes if you trust it"
            )
        start = self._bytes(0, min(8, found.st_size))
        if start.startswith((b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
            raise GuardFileError(
                "this is a pickle, which could run code, and is not opened: fit the guard again"
            )
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, found.st_size - 8):
            raise GuardFileError("this is no safetensors file, or it is cut short")
        self._start, self._size = 8 + length, found.st_size - 8 - length
        header = parse_json(self._bytes(8, length), "header")
        told = header.get("__metadata__") if isinstance(header, dict) else None
        if told is None or (isinstance(told, dict) and "guard" not in told):
            raise GuardFileError(
                "the header tells of no guard: this is no guard (a file of weights, perhaps)"
            )
        metadata = _METADATA(header.pop("__metadata__"), "metadata")
        self.document, self.sha256 = metadata["guard"], metadata["sha256"]
        self.specs = read_specs(header, self._size)

    def _bytes(self, start: int, length: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(self._descriptor, min(length, _CHUNK), start)
            if not part:
                raise GuardFileError("the file is cut short")
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    def tensors(self) -> dict[str, Tensor]:
        """Read all tensors; large ones lie in the file, and are read-only, see `detection.mapped.load`.

        Raises
        ------
        GuardFileError
            Where the content is not what the SHA-256 says, or a float is not finite.
        """
        digest, found, mapped = _digest(self.document), {}, map_file(self._descriptor)
        for name in sorted(self.specs):
            spec = self.specs[name]
            tensor = self._tensor(mapped, spec)
            _add(digest, name, spec.dtype, spec.shape, tensor)
            found[name] = tensor
        if digest.hexdigest() != self.sha256:
            raise GuardFileError(
                f"{self.path}: the file is damaged (its SHA-256 differs): copy or fit it again"
            )
        for name, tensor in found.items():
            if tensor.dtype == torch.uint8 and self.specs[name].dtype == "BOOL":
                if bool((tensor > 1).any()):
                    raise GuardFileError(f"{self.path}: tensor {name!r} has a truth value other than 0 and 1")
                found[name] = tensor.bool()
            elif not finite(tensor):
                raise GuardFileError(f"{self.path}: tensor {name!r} has values that are not finite")
        return found

    def _tensor(self, mapped: MappedFile, spec: Spec) -> Tensor:
        dtype = torch.uint8 if spec.dtype == "BOOL" else DTYPES[spec.dtype]
        return tensor_in(mapped, self._start + spec.begin, spec.end - spec.begin, dtype, spec.shape)


def write(path: Path, document: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a guard file in one step: it is there whole, and on the disk, or not at all.

    Parameters
    ----------
    path : Path
    document : str
        The guard's JSON.
    tensors : mapping of str to Tensor
        Of the dtypes in `DTYPES`.

    Raises
    ------
    ValueError
        For a tensor of another dtype.
    OSError
        Where the file cannot be written.
    """
    # the widest first, so that each begins at a multiple of its width
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    digest, header, place = _digest(document), dict[str, Any](), 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise ValueError(
                f"tensor {name!r} is {tensor.dtype}: a guard file holds {', '.join(_NAMES.values())}"
            )
        end = place + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, end],
        }
        place = end
    for name in sorted(tensors):
        _add(digest, name, _NAMES[tensors[name].dtype], tensors[name].shape, tensors[name])
    metadata = {"guard": document, "sha256": digest.hexdigest()}
    told = json.dumps({"__metadata__": metadata, **header}).encode()
    told += b" " * (-len(told) % 8)
    with replacing(path, keep=False) as new, new.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        for name in order:
            for part in _bytes_of(tensors[name]):
                file.write(part)


def finite(tensor: Tensor) -> bool:
    """Whether no float of a tensor is NaN or infinite; needs no memory for a mask."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    limits = (part.aminmax() for part in blocks(tensor.reshape(-1)))
    return all(bool(torch.isfinite(low)) and bool(torch.isfinite(high)) for low, high in limits)


def _digest(document: str) -> Any:
    digest = hashlib.sha256()
    digest.update(json.dumps(document).encode())
    return digest


def _add(digest: Any, name: str, dtype: str, shape: Iterable[int], tensor: Tensor) -> None:
    """Add a tensor to a digest: what it is called and is, and its bytes."""
    digest.update(json.dumps([name, dtype, list(shape)]).encode())
    for part in _bytes_of(tensor):
        digest.update(part)


def _bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, little by little: one that is mapped from a file need not fit into memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    step = _CHUNK // tensor.dtype.itemsize
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        yield memoryview(part.view(torch.uint8).numpy())  # type: ignore[arg-type]
        release(part)
