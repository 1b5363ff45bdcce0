"""Files that are almost guards: bytes changed, or header and document edited, with the checksum mended or not."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -0.5, 1e-300, "", "x", "A" * 10_000, "../../etc/passwd",
    "/dev/zero", "os.system", "\x1b[2J", "\ud800", [], {}, [[]], [1] * 1000, {"_target_": "os.system"},
)  # fmt: skip
"""Values that a document's place is filled with."""


class Parts:
    """A safetensors file taken apart."""

    def __init__(self, raw: bytes) -> None:
        (length,) = struct.unpack("<Q", raw[:8])
        self.header: dict[str, Any] = json.loads(raw[8 : 8 + length])
        self.buffer = bytearray(raw[8 + length :])
        self.metadata = self.header.pop("__metadata__")
        self.document: dict[str, Any] = json.loads(self.metadata["guard"])

    def join(self, rng: random.Random, sign: bool = True, text: str | None = None) -> bytes:
        """Put the file together; `sign` mends the checksum, in code of its own."""
        told = json.dumps(self.document) if text is None else text
        if sign:
            self.metadata = {**self.metadata, "guard": told, "sha256": self._checksum(told)}
        elif text is not None or rng.random() < 0.5:
            self.metadata = {**self.metadata, "guard": told}
        header = json.dumps({"__metadata__": self.metadata, **self.header}).encode(errors="replace")
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + bytes(self.buffer)

    def _checksum(self, told: str) -> str:
        digest = hashlib.sha256(json.dumps(told).encode())
        for name in sorted(self.header):
            entry = self.header[name]
            try:
                begin, end = entry["data_offsets"]
                digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
                digest.update(bytes(self.buffer[begin:end]))
            except (TypeError, KeyError, ValueError):
                pass  # such a header is refused before any sum is taken
        return digest.hexdigest()

    def pick(self, rng: random.Random, dtypes: tuple[str, ...] = tuple(SIZES)) -> str:
        return rng.choice([name for name, entry in self.header.items() if entry["dtype"] in dtypes])

    def span(self, name: str) -> tuple[int, int]:
        begin, end = self.header[name]["data_offsets"]
        return begin, end


def flip(raw: bytes, rng: random.Random, limit: int | None = None) -> bytes:
    """Flip up to 16 bits of the file, or of its first bytes."""
    found = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        found[rng.randrange(min(limit or len(found), len(found)))] ^= 1 << rng.randrange(8)
    return bytes(found)


def flip_header(raw: bytes, rng: random.Random) -> bytes:
    return flip(raw, rng, 8 + struct.unpack("<Q", raw[:8])[0])


def truncate(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.choice((0, 1, 7, 8, 9, rng.randrange(len(raw)), len(raw) - 1))]


def extend(raw: bytes, rng: random.Random) -> bytes:
    return raw + rng.randbytes(rng.choice((1, 8, 4096)))


def overwrite(raw: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(raw)), rng.randrange(1, 4096)
    return raw[:start] + rng.randbytes(length) + raw[start + length :]


def header_length(raw: bytes, rng: random.Random) -> bytes:
    lie = rng.choice((0, 1, 2, len(raw), len(raw) - 8, 2**24, 2**31, 2**63, 2**64 - 1, rng.randrange(2**20)))
    return struct.pack("<Q", lie) + raw[8:]


def foreign(raw: bytes, rng: random.Random) -> bytes:
    """Something else altogether, pickles among it."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, ("touch escaped",)

    return rng.choice(
        (
            b"",
            b"\x00" * 100,
            rng.randbytes(1000),
            pickle.dumps(Evil()),
            b"PK\x03\x04" + rng.randbytes(200),
            raw[8:],
        )
    )


def document_value(raw: bytes, rng: random.Random) -> bytes:
    """A hostile value at some place of the document."""
    parts = Parts(raw)
    places = list(_places(parts.document))
    for _ in range(rng.choice((1, 1, 2))):
        container, key = rng.choice(places)
        if isinstance(container, dict) and rng.random() < 0.15:
            container.pop(key, None)
        elif isinstance(container, dict) and rng.random() < 0.15:
            container[rng.choice(("_target_", "path", "extra"))] = rng.choice(HOSTILE)
        else:
            container[key] = _other(container[key] if key in container or isinstance(key, int) else 0, rng)
    return parts.join(rng, sign=rng.random() < 0.85)


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, value * 2, -value, value * 10**6, value / 3, 8, 1024))
    return rng.choice(HOSTILE)


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key), *_places(inner)]
    return found


def document_text(raw: bytes, rng: random.Random) -> bytes:
    """The document as text, a few characters changed, or an abyss of brackets."""
    parts = Parts(raw)
    told = json.dumps(parts.document)
    place = rng.randrange(len(told))
    told = rng.choice(
        (
            told[:place] + rng.choice('{}[]",:0-e\\NI') + told[place + 1 :],
            told[:place] + told[place + rng.randrange(1, 20) :],
            "[" * 100_000,
            '{"a":' * 50_000,
            told.replace("false", "NaN", 1),
            told[:-1] + ', "schema": 1}',
            "1" * 10_000,
        )
    )
    return parts.join(rng, text=told)


def header_entry(raw: bytes, rng: random.Random) -> bytes:
    """Dtype, shape or offsets of a tensor: lies about sizes, overlaps, doubles."""
    parts = Parts(raw)
    name = parts.pick(rng)
    entry = parts.header[name]
    begin, end = parts.span(name)
    edits: list[Callable[[], Any]] = [
        lambda: entry.update(dtype=rng.choice(("F64", "F32", "I64", "BOOL", "U8", "F8_E4M3", "X", 3, None))),
        lambda: entry.update(shape=rng.choice(([2**40, 2**40], [-1], [2**62], [], [0], [1.5], "x", [1] * 50, None))),
        lambda: entry.update(shape=[math.prod(entry["shape"])]),
        lambda: entry.update(shape=list(reversed(entry["shape"]))),
        lambda: entry.update(data_offsets=rng.choice(([begin, begin], [end, begin], [0, end - begin], [begin, 2**62]))),
        lambda: entry.update(data_offsets=rng.choice(([begin], [], None, [-8, end], [begin + 1, end + 1], ["0", "8"]))),
        lambda: parts.header.update({f"{name}.twin": copy.deepcopy(entry)}),
        lambda: parts.header.update({rng.choice(("clean_scores", "detector.x", "../x", "")): copy.deepcopy(entry)}),
        lambda: parts.header.update({"detector.x": {**entry, "shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}}),
        lambda: parts.header.pop(name),
        lambda: parts.header.update({"another": parts.header.pop(name)}),
        lambda: entry.update(extra=1),
        lambda: parts.header.update({f"t{n}": {**entry, "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}),
    ]  # fmt: skip
    rng.choice(edits)()
    return parts.join(rng, sign=rng.random() < 0.7)


def values(raw: bytes, rng: random.Random) -> bytes:
    """Other numbers in a tensor: NaN, infinity, huge, tiny, wrong classes; the checksum is mended."""
    parts = Parts(raw)
    name = parts.pick(rng, ("F64", "F32", "I64"))
    begin, end = parts.span(name)
    width = SIZES[parts.header[name]["dtype"]]
    form = {"F64": "<d", "F32": "<f", "I64": "<q"}[parts.header[name]["dtype"]]
    choices = (
        (-1, 0, 5, 2**40, 2**63 - 1, -(2**63))
        if form == "<q"
        else (math.nan, math.inf, 1e38, -1e38, 0.0, 1e-40)
    )
    for _ in range(rng.choice((1, 3, 100))):
        if end - begin >= width:
            place = begin + width * rng.randrange((end - begin) // width)
            parts.buffer[place : place + width] = struct.pack(form, rng.choice(choices))
    return parts.join(rng)


def signed_flip(raw: bytes, rng: random.Random) -> bytes:
    """Bits of the tensors, the checksum mended: other weights, kernels or scores."""
    parts = Parts(raw)
    for _ in range(rng.choice((1, 4, 64))):
        parts.buffer[rng.randrange(len(parts.buffer))] ^= 1 << rng.randrange(8)
    return parts.join(rng)


def metadata(raw: bytes, rng: random.Random) -> bytes:
    """The header's metadata: absent, of other types, with more in it; a key of the header twice."""
    parts = Parts(raw)
    told = parts.join(rng, sign=False)
    (length,) = struct.unpack("<Q", told[:8])
    header = json.loads(told[8 : 8 + length])
    kind = rng.randrange(5)
    if kind == 0:
        header.pop("__metadata__")
    elif kind == 1:
        header["__metadata__"] = rng.choice(HOSTILE)
    elif kind == 2:
        header["__metadata__"][rng.choice(("guard", "sha256", "more"))] = rng.choice(HOSTILE)
    content = json.dumps(header)
    if kind == 3:
        content = content[:-1] + f', "clean_scores": {json.dumps(header["clean_scores"])}}}'
    elif kind == 4:
        content = rng.choice(("[" * 200_000, "{}", "[]", "null", '"x"', content[:-1], "\ufeff" + content))
    raw_header = content.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw_header)) + raw_header + bytes(parts.buffer)


UNSIGNED = (flip, flip_header, truncate, extend, overwrite, header_length, foreign, metadata)
"""What must never load as another guard."""
MUTATIONS = (*UNSIGNED, document_value, document_value, document_text, header_entry, values, signed_flip)
