"""Check 7: is an attack more than noise, and does a detector see more than noise?"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import EXCEPTIONS, SURROGATE, name_of, tolerable
from pdm_lightning.card.evidence import Evidence, Run


def noise(evidence: Evidence) -> Finding:
    """(7) Random noise of the same size does less harm than the attack."""
    found = Finding()
    for run in evidence.study():
        told = run.facts.get("noise")
        if not told or not told["n"]:
            continue
        by_noise, by_attack, n = int(told["fooled"]), int(run.fooled.sum()), int(told["n"])
        numbers = {"noise": by_noise / n, "attack": by_attack / n, "n": n, "auc": _areas(run)}
        if run.threat in SURROGATE and max(by_noise, by_attack) < EXCEPTIONS * n:
            # an attack that does not carry over is weak, not broken: beside noise there is nothing to compare
            found.skip(
                f"{name_of(evidence, run)}: it carries over to {by_attack} of {n} images, noise fools {by_noise}"
            )
            found.note(name_of(evidence, run), **numbers)
            continue
        fault = f"noise of the same size fools {by_noise} of {n} images, the attack {by_attack}: it is broken"
        weaker = by_noise < by_attack or tolerable(
            by_noise, n
        )  # what noise fools by chance counts for nothing
        found.judge(name_of(evidence, run), "" if weaker else fault, **numbers)
    return found


def _areas(run: Run) -> dict[str, dict[str, float | None]]:
    """By detector, on the misclassified images: a detector of noise tells noise from clean, but not from an attack."""
    return {
        name: {
            "adversarial_against_noise": auc(seen.noise[run.fooled], seen.adversarial[run.fooled]),
            "noise_against_clean": auc(seen.clean[run.fooled], seen.noise[run.fooled]),
        }
        for name, seen in run.watched.items()
        if seen.noise is not None
    }


def auc(negative: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve from ranks, ties one half; None without scores on both sides, or with a NaN."""
    from scipy.stats import rankdata  # a second that planning a study need not wait

    n, m = len(negative), len(positive)
    scores = np.r_[negative.numpy(), positive.numpy()]
    if not n or not m or np.isnan(scores).any():
        return None
    return float((rankdata(scores)[n:].sum() - m * (m + 1) / 2) / (n * m))
