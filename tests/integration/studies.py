"""A sweep that the scripts run through a launcher, and how two runs of it are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pdm_lightning.report import read_csv
from pdm_lightning.report.rows import Row
from pdm_lightning.store import Store

#: Each run's own time; everything else has to be equal.
TIMINGS = {"seconds", "craft_seconds"}
SWEEP = (
    "-m",
    "defense=ce,rce,pdm",
    "attack=fgsm_010,bim_010",
    "name=sweep",
    "data=digits",
    "model=resnet8",
    "budget=smoke",
    "budget.train.steps=200",
    "budget.train.segment=20",
    "budget.images.cheap=100",
    "evaluate.bootstrap=200",
    "card.run=none",
    "trainer.threads=1",  # sums in another order train another model
    "report.tables=[accuracy,detection]",
    "report.figures=[]",
)
"""Six cells of three trainings."""


def command(*words: str) -> list[str]:
    """``pdml run`` with words."""
    return [sys.executable, "-m", "pdm_lightning", "run", *words]


def same(a: Row, b: Row, *, exact: bool = False) -> bool:
    """Whether two rows say the same.

    Exactly, where that is asked for, and for what is trained and measured of clean images. The attacks' images depend
    on how many are attacked together and on the memory layout, which each output folder measures anew, by float32
    rounding: their distances and scores are the same within 0.5 %, and their shares within one image in a hundred. How
    many gradients a search takes is its effort and no result: where rounding ends it a step sooner or later, of few
    images, the mean moves by up to 2 %.
    """
    place = ("data", "model", "defense", "budget", "threat", "attack", "detector", "seed", "metric", "status")
    if any(getattr(a, name) != getattr(b, name) for name in place):
        return False
    if a.metric in TIMINGS or a.value == b.value or a.value is None or b.value is None:
        return a.metric in TIMINGS or a.value == b.value
    if exact:
        return False
    apart, size = abs(a.value - b.value), max(abs(a.value), abs(b.value))
    close = (0.02 if a.metric == "passes" else 0.005) * size
    return a.attack != "none" and (apart <= close or (size <= 1 and apart <= 0.01))


def differences(one: Path, other: Path, name: str, *, exact: bool = False) -> list[str]:
    """Results, trained weights and artifacts of two output folders that are not the same; `exact`: images, too."""
    first, second = (read_csv(path / "report" / name / "results.csv") for path in (one, other))
    differ = [
        f"{a.defense} {a.attack} {a.metric}: {a.value} and {b.value}"
        for a, b in zip(first, second, strict=True)
        if not same(a, b, exact=exact)
    ]
    for path in sorted((one / "store").glob("train/*/model.safetensors")):
        if path.read_bytes() != (other / path.relative_to(one)).read_bytes():
            differ.append(f"the weights of {path.parent.name}")
    for path in sorted((one / "store").glob("craft/*/adversarial.safetensors")) if exact else ():
        if path.read_bytes() != (other / path.relative_to(one)).read_bytes():
            differ.append(f"the images of {path.parent.name}")
    held = [
        {(artifact.kind, artifact.key) for artifact in Store(path / "store").list()} for path in (one, other)
    ]
    return differ + ([] if held[0] == held[1] else ["the stores hold different artifacts"])


def in_one_process(output: Path, words: tuple[str, ...]) -> list[str]:
    """Run a study undisturbed; what is wrong with that."""
    # with as many threads as a launcher's workers have where they are as many as cores: sums in another order round so
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = subprocess.run(command(*words, f"paths.output={output}"), capture_output=True, text=True, env=one)
    return (
        [f"the undisturbed run ended with {quiet.returncode}: {quiet.stderr[-500:]}"]
        if quiet.returncode
        else []
    )
