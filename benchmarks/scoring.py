"""``python -m benchmarks.scoring``: what a kernel density costs beside the classifier's own forward pass."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torchvision.models import resnet50

from benchmarks.kernel_parts import Sizes, draw
from benchmarks.machine import CLOCKS, settings, threads
from benchmarks.render import number, table
from detection import KDE, View, mapped
from pdm_lightning.models import Classifier

EPILOG = """\
examples:
  python -m benchmarks.scoring
  python -m benchmarks.scoring --clock cpu --images 64 --rounds 5
  python -m benchmarks.scoring --classes 20 --kernels 50 --n 200 --images 8 --batch 4 --side 64
"""
#: What scoring may cost, as a share of the forward pass.
SHARE = 0.15
NOTES = f"""\
- `forward`: `embed_and_logits` of a ResNet-50 with random weights in eval mode, in float32 and batches, no gradient.
- `score, all at once`: `KDE.score` of stored embeddings and logits, all in one call, as the stages of a study do.
  `score, in batches`: the same in batches of the forward pass, as images come in; a batch reads the kernels of every
  class that it is predicted to be. Predicted classes are uniform, so nearly every image of a batch has its own.
- Rounds go over the three in turns, after one that warms up and reads the kernels' file into the system's cache.
- `share`: ms an image over those of `forward`, by the medians of the rounds; `lowest` and `highest` are the extremes of
  the rounds' own shares. A share of at most {SHARE:g} was asked for.
"""


@dataclass
class Way:
    """Something that is timed: seconds of each round, for so many images."""

    name: str
    images: int
    call: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    @property
    def each(self) -> list[float]:
        """Seconds an image, by round."""
        return [seconds / self.images for seconds in self.seconds]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.scoring",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, value, what in (
        ("classes", 1000, "classes"),
        ("kernels", 1000, "kernels a class"),
        ("n", 10000, "embeddings that are scored"),
        ("images", 256, "images of the forward pass"),
        ("batch", 32, "images of a batch"),
        ("side", 224, "pixels of an image's side"),
        ("rounds", 3, "timed rounds"),
        ("threads", 1, "threads"),
        ("seed", 0, "seed of images and embeddings"),
    ):
        made.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default {value})")
    made.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: beside other work")
    made.add_argument(
        "--folder", type=Path, help="for the kernels (8 GB by default), and as much again for a moment"
    )
    made.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/scoring"), help="folder for the results"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where scoring costs more than its share, 2 for a wrong option."""
    options = parser().parse_args(arguments)
    told = {name: value for name, value in vars(options).items() if isinstance(value, int)}
    if min(value for name, value in told.items() if name != "seed") < 1 or options.seed < 0:
        print("error: sizes, rounds and threads must be at least 1", file=sys.stderr)
        return 2
    with threads(options.threads), tempfile.TemporaryDirectory(dir=options.folder) as folder:
        told = settings(**told, model="torchvision resnet50", clock=options.clock)
        ways = _ways(options, Path(folder))
        for round_ in range(options.rounds + 1):
            for way in ways:
                print(f"round {round_} of {options.rounds}: {way.name}", file=sys.stderr)
                started = CLOCKS[options.clock]()
                way.call()
                if round_:
                    way.seconds.append(CLOCKS[options.clock]() - started)
        told |= {"load after": settings()["load before"]}
    lines = records(ways)
    _write(lines, told, options.out)
    return int(any(line["share"] > SHARE for line in lines[1:]))


def records(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Figures by way; the first is what the others are a share of."""
    whole = ways[0].each
    return [
        {
            "way": way.name,
            "images": way.images,
            "median seconds": median(way.seconds),
            "ms an image": 1000 * median(way.each),
            "share": median(way.each) / median(whole),
            "lowest": min(a / b for a, b in zip(way.each, whole, strict=True)),
            "highest": max(a / b for a, b in zip(way.each, whole, strict=True)),
        }
        for way in ways
    ]


def _ways(options: argparse.Namespace, folder: Path) -> list[Way]:
    generator = torch.Generator().manual_seed(options.seed)
    classifier = Classifier.wrap(
        resnet50(weights=None, num_classes=options.classes), "avgpool", options.classes
    ).eval()
    x = torch.rand(options.images, 3, options.side, options.side, generator=generator)
    sizes = Sizes(options.classes, options.kernels, 2048, options.n, 1, 1, options.threads, options.seed)
    detector = _detector(sizes, folder)
    embeddings, logits = _seen(sizes, generator)
    return [
        Way("forward", len(x), lambda: _forward(classifier, x, options.batch)),
        Way("score, all at once", sizes.n, lambda: _score(detector, embeddings, logits, sizes.n)),
        Way("score, in batches", sizes.n, lambda: _score(detector, embeddings, logits, options.batch)),
    ]


def _seen(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Embeddings of random classes, and logits that predict those."""
    classes = torch.randint(sizes.classes, (sizes.n,), generator=generator)
    embeddings = torch.empty(sizes.n, sizes.dim)
    for label in classes.unique().tolist():
        rows = classes == label
        embeddings[rows] = draw(sizes, label, 2, int(rows.sum()))
    return embeddings, torch.randn(sizes.n, sizes.classes, generator=generator).scatter_(
        1, classes[:, None], 20.0
    )


def _detector(sizes: Sizes, folder: Path) -> KDE:
    """A detector whose kernels are mapped from a file, however few they are."""
    shape = sizes.classes * sizes.kernels, sizes.dim
    kernels = mapped.empty(shape, torch.float32)
    for label, part in enumerate(kernels.split(sizes.kernels)):
        mapped.release(part.copy_(draw(sizes, label, 0, sizes.kernels)))
    classes = torch.arange(sizes.classes).repeat_interleave(sizes.kernels)
    state = {"kernels": kernels, "classes": classes, "bandwidth": torch.tensor([1.0], dtype=torch.float64)}
    mapped.save(state, folder / "state.safetensors")
    return KDE().load_state_dict(mapped.load(folder / "state.safetensors"))


@torch.no_grad()
def _forward(classifier: Classifier, x: Tensor, batch: int) -> None:
    for part in x.split(batch):
        classifier.embed_and_logits(part)


@torch.no_grad()
def _score(detector: KDE, embeddings: Tensor, logits: Tensor, batch: int) -> None:
    for part, read in zip(embeddings.split(batch), logits.split(batch), strict=True):
        detector.score(View.from_features(part, read))


def _write(lines: list[dict[str, Any]], told: dict[str, Any], out: Path) -> None:
    body = [[number(v, 4) if isinstance(v, float) else str(v) for v in line.values()] for line in lines]
    head = table(["setting", "value"], [[str(key), str(value)] for key, value in told.items()])
    text = f"# The cost of scoring\n\n{head}\n\n{table(list(lines[0]), body)}\n\n{NOTES}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    with (out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
