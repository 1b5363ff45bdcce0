"""What the evaluation card needs beyond a study's own cells: facts of its artifacts, and further attacks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pdm_lightning.card.compare import BLIND
from pdm_lightning.threat import check, lengths, needs, single_step

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Entry, Node

MakeNode = Callable[..., "Node"]
Config = dict[str, Any]

RUNS = ("none", "facts", "all")
"""``card.run``: no card; one of what the study itself has computed; and with the attacks that the checks ask for."""
LOSSES = ("ce", "margin", "dlr")
"""Losses that every attack of the project with a loss knows."""
_NEAREST: Config = {"_target_": "attacks.MinNorm", "norm": "l2"}
_ANYWHERE: Config = {"_target_": "attacks.BIM", "eps": 1.0, "loss": "margin", "iterations": 40}
_NEAREST_JOINT: Config = {"_target_": "attacks.MinNormWhiteBox"}
_ANYWHERE_JOINT: Config = {
    "_target_": "attacks.SelectivePGD",
    "eps": 1.0,
    "loss": "margin",
    "iterations": 100,
    "restarts": 3,
}
_LOOKALIKE: Config = {"_target_": "attacks.Mimicry", "eps": 1.0}
"""Unbounded, for a detector without gradients."""


@dataclass(frozen=True)
class Probe:
    """An attack that a check asks for.

    Attributes
    ----------
    role : str
        One of `pdm_lightning.card.evidence.PROBES`.
    of, node : Node
        Of kind ``craft``: the study's own, and the probe's.
    attack : dict
        The probe's parameters.
    """

    role: str
    of: Node
    node: Node
    attack: Config


@dataclass
class CardPlan:
    """The nodes behind a card; all mappings are by the key of the ``craft`` or ``train`` node that they look at.

    ``alarms`` are by (``craft`` key, ``detector`` key).
    """

    probes: list[Probe] = field(default_factory=list)
    validity: dict[str, Node] = field(default_factory=dict)
    noise: dict[str, Node] = field(default_factory=dict)
    alarms: dict[tuple[str, str], Node] = field(default_factory=dict)
    gradients: dict[str, Node] = field(default_factory=dict)
    splits: dict[str, Node] = field(default_factory=dict)
    selftest: dict[str, Node] = field(default_factory=dict)

    @property
    def nodes(self) -> Iterator[Node]:
        """All of them."""
        yield from (probe.node for probe in self.probes)
        for kind in (self.validity, self.noise, self.gradients, self.splits, self.selftest):
            yield from kind.values()
        yield from self.alarms.values()


def plan_card(entries: list[Entry], make: MakeNode) -> CardPlan:
    """Plan what the card of a study takes, as far as ``card.run`` asks for it.

    Parameters
    ----------
    entries : list of Entry
    make : callable
        Makes a node: ``make(kind, spec, title, runtime, **parents)``, each of them once.
    """
    card, models = CardPlan(), set[tuple[str, ...]]()
    for entry in entries:
        run = entry.cell.config["card"]["run"]
        if run == "none" or "craft" not in entry.nodes:
            continue
        _facts(entry, card, make)
        if run == "all":
            _unbounded(entry, card, make, models)
            _probes(entry, card, make)
    return card


def _facts(entry: Entry, card: CardPlan, make: MakeNode) -> None:
    nodes, config = entry.nodes, entry.cell.config
    craft, train, features, detector = (nodes[kind] for kind in ("craft", "train", "features", "detector"))
    # an artifact of another rounding is another one
    card.validity[craft.key] = make("validity", {"rounding": "in the ball"}, craft.title, {}, craft=craft)
    noise = make("noise", {"seed": config["seed"]}, craft.title, {}, craft=craft)
    card.noise[craft.key] = noise
    title = f"{craft.title} {entry.cell.name('detector')}"
    card.alarms[craft.key, detector.key] = make("alarms", {}, title, {}, noise=noise, detector=detector)
    looked_at = {"images": 64}
    card.gradients[train.key] = make("gradients", looked_at, train.title, {}, features=features)
    card.splits[train.key] = make("splits", {}, train.title, {}, features=features)


def _unbounded(entry: Entry, card: CardPlan, make: MakeNode, known: set[tuple[str, ...]]) -> None:
    """Once a model, attacks without a bound on the model itself, whatever the threat; and once a detector, on both.

    `known` holds the models and detectors that have them.
    """
    craft, train = entry.nodes["craft"], entry.nodes["train"]
    asked: dict[tuple[str, ...], tuple[Config, ...]] = {(train.key,): (_NEAREST, _ANYWHERE)}
    if "detector" in craft.parents and "surrogate" not in craft.parents:
        asked[train.key, craft.parents["detector"].key] = (
            (_NEAREST_JOINT, _ANYWHERE_JOINT) if _granted(entry, _NEAREST_JOINT) else (_LOOKALIKE,)
        )
    for place, attacks in asked.items():
        if place not in known:
            known.add(place)
            card.probes += [
                Probe("unbounded", craft, node, dict(attack))
                for attack in attacks
                if (node := _crafting(entry, dict(attack), make, direct=True)) is not None
                and node.key != craft.key
            ]


def _granted(entry: Entry, attack: Mapping[str, Any]) -> bool:
    """Whether the entry's threat model and detector give an attack what it needs."""
    config = entry.cell.config
    return not check({"name": "", **attack}, config["threat"], config["detector"])


def _probes(entry: Entry, card: CardPlan, make: MakeNode) -> None:
    craft, config = entry.nodes["craft"], entry.cell.config
    if craft.key in card.selftest:
        return  # another detector looks at the same images
    attack, watched = craft.spec["attack"], "detector" in craft.parents
    for role, changed in variants(attack, config["attack"], entry.note, watched):
        node = _crafting(entry, changed, make) if _granted(entry, changed) else None
        if node is not None and node.key != craft.key:
            card.probes.append(Probe(role, craft, node, changed))
    parents = {"train": craft.parents["train"], "features": entry.nodes["features"]}
    parents |= {"detector": craft.parents["detector"]} if watched else {}
    # "sign": an artifact without that measurement is another one
    spec = {"attack": attack, "images": config["card"]["self_test"], "seed": config["seed"], "sign": True}
    card.selftest[craft.key] = make("selftest", spec, craft.title, craft.runtime, **parents)


def variants(
    attack: Config, option: Mapping[str, Any], capped: str, watched: bool
) -> Iterator[tuple[str, Config]]:
    """Roles and parameters of the attacks that belong to one of the study's.

    Parameters
    ----------
    attack : dict
        Its parameters, as it runs.
    option : mapping
        Its option in ``conf/attack``, for ``lean``.
    capped : str
        What the budget took from it.
    watched : bool
        It works on classifier and detector.
    """
    ball, target = attack.get("eps"), str(attack["_target_"])
    blind, aim = target.rpartition(".")[2] in BLIND, _aim(attack)
    many, judged = not single_step(attack), not option.get("lean") and not capped
    if ball and many:
        for factor in (0.5, 2.0):
            if ball * factor <= 1:
                yield "wider", _scaled(attack, factor)
    if lengths(attack) and judged:
        yield "doubled", _longer(attack)
    if attack.get("restarts") and judged:
        yield "doubled", attack | {"restarts": 2 * attack["restarts"]}
    if attack.get("loss") == "ce" and judged:
        yield "margin", attack | {"loss": "margin"}
    one = _one_step(attack, watched) if ball and many and not blind else None
    if one:
        yield "one_step", one
    if target == "attacks.FGSM":
        yield "iterated", {"_target_": "attacks.BIM", "eps": ball, "loss": attack.get("loss", "ce")} | aim
    if ball and many and not blind:
        norm = attack.get("norm", "linf")
        name = "attacks.Square" if watched else "attacks.ClassifierSquare"
        yield "gradient_free", {"_target_": name, "norm": norm, "eps": ball} | aim


def _aim(attack: Config) -> Config:
    """The class that an attack aims at, where it aims at one; otherwise nothing."""
    return {
        key: attack[key] for key in ("targeted", "target_class") if attack.get("targeted") and key in attack
    }


def _one_step(attack: Config, watched: bool) -> Config | None:
    """One step across an attack's ball: its own where it has steps; None where there is no such attack."""
    loss, norm = attack.get("loss", "ce"), attack.get("norm", "linf")
    loss = loss if loss in LOSSES else "ce"
    if not watched:
        fast = {"_target_": "attacks.FGSM", "eps": attack["eps"], "loss": loss}
        return fast | _aim(attack) if norm == "linf" else None
    joint = _ANYWHERE_JOINT | {"norm": norm, "loss": loss} | _aim(attack)
    own = attack if {"iterations", "step"} <= set(attack) else joint
    single = {key: 1 for key in ("iterations", "restarts", "searches") if key in own}
    return own | single | {"eps": attack["eps"], "step": attack["eps"]}


def _longer(attack: Config) -> Config:
    """The attack at twice its length."""
    longer = copy.deepcopy(attack)
    for name, value in lengths(attack).items():
        *inside, last = name.split(".")
        place = longer
        for part in inside:
            place = place[part]
        place[last] = 2 * value
    return longer


def _scaled(attack: Config, factor: float) -> Config:
    """The attack in a ball of another radius, its steps in proportion."""
    wider = attack | {"eps": attack["eps"] * factor}
    return wider | ({"step": attack["step"] * factor} if attack.get("step") else {})


def _crafting(entry: Entry, attack: Config, make: MakeNode, direct: bool = False) -> Node | None:
    """The ``craft`` node of a probe: as the study's own, on ``card.images`` images at most.

    A `direct` one works on the model itself, where the study's own works on a surrogate.
    """
    config, own = entry.cell.config, entry.nodes["craft"]
    most = config["card"]["images"]
    spec = own.spec | {"attack": attack, "images": min(most, own.spec["images"] or most)}
    parents, runtime = dict(own.parents), own.runtime
    if direct and "surrogate" in parents:
        for role in ("surrogate", "surrogate_features", "detector"):
            parents.pop(role, None)
        spec.pop("threat", None)
        runtime = runtime | {"threat": {"_target_": "pdm_lightning.threat.GrayBox"}}
    if "detector" not in needs(attack):  # what does not ask for the detector does not get it
        parents.pop("detector", None)
        spec.pop("aim", None)
    elif "detector" not in parents:
        return None
    what = " ".join(f"{key}={value}" for key, value in attack.items() if key != "_target_")
    title = f"{own.parents['train'].title} card: {attack['_target_'].rpartition('.')[2]} {what}"
    return make("craft", spec, title, runtime, **parents)
