"""What is compared: attacks with the parameters that every library is given alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One attack and its parameters.

    Attributes
    ----------
    key, title
        Name on the command line, and in tables.
    norm
        The distance that counts: "linf", "l2" or "l0".
    n
        Images that are attacked where nothing else is asked for.
    eps
        Radius of the L-infinity ball; None: the attack seeks the smallest distance.
    iterations, search_steps, lr
        Gradient steps of a search, searches over the constant, learning rate.
    confidence
        Margin of logits that a success has to reach.
    gamma
        Share of the pixels that may change.
    targeted
        Every image aims at the class after its label.
    keeps_best
        The attack looks at its iterates and returns the best: worse than the clean image is then a fault.
    """

    key: str
    title: str
    norm: str
    n: int
    eps: float | None = None
    iterations: int = 1
    search_steps: int = 1
    lr: float = 0.1
    confidence: float = 0.0
    gamma: float = 1.0
    targeted: bool = False
    keeps_best: bool = False


_ALL = (
    Family("fgsm", "FGSM, eps .1", "linf", 128, eps=0.1),
    Family("bim", "BIM, eps .1, 10 iterations", "linf", 128, eps=0.1, iterations=10),
    Family("cw", "C&W L2, 9 x 50, lr .1", "l2", 16, iterations=50, search_steps=9, lr=0.1, keeps_best=True),
    Family(
        "cw5",
        "C&W L2, 9 x 50, lr .1, confidence 5",
        "l2",
        16,
        iterations=50,
        search_steps=9,
        lr=0.1,
        confidence=5.0,
        keeps_best=True,
    ),
    Family("jsma", "JSMA, theta 1, a tenth of the pixels", "l0", 8, gamma=0.1, targeted=True),
    Family("l2", "Smallest L2, 100 iterations", "l2", 32, iterations=100, keeps_best=True),
    Family("linf", "Smallest Linf, 100 iterations", "linf", 32, iterations=100, keeps_best=True),
)

#: By key, in the order of the tables.
FAMILIES = {family.key: family for family in _ALL}
