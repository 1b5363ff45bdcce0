"""What trainings were measured to take, as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.render import number, table
from benchmarks.training_ends import SEGMENT
from benchmarks.training_ways import BARE, OURS, USUAL, WAYS

#: By how many times as fast as the usual pipeline, and with what share of the bare passes' speed, ours should train.
SHARE, AUGMENTED, SMALL = 0.92, 1.15, 1.4
PARTS = ("gather", "augment", "forward", "loss and log", "backward", "optimizer", "loop")
NOTES = f"""\
- A way has a process of its own; rounds go over all of them in turns, while the others wait. Figures are medians of the
  rounds; images/s counts both images of a pair.
- `ours`: the train stage itself (data module, pairs, augmentation, optimizer, log, Lightning's loop), planned as by
  `budget=cpu`, in one segment: what a study adds by its checkpoints and validations has a table of its own, measured
  once for each case at the ends of four short segments (of noise, with a quarter of the images to validate).
- `bare`: forward and backward of the same network and loss on one batch in memory, in the two layouts, with the stage's
  handling of memory; no optimizer, no data, no log.
- `usual`: torchvision's data set and transforms, a DataLoader without and with two workers, a plain LightningModule of
  the same network and loss that logs each step, AdamW under PyTorch's cosine.
- `ours/bare`: images/s over those of the faster bare layout; {SHARE:g} was asked for. `ours/usual`: over the faster of
  the two usual ways; {AUGMENTED:g} was asked for with ResNet-20 on cifar10, {SMALL:g} with ResNet-8 on mnist. `lowest`
  and `highest` are the extremes of the rounds' own ratios.
- Where a step's time goes, by the wall clock: gathering bytes, augmenting and converting, the network's forward pass,
  loss terms and log, backward pass, the optimizer's kernel, and the rest of Lightning's loop.
"""


def record(
    case: Mapping[str, Any], name: str, seen: int, turns: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """All figures of a case.

    Parameters
    ----------
    seen
        Images a step.
    turns
        By way, one for each round.
    """
    rates = {way: [seen * turn.steps / turn.seconds for turn in held] for way, held in turns.items()}
    middle = {way: median(values) for way, values in rates.items()}
    line: dict[str, Any] = {"name": name, **case, **{f"{way} images/s": middle[way] for way in WAYS}}
    for title, group in (("bare", BARE), ("usual", USUAL)):
        best = max(group, key=lambda way: middle[way])
        own = [a / b for a, b in zip(rates[OURS], rates[best], strict=True)]
        line |= {f"best {title}": best, f"ours/{title}": middle[OURS] / middle[best]}
        line |= {f"ours/{title} lowest": min(own), f"ours/{title} highest": max(own)}
    return line | shares(turns[OURS])


def shares(turns: Sequence[Any]) -> dict[str, float]:
    """Shares of our step's parts; what they leave of the step is the loop's."""
    total = {part: sum(turn.parts.get(part, 0.0) for turn in turns) for part in turns[0].parts}
    seconds = sum(turn.wall for turn in turns)
    total["loss and log"] = total["step"] - total["forward"]
    own = {part: total[part] / seconds for part in PARTS if part in total}
    return {f"share {part}": value for part, value in (own | {"loop": 1 - sum(own.values())}).items()}


def short(line: Mapping[str, Any]) -> float | None:
    """By how much a case misses what was asked of it (a ratio below 1); None where it does not, or nothing was."""
    wanted = {("resnet20", "cifar10"): AUGMENTED, ("resnet8", "mnist"): SMALL}.get(
        (line["model"], line["data"]), 0.0
    )
    found = min(line["ours/bare"] / SHARE, line["ours/usual"] / wanted if wanted else 1.0)
    return found if found < 1 else None


def write(lines: Sequence[Mapping[str, Any]], told: Mapping[str, Any], out: Path, plot: bool) -> str:
    """Write table.md and rows.csv; returns the former's text."""
    rates = [
        [
            line["name"],
            *(number(line[f"{way} images/s"], 4) for way in WAYS),
            *_ratio(line, "bare"),
            *_ratio(line, "usual"),
        ]
        for line in lines
    ]
    head = ["case", *WAYS, "ours/bare", "lowest-highest", "ours/usual", "lowest-highest"]
    parts = [[line["name"], *(f"{100 * line[f'share {part}']:.1f} %" for part in PARTS)] for line in lines]
    added = [
        [
            line["name"],
            *(number(1000 * line["end"], 3), f"{100 * line['adds end']:.1f} %"),
            *(number(1000 * line["validation"], 4), number(line["every"], 4)),
            f"{100 * line['adds validation']:.1f} %",
        ]
        for line in lines
    ]
    text = "\n\n".join(
        [
            "# Training speed",
            table(["setting", "value"], [[str(key), str(value)] for key, value in told.items()]),
            "Images a second:",
            table(head, rates),
            "Where a step of ours spends its time:",
            table(["case", *PARTS], parts),
            f"What a study in segments of {SEGMENT} steps adds to them, by checkpoints and by validations:",
            table(
                ["case", "checkpoint, ms", "adds", "validation, ms", "each so many segments", "adds"], added
            ),
            *(["How the cost of an image grows: [plot.png](plot.png), growth.csv."] if plot else []),
            NOTES,
        ]
    )
    (out / "table.md").write_text(text, encoding="utf-8")
    with (out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return text


def _ratio(line: Mapping[str, Any], title: str) -> list[str]:
    low, high = line[f"ours/{title} lowest"], line[f"ours/{title} highest"]
    return [f"{line[f'ours/{title}']:.2f}", f"{low:.2f}-{high:.2f}"]
