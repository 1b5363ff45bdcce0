"""How far long work is: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Count work that is done; a context manager.

    On a terminal it draws a bar. Elsewhere it writes a line at most every `every` seconds, so shorter work
    writes nothing. A closed or disabled one writes nothing.

    Parameters
    ----------
    total
        Units of work, or None where unknown.
    description
        What is being done, in front of the bar or line.
    enabled
        False shows nothing.
    done
        Units that an earlier, interrupted call has done.
    every
        Seconds between lines.
    stream
        Where to write: standard error by default.

    Examples
    --------
    >>> with Progress(3, "count", enabled=False) as progress:
    ...     for _ in range(3):
    ...         progress.update()
    >>> progress.done
    3
    """

    def __init__(
        self,
        total: int | None,
        description: str = "",
        *,
        enabled: bool = True,
        done: int = 0,
        every: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.description, self.done = total, description, done
        self._enabled, self._every = enabled, every
        self._stream = stream if stream is not None else sys.stderr
        self._start = self._last = time.monotonic()
        self._fresh, self._wrote = 0, -1
        self._fields: dict[str, object] = {}
        self._bar: tqdm | None = None
        if enabled and self._stream.isatty():
            self._bar = tqdm(
                total=total,
                desc=description,
                initial=done,
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
            )

    def update(self, n: int = 1, **fields: object) -> None:
        """Count `n` units; show the named values, floats with three digits, until they are given anew."""
        self.done += n
        self._fresh += n
        if not self._enabled:
            return
        self._fields.update(fields)
        if self._bar is not None:
            if fields:
                self._bar.set_postfix_str(self._shown(), refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last >= self._every:
            self._line()

    def close(self) -> None:
        """Remove the bar, or write the last line where lines were written."""
        if self._bar is not None:
            self._bar.close()
        elif self._enabled and self._wrote not in (-1, self.done):
            self._line()
        self._enabled = False

    def _shown(self) -> str:
        pairs = ((k, f"{v:.3g}" if isinstance(v, float) else str(v)) for k, v in self._fields.items())
        return ", ".join(f"{key} {value}" for key, value in pairs)

    def _line(self) -> None:
        now = time.monotonic()
        self._last, self._wrote = now, self.done
        rate = self._fresh / max(now - self._start, 1e-9)
        parts = [f"{self.done}" if self.total is None else f"{self.done}/{self.total}", f"{rate:.3g}/s"]
        if self.total is not None and rate > 0 and self.done < self.total:
            parts.append(f"{(self.total - self.done) / rate:.0f} s left")
        if self._fields:
            parts.append(self._shown())
        print(f"{self.description}: {', '.join(parts)}", file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
