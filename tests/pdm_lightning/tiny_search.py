"""A search whose trainings take a second, for several test files; read with runpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pdm_lightning.cli import main
from pdm_lightning.store import Store

#: Overrides of a training that learns next to nothing: twelve steps of a narrow network on 8x8 digits.
TINY = (
    "data=digits",
    "data.size=8",
    "data.val_size=100",
    "model=resnet8",
    "model.widths=[4,4,8]",
    "budget=smoke",
    "budget.train.steps=12",
    "budget.train.segment=6",
    "budget.train.batch_size=32",
    "trainer.threads=1",
    "trainer.device=cpu",
    "tune.collapsed=keep",
    "name=tiny",
)
SPACE = ("defense.term.rvl.weight=tag(log, interval(0.01, 1))", "defense.q=choice(0.1,0.3,0.5)")
SEARCH = (*TINY, *SPACE, "tune.objective=val_dbi", "tune.trials=4", "tune.startup=2")


def search(output: Path, *words: str) -> int:
    """Exit status of ``pdml tune``; a later word takes the place of an earlier one of the same key."""
    return main(["tune", *chosen(output, *words)])


def chosen(output: Path, *words: str) -> list[str]:
    """The words of a search into a folder."""
    last = {word.partition("=")[0]: word for word in (*SEARCH, *words, f"paths.output={output}")}
    return list(last.values())


def told(output: Path, name: str = "tiny") -> dict[str, Any]:
    """What ``tune.json`` says."""
    content: dict[str, Any] = json.loads((output / "tune" / name / "tune.json").read_text())
    return content


def history(output: Path) -> list[tuple[Any, ...]]:
    """The trials as a second run must repeat them: without times, and without what the store had already."""
    return [
        (t["number"], t["params"], t["state"], t["reason"], t["values"], t["trainings"])
        for t in told(output)["trials"]
    ]


def kinds(output: Path) -> dict[str, int]:
    """Number of artifacts by kind."""
    counts: dict[str, int] = {}
    for artifact in Store(output / "store").list():
        counts[artifact.kind] = counts.get(artifact.kind, 0) + 1
    return counts
