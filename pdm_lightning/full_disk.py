"""A full disk, as one clear error."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class StoreFull(OSError):
    """The disk, or the quota on it, is full."""


@contextlib.contextmanager
def one_line_when_full(root: Path) -> Iterator[None]:
    """Turn "no space left", wherever in the chain of causes it stands, into one clear error."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                message = f"no space left for '{root}': free some, or set paths.output to another disk"
                raise StoreFull(cause.errno, message) from error
            cause = cause.__cause__ or cause.__context__
        raise
