"""Two runs side by side, image by image; and what all checks take for granted."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pdm_lightning.card.evidence import Evidence, Run
from pdm_lightning.matching import places

EXCEPTIONS = 0.01
"""Share of the images, strictly below which exceptions count for nothing."""
FEW = 100
"""Images, below which a single exception counts for nothing whatever its share."""
SURROGATE = ("transfer", "black_box")
"""Threat models whose attacks work on another model than the one that they are told of."""
DIRECT = frozenset({"gray_box", "white_box"})
"""Threat models whose attacks work on the model itself; what they get beyond it, an attack's goal tells."""
BLIND = ("Square", "ClassifierSquare", "HopSkipJump", "LibraryQueryAttack")
"""Classes of attacks without gradients."""


def tolerable(exceptions: int, n: int) -> bool:
    """Whether so many exceptions among n images count for nothing; a negative number always does."""
    return (n < FEW and exceptions <= 1) or (n > 0 and exceptions / n < EXCEPTIONS)


def hits(run: Run) -> Tensor:
    """(N,) bool: successes on the model that the attack worked on.

    Misclassified images; for an attack on classifier and detector, its own joint criterion. So too where a surrogate
    was attacked: what is stronger there need not carry over better (Kurakin et al. 2017), and no check asks for that.
    """
    return run.success if "detector" in run.needs or run.threat in SURROGATE else run.fooled


def rows(run: Run, images: Tensor) -> Tensor:
    """Places of images in the run's index, which holds them all."""
    return places(run.index, images)


def shared(*runs: Run) -> Tensor:
    """Images that all of the runs attacked, ascending."""
    images = runs[0].index.unique()
    for run in runs[1:]:
        images = images[torch.isin(images, run.index)]
    return images


def common(*runs: Run) -> list[Tensor]:
    """Successes of each run on the images that all of them attacked, in one order."""
    images = shared(*runs)
    return [hits(run)[rows(run, images)] for run in runs]


def union(runs: Iterable[Run]) -> Tensor:
    """(n,) bool on the images that all attacked: did any succeed?"""
    return torch.stack(common(*runs)).any(dim=0)


def lead(one: Tensor, other: Tensor) -> int:
    """By how many images one is ahead of the other."""
    return int(one.sum()) - int(other.sum())


def share(mask: Tensor) -> float:
    """Share of True; 0 for none."""
    return float(mask.double().mean()) if len(mask) else 0.0


def without_gradient(run: Run) -> bool:
    """Whether an attack goes by logits, scores or decisions alone."""
    return run.role == "gradient_free" or class_of(run) in BLIND


def class_of(run: Run) -> str:
    """Name of the attack's class."""
    return str(run.attack.get("_target_", "")).rpartition(".")[2]


def aim(evidence: Evidence, run: Run) -> tuple[str, ...]:
    """Detectors that an attack works against; a probe's are those of the run that it belongs to."""
    if "detector" not in run.needs:
        return ()
    own = next((other for other in evidence.study() if run.of and other.key == run.of), run)
    return tuple(sorted(own.watched))


def setting(evidence: Evidence, run: Run) -> tuple[object, ...]:
    """What two runs must share for one to be called stronger: model, threat, ball and goal."""
    ball = None if run.ball is None else (run.ball[0], round(run.ball[1], 9))
    return run.model, held(run), ball, aim(evidence, run), goal(run)


def held(run: Run) -> str:
    """What an attack works on: ``direct`` where that is the model itself, else the threat model."""
    return "direct" if run.threats & DIRECT else run.threat


def goal(run: Run) -> str:
    """Which class a targeted attack aims at; "" for one that takes any."""
    return str(run.attack.get("target_class", "random")) if run.attack.get("targeted") else ""


def excuse(run: Run) -> str:
    """Why an attack is not held to what a converged one is."""
    return "declared lean" if run.lean else f"capped ({run.capped})"


def name_of(evidence: Evidence, run: Run) -> str:
    """A run in words."""
    model = evidence.models[run.model].title if run.model in evidence.models else run.model
    return f"{model}, {' and '.join([run.threat, *sorted(run.also)])}, {run.name}"


def ball_name(ball: tuple[str, float]) -> str:
    """A ball in words: ``linf 0.1``."""
    return f"{ball[0]} {ball[1]:g}"
