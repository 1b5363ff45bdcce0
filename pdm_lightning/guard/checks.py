"""Values from a stranger's JSON: each is of the kind and in the range that is asked for, or refused in one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any, str], Any]
"""Takes a value and where it stands, and gives the value back, or raises `GuardFileError`."""


class GuardFileError(ValueError):
    """A file that is no guard, is damaged, or asks for what a file may not ask for."""


def record(**fields: Check) -> Check:
    """Check an object with these keys, all of them and no other."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise GuardFileError(f"{where}: an object needed, not {_shown(value)}")
        odd = sorted(fields.keys() ^ value.keys())
        if odd:
            what = "is missing" if odd[0] in fields else "is unknown"
            raise GuardFileError(f"{where}: key {_shown(odd[0])} {what}")
        return {key: one(value[key], f"{where}.{key}") for key, one in fields.items()}

    return check


def text(limit: int = 200) -> Check:
    """Check a printable text, so that showing it moves no cursor, of at most `limit` characters."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or len(value) > limit or not value.isprintable():
            raise GuardFileError(f"{where}: at most {limit} printable characters needed, not {_shown(value)}")
        return value

    return check


def whole(low: int, high: int) -> Check:
    """Check a whole number in [low, high]."""

    def check(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise GuardFileError(f"{where}: a whole number from {low} to {high} needed, not {_shown(value)}")
        return value

    return check


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Check:
    """Check a finite number in [low, high], or in (low, high] with `above`."""

    def check(value: Any, where: str) -> float:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        # a whole number too large for a float raises on conversion
        fits = plain and abs(value) <= 1e300 and low <= value <= high and not (above and value == low)
        if not fits:
            edge = "above" if above else "from"
            raise GuardFileError(f"{where}: a number {edge} {low:g} to {high:g} needed, not {_shown(value)}")
        return value  # type: ignore[no-any-return]  # a whole number stays one: some arguments have to be

    return check


def flag(value: Any, where: str) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise GuardFileError(f"{where}: true or false needed, not {_shown(value)}")
    return value


def one_of(known: Collection[str], what: str = "") -> Check:
    """Check one of the known words; `what` says what they are, where they are too many to list."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in known:
            raise GuardFileError(f"{where}: {what or ', '.join(known)} needed, not {_shown(value)}")
        return value

    return check


def listing(item: Check, low: int, high: int) -> Check:
    """Check a list of `low` to `high` values."""

    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            found = f"{len(value)}" if isinstance(value, list) else _shown(value)
            raise GuardFileError(f"{where}: a list of {low} to {high} values needed, not {found}")
        return [item(entry, f"{where}[{place}]") for place, entry in enumerate(value)]

    return check


def maybe(check: Check) -> Check:
    """Check a value that may be null."""
    return lambda value, where: None if value is None else check(value, where)


def either(first: Check, second: Check) -> Check:
    """Check a value that either check takes; the second one's error is told."""

    def check(value: Any, where: str) -> Any:
        try:
            return first(value, where)
        except GuardFileError:
            return second(value, where)

    return check


def _shown(value: Any) -> str:
    """A value in a message: its beginning, without control characters."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "a huge number"  # beyond 4,300 digits it cannot even be printed
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
