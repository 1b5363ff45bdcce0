"""What the checks of the evaluation card look at: plain data, gathered from a study's artifacts.

Nothing here computes or opens anything; `pdm_lightning.study.evidence` fills it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

STUDY = "study"
PROBES = ("unbounded", "wider", "one_step", "iterated", "doubled", "margin", "gradient_free")
"""Roles of the runs that a card adds to a study, each named after what it does to the attack that it belongs to."""


@dataclass(frozen=True)
class Watched:
    """What a detector says of one run.

    Attributes
    ----------
    clean, adversarial : Tensor
        (N,) float64 scores of the attacked images and of their adversarial versions.
    noise : Tensor or None
        (N,) float64 scores of noisy versions at the adversarial versions' own distances.
    thresholds : mapping of str to (float or None)
        By false-positive rate ("0.05"): frozen on clean validation images; None where these are too few.
    """

    clean: Tensor
    adversarial: Tensor
    noise: Tensor | None
    thresholds: Mapping[str, float | None]


@dataclass(frozen=True)
class Run:
    """One attack on one model, under one threat model.

    Attributes
    ----------
    key : str
        Of its ``craft`` artifact.
    model : str
        Key of the model that is attacked, as in `Evidence.models`.
    threat : str
        ``gray_box``, ``white_box``, ``black_box``, ``transfer``: of the first cell that asks for it.
    name : str
        Of the attack, as the tables print it.
    attack : mapping
        The attack's parameters with ``_target_``, as it ran (capped by the budget).
    role : str
        ``study``, or one of `PROBES`.
    also : frozenset of str
        Further threat models: an attack that does not ask for the detector is one computation in gray and white box.
    of : str
        For a probe, the key of the study's run that it belongs to.
    lean : bool
        The attack is declared lean.
    capped : str
        What the budget took from its iterations, or "".
    candidates, tried, expected : int
        Test images tried, as recorded and by the settings; those among them that the model classifies correctly,
        counted anew: so many rows are due.
    index : Tensor
        (N,) int64 test images attacked.
    fooled, success : Tensor
        (N,) bool: misclassified; success by the attack's own criterion on the model that it worked on.
    l2, linf : Tensor
        (N,) distances from the clean image, as recorded.
    zero_gradients : Tensor
        (N,) int64 gradients that were all zero.
    passes : Tensor
        (N,) int64 gradients or queries taken.
    watched : mapping of str to Watched
        By the detector's name; empty for a probe without scores.
    needs : frozenset of str
        What the attack asks of a threat model.
    single_step : bool
        It takes one step at most.
    length : tuple of str
        The parameters that say how long it works; empty where none can be doubled.
    facts : mapping
        What was measured of the images themselves, see `pdm_lightning.stages.validity`; empty for a probe.
    """

    key: str
    model: str
    threat: str
    name: str
    attack: Mapping[str, Any]
    role: str
    index: Tensor
    fooled: Tensor
    success: Tensor
    l2: Tensor
    linf: Tensor
    zero_gradients: Tensor
    passes: Tensor
    candidates: int
    tried: int
    expected: int
    also: frozenset[str] = frozenset()
    of: str = ""
    lean: bool = False
    capped: str = ""
    watched: Mapping[str, Watched] = field(default_factory=dict)
    needs: frozenset[str] = frozenset({"logits"})
    single_step: bool = False
    length: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threats(self) -> frozenset[str]:
        """All threat models that it is an attack of."""
        return self.also | {self.threat}

    @property
    def ball(self) -> tuple[str, float] | None:
        """Norm and radius that the attack is held to, or None for one that looks for the nearest image."""
        eps = self.attack.get("eps")
        return None if eps is None else (str(self.attack.get("norm", "linf")), float(eps))


@dataclass(frozen=True)
class Model:
    """A trained classifier and its detectors.

    Attributes
    ----------
    key, title : str
        Of its ``train`` artifact; data, model, defence and seed in words.
    data : str
        Name of its data set.
    gradients : mapping
        What ``stages/gradients.py`` measured; empty where it did not run.
    splits : mapping
        What ``stages/splits.py`` counted; empty where it did not run.
    alarms : mapping of str to mapping
        By detector, by false-positive rate: ``flagged`` of ``n`` clean test images, at a threshold that allows
        ``allowed`` of ``m`` clean validation images.
    selftest : mapping
        What ``stages/selftest.py`` measured, by the key of a run; empty where it did not run.
    """

    key: str
    title: str
    data: str
    gradients: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, Any] = field(default_factory=dict)
    alarms: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    selftest: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All that a card judges.

    Attributes
    ----------
    models : mapping of str to Model
        By key.
    runs : list of Run
    rows : list of mapping
        The rows of ``results.csv``: ``metric``, ``value``, ``ci_low``, ``ci_high``, ``n``, ``n_attacked``, ``status``,
        ``attack``, ``note`` and the names.
    failed : list of str
        What the study could not compute.
    probed : bool
        Whether the attacks that the checks ask for were planned (``card.run=all``).
    """

    models: Mapping[str, Model]
    runs: list[Run]
    rows: list[Mapping[str, Any]]
    failed: list[str] = field(default_factory=list)
    probed: bool = False

    def study(self) -> list[Run]:
        """The study's own runs."""
        return [run for run in self.runs if run.role == STUDY]

    def probes(self, role: str, of: Run | None = None) -> list[Run]:
        """The probes of a role, or those of one run."""
        return [run for run in self.runs if run.role == role and (of is None or run.of == of.key)]
