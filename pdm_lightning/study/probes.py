"""What the evaluation card needs beyond a study's own cells: facts of its artifacts, and further attacks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pdm_lightning.card.compare import BLIND
from pdm_lightning.threat import lengths, needs, single_step

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Entry, Node

MakeNode = Callable[..., "Node"]
Config = dict[str, Any]

RUNS = ("none", "facts", "all")
"""``card.run``: no card; one of what the study itself has computed; and with the attacks that the checks ask for."""
_NEAREST = {"_target_": "attacks.MinNorm", "norm": "l2"}
_ANYWHERE = {"_target_": "attacks.BIM", "eps": 1.0, "loss": "margin", "iterations": 40}


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
    card, models = CardPlan(), set[str]()
    for entry in entries:
        run = entry.cell.config["card"]["run"]
        if run == "none" or "craft" not in entry.nodes:
            continue
        _facts(entry, card, make)
        if run == "all":
            train = entry.nodes["train"].key
            first = train not in models and entry.cell.config["threat"]["name"] == "gray_box"
            models |= {train} if first else set()
            _probes(entry, card, make, first)
    return card


def _facts(entry: Entry, card: CardPlan, make: MakeNode) -> None:
    nodes, config = entry.nodes, entry.cell.config
    craft, train, features, detector = (nodes[kind] for kind in ("craft", "train", "features", "detector"))
    card.validity[craft.key] = make("validity", {}, craft.title, {}, craft=craft)
    noise = make("noise", {"seed": config["seed"]}, craft.title, {}, craft=craft)
    card.noise[craft.key] = noise
    title = f"{craft.title} {entry.cell.name('detector')}"
    card.alarms[craft.key, detector.key] = make("alarms", {}, title, {}, noise=noise, detector=detector)
    looked_at = {"images": 64}
    card.gradients[train.key] = make("gradients", looked_at, train.title, {}, features=features)
    card.splits[train.key] = make("splits", {}, train.title, {}, features=features)


def _probes(entry: Entry, card: CardPlan, make: MakeNode, first: bool) -> None:
    craft, config = entry.nodes["craft"], entry.cell.config
    if craft.key in {probe.of.key for probe in card.probes}:
        return  # another detector looks at the same images
    attack, watched = craft.spec["attack"], "detector" in craft.parents
    for role, changed in variants(attack, config["attack"], entry.note, watched, first):
        node = _crafting(entry, changed, make)
        if node is not None and node.key != craft.key:
            card.probes.append(Probe(role, craft, node, changed))
    parents = {"train": craft.parents["train"], "features": entry.nodes["features"]}
    parents |= {"detector": craft.parents["detector"]} if watched else {}
    # "sign": an artifact without that measurement is another one
    spec = {"attack": attack, "images": config["card"]["self_test"], "seed": config["seed"], "sign": True}
    card.selftest[craft.key] = make("selftest", spec, craft.title, craft.runtime, **parents)


def variants(
    attack: Config, option: Mapping[str, Any], capped: str, watched: bool, first: bool = False
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
    first : bool
        It is the first one on its model.
    """
    ball, target = attack.get("eps"), str(attack["_target_"])
    many, judged = not single_step(attack), not option.get("lean") and not capped
    if first:
        yield "unbounded", dict(_NEAREST)
        yield "unbounded", dict(_ANYWHERE)
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
    if target == "attacks.BIM":
        yield "one_step", {"_target_": "attacks.FGSM", "eps": ball, "loss": attack.get("loss", "ce")}
    if target == "attacks.FGSM":
        yield "iterated", {"_target_": "attacks.BIM", "eps": ball, "loss": attack.get("loss", "ce")}
    if ball and many and target.rpartition(".")[2] not in BLIND:
        norm = attack.get("norm", "linf")
        name = "attacks.Square" if watched else "attacks.ClassifierSquare"
        yield "gradient_free", {"_target_": name, "norm": norm, "eps": ball}


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


def _crafting(entry: Entry, attack: Config, make: MakeNode) -> Node | None:
    """The ``craft`` node of a probe: as the study's own, on ``card.images`` images at most."""
    config, own = entry.cell.config, entry.nodes["craft"]
    most = config["card"]["images"]
    spec = own.spec | {"attack": attack, "images": min(most, own.spec["images"] or most)}
    parents = dict(own.parents)
    if "detector" not in needs(attack):  # what does not ask for the detector does not get it
        parents.pop("detector", None)
        spec.pop("aim", None)
    elif "detector" not in parents:
        return None
    what = " ".join(f"{key}={value}" for key, value in attack.items() if key != "_target_")
    title = f"{own.parents['train'].title} card: {attack['_target_'].rpartition('.')[2]} {what}"
    return make("craft", spec, title, own.runtime, **parents)
