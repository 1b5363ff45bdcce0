"""Attacks on image classifiers: torch only, stateless, one file each.

Every attack is called as ``attack(target, x, y=None, *, index=None, seed=0)`` and returns an `AttackResult`;
see `attacks.base`.
"""

from attacks.base import Attack, AttackResult, Crafted, Task
from attacks.bim import BIM
from attacks.carlini_wagner import CarliniWagner
from attacks.fgsm import FGSM
from attacks.identity import NoAttack
from attacks.jsma import JSMA
from attacks.target import frozen

__all__ = [
    "BIM",
    "FGSM",
    "JSMA",
    "Attack",
    "AttackResult",
    "CarliniWagner",
    "Crafted",
    "NoAttack",
    "Task",
    "frozen",
]
