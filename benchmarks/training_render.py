"""What trainings were measured to take, as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.render import number, table
from benchmarks.training_ends import SEGMENT, SEGMENTS
from benchmarks.training_figures import AUGMENTED, PARTS, SHARE, SMALL, short
from benchmarks.training_growth import ROUNDS, SECONDS
from benchmarks.training_ways import WAYS

NOTES = f"""\
- A way has a process of its own; rounds go over all of them in turns, while the others wait. Figures are medians of n
  rounds, in brackets the lowest and the highest of them; images/s counts both images of a pair.
- `ours`: the train stage itself (data module, pairs, augmentation, optimizer, log, Lightning's loop), planned as by
  `budget=cpu`, in one segment: what a study adds by its checkpoints and validations has a table of its own.
- `ours, bf16`: the same with `trainer.precision=bf16`, on processors with instructions for it (AMX, AVX-512). It
  trains another model, and nothing was asked of it. Options for GPUs (tf32 and compiling in training, the attacks' CUDA
  graphs) are tested for what they do, not for their speed.
- `bare`: forward and backward of the same network and loss on one batch in memory, in float32 and in the two layouts,
  with the stage's handling of memory; no optimizer, no data, no log.
- `usual`: torchvision's data set and transforms, a DataLoader without and with two workers, a plain LightningModule of
  the same network and loss that logs each step, AdamW under PyTorch's cosine.
- Ratios are of images/s, each a round's own. `ours/bare`: over the faster bare layout; {SHARE:g} was asked for.
  `ours/usual`: over the faster of the two usual ways; {AUGMENTED:g} was asked for on cifar10, whose 32x32 images are
  augmented, {SMALL:g} with ResNet-8 and ResNet-20 on mnist. `bare/usual`: what ours would reach if it took nothing
  besides the passes. `bf16/ours`: bfloat16 over float32.
- Where a step's time goes, by the wall clock: gathering bytes, augmenting and converting, the network's forward pass,
  loss terms and log, backward pass, the optimizer's kernel, and the rest of Lightning's loop. Medians need not add up
  to 100 %.
- Checkpoints (with the log) and validations are timed where they happen, at the ends of {SEGMENTS} short segments of
  one training, the first of which is left out. Validation images are the data set's own, 5,000, where its files are
  given, else noise, a quarter as many as there are to train on. What they add is their time over that of the steps at
  the median images/s of ours.
"""
GROWTH = f"""\
How the cost of an image grows: [plot.png](plot.png), growth.csv. ResNet-8 on noise, one thing changed at a time; ours
and both bare layouts take turns as above, in {ROUNDS} rounds of {SECONDS:g} s (fewer and shorter where the command's
are); bars go from the lowest to the highest of them. A point that lies on two axes is measured once."""


def write(
    lines: Sequence[Mapping[str, Any]],
    grown: Sequence[Mapping[str, Any]],
    told: Mapping[str, Any],
    out: Path,
) -> str:
    """Write table.md and rows.csv; returns the former's text."""
    ways = [f"{way} images/s" for way in WAYS if f"{way} images/s" in lines[0]]
    ratios = [name for name in ("ours/bare", "ours/usual", "bare/usual", "bf16/ours") if name in lines[0]]
    rates = [
        [
            line["name"],
            str(line["n"]),
            *(_cell(line, way, lambda value: number(value, 4)) for way in ways),
            *(_cell(line, name, "{:.2f}".format) for name in ratios),
        ]
        for line in lines
    ]
    parts = [
        [line["name"], str(line["n"]), *(_cell(line, f"share {part}", _percent) for part in PARTS)]
        for line in lines
    ]
    missed = short(lines, grown)
    below = "What falls short of what was asked for:\n\n" + "\n".join(f"- {line}" for line in missed)
    text = "\n\n".join(
        [
            "# Training speed",
            table(["setting", "value"], [[str(key), str(value)] for key, value in told.items()]),
            "Images a second:",
            table(["case", "n", *(way.removesuffix(" images/s") for way in ways), *ratios], rates),
            below if missed else "Nothing falls short of what was asked for.",
            "Where a step of ours spends its time, in %:",
            table(["case", "n", *PARTS], parts),
            f"What a study in segments of {SEGMENT} steps adds to them, by checkpoints and by validations:",
            _added(lines),
            *([GROWTH] if grown else []),
            NOTES,
        ]
    )
    (out / "table.md").write_text(text, encoding="utf-8")
    with (out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return text


def _added(lines: Sequence[Mapping[str, Any]]) -> str:
    head = ["case", "n", "checkpoint, ms", "adds, %", "validation, ms", "each so many segments", "adds, %"]
    rows = [
        [
            line["name"],
            str(line["ends n"]),
            _cell(line, "checkpoint ms", number),
            _cell(line, "adds checkpoint", _percent),
            _cell(line, "validation ms", lambda value: number(value, 4)),
            str(line["every"]),
            _cell(line, "adds validation", _percent),
        ]
        for line in lines
    ]
    return table(head, rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _cell(line: Mapping[str, Any], name: str, shown: Callable[[float], str]) -> str:
    return f"{shown(line[name])} ({shown(line[f'{name} lowest'])}-{shown(line[f'{name} highest'])})"
