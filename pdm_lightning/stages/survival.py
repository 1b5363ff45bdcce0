"""Reads a score artifact: how many images withstand an attack up to a distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from detection import Interval, proportion
from pdm_lightning.store import Artifact

Distances = NDArray[np.float64]


def needed(artifact: Artifact, fpr: str) -> Distances:
    """(N,) L2 distance at which each attacked image is misclassified and not flagged; infinite where it never is.

    Parameters
    ----------
    artifact : Artifact
        Of kind ``score``.
    fpr : str
        A false-positive rate as ``score.json`` names it (``0.05``), one that has a threshold.
    """
    scores = load_file(artifact.file("scores.safetensors"))
    threshold = artifact.json("score.json")["thresholds"][fpr]
    hit = scores["fooled"].astype(bool) & (scores["adversarial"] <= threshold)
    return np.where(hit, scores["l2"].astype(np.float64), np.inf)


def survival(distances: Distances, grid: Distances) -> list[Interval]:
    """Share of the images that no success within each distance of `grid` was found for, with Wilson intervals."""
    return [proportion(int((distances > distance).sum()), len(distances)) for distance in grid]
