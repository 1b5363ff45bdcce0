"""The evaluation card: checks that judge a study on its own results."""

from __future__ import annotations

from pdm_lightning.card import (
    converged,
    counts,
    gradients,
    noise,
    selftests,
    split,
    strength,
    threats,
    validity,
)
from pdm_lightning.card.card import Card, Check, Finding, Look, judge
from pdm_lightning.card.render import card_table, markdown, print_card

#: Title and function of each check, by id, in order.
CHECKS: dict[str, tuple[str, Look]] = {
    "unbounded": ("Unbounded attacks reach every image", strength.unbounded),
    "monotone": ("Success grows with eps", strength.monotone),
    "iterated": ("Iterations beat a single step", strength.iterated),
    "converged": ("Attacks have converged", converged.converged),
    "threats": ("White box >= gray box >= black box", threats.threats),
    "gradient_free": ("Gradients beat no gradients", strength.gradient_free),
    "noise": ("Noise of the same size is weaker", noise.noise),
    "gradients": ("Gradients are usable", gradients.gradients),
    "validity": ("Adversarial images are valid", validity.validity),
    "disjoint": ("Thresholds from other data than test", split.disjoint),
    "counts": ("Every image is accounted for", counts.counts),
    "selftest": ("Attacks find what is there; claims are plausible", selftests.selftest),
}

__all__ = ["CHECKS", "Card", "Check", "Finding", "Look", "card_table", "judge", "markdown", "print_card"]
