"""Thousands of mutated guard files and images: each loads correctly, or is refused in one line.

    python -m tests.integration.fuzz --count 10000              half of them guards, half images
    python -m tests.integration.fuzz --count 500 --kind guard --seed 7 --keep /tmp/bad

Each file is opened in a child process with limits of time, memory and writing (`tests.integration.caged`). A crash, a
hang, want of memory, an error of another type, anything started, unpickled or written, and damage that goes unnoticed
count as faults; the exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from detection import KDE, KNN, DkNN, FeatureSqueezing, UnitKDE
from pdm_lightning.guard import Guard, GuardFileError, ImageError, Preprocessing
from pdm_lightning.guard.files import read
from pdm_lightning.guard.picture import read_image
from pdm_lightning.guard.preprocessing import RULES
from pdm_lightning.models import Classifier, ResNet
from tests.integration import mutant_images, mutants
from tests.integration.caged import Work, caged, starved

FAULTS = ("ERROR", "MEMORY", "CRASH", "HANG", "ESCAPE", "UNNOTICED")
Draw = Callable[[random.Random], tuple[str, bytes, Work]]
SHOWN = [Preprocessing(16, 12, channels, resize) for channels in (1, 3) for resize in RULES]
"""Sizes, channels and rules that images are read by."""


def guards(folder: Path) -> dict[str, Path]:
    """Write small guards of several detectors, and one of torchvision's networks."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    small = torch.randint(0, 120, (120, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for row, label in enumerate(labels.tolist()):
        small[row, :, label * 3 : label * 3 + 2] += 130
    found = {}
    layered = DkNN(["backbone.stage2", "embedding"], k=5)
    for name, detector in {
        "kde": KDE(),
        "kde_unit": UnitKDE(),
        "dknn": layered,
        "squeezing": FeatureSqueezing(),
        "knn": KNN(5),
    }.items():
        classifier = Classifier(ResNet(8, 1, [4, 4, 8]), 8, 3)
        made = Guard.fit(classifier, (small, labels), fpr=0.25, detector=detector, classes=["a", "b", "c"])
        found[name] = made.save(folder / f"{name}.safetensors")
    return found | {"torchvision": _of_torchvision(folder, generator)}


def _of_torchvision(folder: Path, generator: torch.Generator) -> Path:
    from torchvision.models import get_model

    network = Classifier.wrap(get_model("shufflenet_v2_x0_5", num_classes=3), "conv5", 3)
    images = torch.randint(0, 256, (80, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Guard.fit(network, images, fpr=0.25, detector="msp").save(folder / "torchvision.safetensors")


def _seen(guard: Guard) -> Tensor:
    """What a guard says of a few images, a column a value."""
    shape = guard.preprocessing.shape
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    scored = guard.score(images)
    return torch.stack([scored.score, scored.p_value, scored.probability, scored.flagged.double()])


def refused(error: Exception) -> str:
    """What a refusal is worth: one that was forced by the limit of memory is none."""
    told = " ".join(str(error).split())[:120]
    if starved(error):
        return f"MEMORY {told}"
    return "refused" if told and "\n" not in str(error) else f"ERROR of several lines, or none: {told}"


def draw_guard(files: dict[str, Path]) -> Draw:
    """Draw a mutated guard, and how it is tried."""
    raws = {name: path.read_bytes() for name, path in files.items()}
    expected = {name: _seen(Guard.load(path)) for name, path in files.items()}
    # the large one costs more time, and differs in its network alone
    names = [name for name in raws if name != "torchvision"] * 5 + ["torchvision"]

    def draw(rng: random.Random) -> tuple[str, bytes, Work]:
        name, mutation = rng.choice(names), rng.choice(mutants.MUTATIONS)

        def work(path: Path) -> str:
            try:
                read(path)  # as `pdml card` does: the classifier is not looked at
                guard = Guard.load(path)
            except GuardFileError as error:
                return refused(error)
            try:
                found = _seen(guard)
            except ValueError as error:  # weights with a sum mended may overflow on some image
                same = mutation in mutants.UNSIGNED or "\n" in str(error)
                return f"UNNOTICED {error}" if same else "loaded, signed anew, images refused"
            if torch.equal(found, expected[name]):
                return "loaded, same"
            return "UNNOTICED" if mutation in mutants.UNSIGNED else "loaded, signed anew"

        return f"guard {mutation.__name__}", mutation(raws[name], rng), work

    return draw


def draw_image() -> Draw:
    """Draw a mutated image, and how it is tried."""
    raws = list(mutant_images.samples().values())
    # what a reader imports when it is needed would look like an escape in the child
    Image.init()

    def draw(rng: random.Random) -> tuple[str, bytes, Work]:
        mutation, raw, shown = rng.choice(mutant_images.MUTATIONS), rng.choice(raws), rng.choice(SHOWN)

        def work(path: Path) -> str:
            try:
                pixels = read_image(path, shown)
            except ImageError as error:
                return refused(error)
            right = pixels.shape == shown.shape and pixels.dtype == torch.uint8
            return "decoded" if right else "ERROR in its shape"

        return f"image {mutation.__name__}", mutation(raw, rng), work

    return draw


def fuzz(
    draws: Sequence[Draw], count: int, seed: int, folder: Path, keep: Path | None = None
) -> Counter[tuple[str, str]]:
    """Try mutated files.

    Parameters
    ----------
    draws : sequence of callable
        Taken in turn.
    count, seed : int
        File n follows from (seed, n) alone.
    folder : Path
        Empty; the file lies there, and nothing else may afterwards.
    keep : Path, optional
        Gets the files that show a fault.

    Returns
    -------
    Counter
        By mutation and outcome.
    """
    outcomes: Counter[tuple[str, str]] = Counter()
    path, begun = folder / "mutant", time.monotonic()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        name, raw, work = draws[number % len(draws)](rng)
        path.write_bytes(raw)
        outcome = caged(work, path)
        extra = sorted(entry.name for entry in folder.iterdir() if entry != path)
        if extra:
            outcome = f"ESCAPE wrote {extra}"
        outcomes[name, outcome] += 1
        if outcome.startswith(FAULTS):
            print(f"{number} {name}: {outcome}", flush=True)
            if keep is not None:
                (keep / f"{seed}-{number}-{name.replace(' ', '-')}").write_bytes(raw)
        if number % 1000 == 999:
            print(f"{number + 1}/{count} files, {time.monotonic() - begun:.0f} s", flush=True)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where a fault was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("both", "guard", "image"), default="both")
    parser.add_argument("--keep", type=Path, help="folder that gets the files which show a fault")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        made, cage = Path(place) / "made", Path(place) / "cage"
        made.mkdir()
        cage.mkdir()
        draws = [draw_guard(guards(made))] if given.kind != "image" else []
        draws += [draw_image()] if given.kind != "guard" else []
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
        os.chdir(cage)
        outcomes = fuzz(draws, given.count, given.seed, cage, given.keep)
    for (name, outcome), n in sorted(outcomes.items()):
        print(f"{n:6}  {name:22}  {outcome}")
    total: Counter[str] = Counter()
    for (_, outcome), n in outcomes.items():
        total[outcome] += n
    print("; ".join(f"{n:,} {outcome}" for outcome, n in total.most_common()))
    return int(any(outcome.startswith(FAULTS) for _, outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
