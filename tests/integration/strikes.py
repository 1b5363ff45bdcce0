"""What is seen in a store while processes work on it, and killing those that are in the middle of something."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pdm_lightning.partial import built_in, folder

PUBLISHING = ("before its manifest", "before its rename", "before its release")
"""Steps of publishing: hashes are computed; the manifest is there; the artifact is there, its lease still held."""
PHASES = ("training", "crafting", *PUBLISHING)


@dataclass
class Log:
    """What was done, and what was seen in the store.

    Attributes
    ----------
    kills : Counter
        Proven kills by phase.
    lines : list of str
    published : set of str
        ``kind-key`` of what was seen in its place.
    again : set of str
        Artifacts that somebody worked on when they were there already.
    failed : set of str
        Nodes whose failure was recorded: a killed process records none.
    """

    kills: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    published: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


@dataclass
class Watcher:
    """Looks at a store from outside, again and again.

    Attributes
    ----------
    root : Path
        The store.
    held : dict of (str, int) to float
        When a process was first seen with the lease of ``kind-key`` and a folder to build in.
    """

    root: Path
    log: Log
    draws: random.Random
    held: dict[tuple[str, int], float] = field(default_factory=dict)

    def look(self) -> list[tuple[str, int]]:
        """Note who builds what, and whether it had been published before; builders, those that publish last."""
        for entry in _names(self.root / ".partial"):
            if built_in(entry) in self.log.published and "." not in entry:
                self.log.again.add(built_in(entry))
        builders = []
        for entry in _names(self.root / ".locks"):
            name = entry.removesuffix(".json")
            if entry == name or (pid := self.holder(name)) is None:
                continue
            if self.partial(name).is_dir():
                self.held.setdefault((name, pid), time.time())
            if (name, pid) in self.held:
                builders.append((name, pid))
        return builders

    def published(self) -> None:
        """Note what is in its place."""
        self.log.published |= {
            "-".join(path.parts[-3:-1]) for path in self.root.glob("[a-z]*/*/manifest.json")
        }

    def partial(self, name: str) -> Path:
        """Folder in which an artifact is built."""
        kind, _, key = name.partition("-")
        return folder(self.root, kind, key)

    def holder(self, name: str) -> int | None:
        """Living process that has the lease of ``kind-key``."""
        try:
            pid = int(json.loads((self.root / ".locks" / f"{name}.json").read_text())["pid"])
        except (OSError, ValueError):
            return None
        return pid if alive(pid) else None

    def phase(self, name: str, pid: int) -> str:
        """What a builder does now; empty where it has done nothing yet that could be lost.

        It trains or crafts once it has itself written a checkpoint, or finished a batch.
        """
        partial, kind = self.partial(name), name.partition("-")[0]
        if not partial.is_dir():
            there = (self.root / Path(*name.split("-", 1)) / "manifest.json").exists()
            return PUBLISHING[2] if there and self.holder(name) == pid else ""
        if (partial / "manifest.json").exists():
            return PUBLISHING[1]
        if kind in ("train", "craft") and (partial / f"{kind}.json").exists():
            return PUBLISHING[0]
        done = (
            [partial / "checkpoint" / "last.ckpt"]
            if kind == "train"
            else partial.glob("batches/*.safetensors")
        )
        mine = any(_written(path) > self.held[name, pid] for path in done)
        return {"train": "training", "craft": "crafting"}.get(kind, "") if mine else ""

    def strike(self, wanted: list[str], commands: list[int]) -> bool:
        """Kill a builder that is in one of the wanted phases; whether one was killed.

        It is stopped first: what it was doing is looked at while it can do no more.

        Parameters
        ----------
        wanted : list of str
            Some of `PHASES`.
        commands : list of int
            Process groups of the commands. One kill in four hits the whole group, as an end of the machine would.
        """
        now = [(name, pid, self.phase(name, pid)) for name, pid in self.look()]
        publishing = [seen for seen in now if seen[2] in PUBLISHING and seen[2] in wanted]
        working = [seen for seen in now if seen[2] in wanted and seen not in publishing]
        # those who publish are struck at sight, the others at a time of chance
        if not publishing and (not working or self.draws.random() > 0.004):
            return False
        name, pid, phase = self.draws.choice(publishing or working)
        with suppress(ProcessLookupError):
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGSTOP)
        if not _until(lambda: _state(pid) in "TtZX"):
            return False
        still = _state(pid) in "Tt" and self.phase(name, pid) == phase
        if not still:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            return False
        whole = group in commands and self.draws.random() < 0.25
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            if whole:
                os.killpg(group, signal.SIGKILL)
        proven = _until(lambda: not alive(pid)) and (self.root / ".locks" / f"{name}.json").exists()
        self.log.kills[phase] += proven
        left = sorted(str(path.relative_to(self.partial(name))) for path in self.partial(name).rglob("*.*"))
        who = "all processes of a command" if whole else "a worker"
        self.log.say(
            f"SIGKILL of {who}, {phase}, {name}, {time.time() - self.held[name, pid]:.2f} s after it began; "
            f"left: {', '.join(left) or 'the published artifact'}"
        )
        return proven


def alive(pid: int) -> bool:
    """Whether a process can still do something."""
    return _state(pid) not in "ZX"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _until(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
    except FileNotFoundError:
        return
