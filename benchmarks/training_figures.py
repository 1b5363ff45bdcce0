"""What figures come of turns: medians with the lowest and the highest of the rounds, and what falls short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.training_ways import BARE, BF16, OURS, USUAL, WAYS, Turn

#: What share of the bare passes' speed ours should have, and by how many times it should be as fast as the usual
#: pipeline: on 32x32 images with augmentation, and with small networks on MNIST.
SHARE, AUGMENTED, SMALL = 0.92, 1.15, 1.4
PARTS = ("gather", "augment", "forward", "loss and log", "backward", "optimizer", "loop")


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest, as columns."""
    return {name: median(values), f"{name} lowest": min(values), f"{name} highest": max(values)}


def record(
    case: Mapping[str, Any], name: str, seen: int, turns: Mapping[str, Sequence[Turn]]
) -> dict[str, Any]:
    """All figures of a case, from as many turns of each way as there were rounds.

    Parameters
    ----------
    seen
        Images a step.
    turns
        By way; `BF16` may be missing.
    """
    rates = _rates(seen, turns)
    line: dict[str, Any] = {"name": name, **case, "n": len(rates[OURS])}
    for way in (way for way in WAYS if way in rates):
        line |= spread(f"{way} images/s", rates[way])
    bare = _fastest(rates, BARE)
    line |= {"best bare": bare} | _ratio("ours/bare", rates[OURS], rates[bare])
    usual = _fastest(rates, USUAL)
    line |= {"best usual": usual} | _ratio("ours/usual", rates[OURS], rates[usual])
    line |= _ratio("bare/usual", rates[bare], rates[usual])
    if BF16 in rates:
        line |= _ratio("bf16/ours", rates[BF16], rates[OURS])
    return line | shares(turns[OURS])


def costs(seen: int, turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Milliseconds an image of ours and of the faster bare passes."""
    rates = _rates(seen, turns)
    bare = _fastest(rates, BARE)
    line: dict[str, Any] = {"n": len(rates[OURS]), "best bare": bare}
    for title, way in (("ours", OURS), ("bare", bare)):
        line |= spread(f"{title} ms", [1000 / rate for rate in rates[way]])
    return line | _ratio("ours/bare", rates[OURS], rates[bare])


def shares(turns: Sequence[Turn]) -> dict[str, float]:
    """Shares of our step's parts, by the wall clock; what they leave of the step is the loop's."""
    rows = []
    for turn in turns:
        known = turn.parts | {"loss and log": turn.parts["step"] - turn.parts["forward"]}
        own = {part: known[part] / turn.wall for part in PARTS if part in known}
        rows.append(own | {"loop": 1 - sum(own.values())})
    found: dict[str, float] = {}
    for part in rows[0]:
        found |= spread(f"share {part}", [row[part] for row in rows])
    return found


def short(lines: Sequence[Mapping[str, Any]], grown: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each case, and for each point of the growth, that falls short of what was asked for."""
    found = []
    for line in lines:
        ceiling = f"; its ceiling, bare/usual, is {_told(line, 'bare/usual')}."
        if line["ours/bare"] < SHARE:
            found.append(f"{line['name']}: {_below_bare(line)}{ceiling}")
        wanted = asked(line["data"], line["model"])
        if wanted and line["ours/usual"] < wanted:
            ratio = _told(line, "ours/usual")
            found.append(
                f"{line['name']}: {ratio} times the usual pipeline, {wanted:g} was asked for{ceiling}"
            )
    for line in grown:
        if line["ours/bare"] < SHARE:
            point = ", ".join(f"{key} {line[key]}" for key in ("images", "classes", "side", "batch"))
            found.append(f"{line['name']} ({point}): {_below_bare(line)}.")
    return list(dict.fromkeys(found))  # a point that lies on two axes


def asked(data: str, model: str) -> float | None:
    """By how many times ours should be as fast as the usual pipeline; None where nothing was asked."""
    if data == "cifar10":
        return AUGMENTED
    return SMALL if model in ("resnet8", "resnet20") else None


def _rates(seen: int, turns: Mapping[str, Sequence[Turn]]) -> dict[str, list[float]]:
    return {way: [seen * turn.steps / turn.seconds for turn in held] for way, held in turns.items()}


def _fastest(rates: Mapping[str, Sequence[float]], group: Sequence[str]) -> str:
    return max(group, key=lambda way: median(rates[way]))


def _ratio(name: str, own: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    return spread(name, [a / b for a, b in zip(own, theirs, strict=True)])


def _below_bare(line: Mapping[str, Any]) -> str:
    return f"{_told(line, 'ours/bare')} of the bare passes' speed, {SHARE:g} was asked for"


def _told(line: Mapping[str, Any], name: str) -> str:
    return f"{line[name]:.3f} ({line[f'{name} lowest']:.3f}-{line[f'{name} highest']:.3f})"
