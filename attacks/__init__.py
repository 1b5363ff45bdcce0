"""Attacks on image classifiers, alone or with a detector behind them: torch only, stateless, one file each.

Every attack is called as ``attack(target, x, y=None, *, index=None, seed=0)`` and returns an `AttackResult`;
see `attacks.base`. Attacks on a detector take a `Watched` target; see `attacks.watched`.
"""

from attacks.base import Attack
from attacks.bim import BIM
from attacks.carlini_wagner import CarliniWagner
from attacks.carlini_wagner_wb import CarliniWagnerWhiteBox
from attacks.classifier_square import ClassifierSquare
from attacks.engine import Prepared, Setup, fastest, prepare
from attacks.extra_class import ExtraClass
from attacks.fgsm import FGSM
from attacks.folding import fold
from attacks.identity import NoAttack
from attacks.joint import JointAttack, joint_margin
from attacks.joint_pgd import JointPGD
from attacks.jsma import JSMA
from attacks.library import LibraryAttack, LibraryQueryAttack
from attacks.mimicry import Mimicry
from attacks.min_norm import MinNorm
from attacks.min_norm_wb import MinNormWhiteBox
from attacks.orthogonal_pgd import OrthogonalPGD
from attacks.selective_pgd import SelectivePGD
from attacks.square import Square
from attacks.target import frozen
from attacks.task import AttackResult, Crafted, Task
from attacks.watched import Look, Watched

__all__ = [
    "BIM",
    "FGSM",
    "JSMA",
    "Attack",
    "AttackResult",
    "CarliniWagner",
    "CarliniWagnerWhiteBox",
    "ClassifierSquare",
    "Crafted",
    "ExtraClass",
    "JointAttack",
    "JointPGD",
    "LibraryAttack",
    "LibraryQueryAttack",
    "Look",
    "Mimicry",
    "MinNorm",
    "MinNormWhiteBox",
    "NoAttack",
    "OrthogonalPGD",
    "Prepared",
    "SelectivePGD",
    "Setup",
    "Square",
    "Task",
    "Watched",
    "fastest",
    "fold",
    "frozen",
    "joint_margin",
    "prepare",
]
