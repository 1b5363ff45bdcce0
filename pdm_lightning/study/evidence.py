"""From a study's artifacts to what the checks of its card look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from pdm_lightning.card.compare import SURROGATE
from pdm_lightning.card.evidence import STUDY, Evidence, Model, Run, Watched
from pdm_lightning.data.base import TEST_ORDER_SEED, balanced_order
from pdm_lightning.report.rows import Row
from pdm_lightning.stages import features
from pdm_lightning.store import Artifact
from pdm_lightning.study.plan import Entry, Node, Plan
from pdm_lightning.study.probes import CardPlan, Probe
from pdm_lightning.threat import lengths, needs, single_step

Opened = Callable[[Node], Artifact | None]
_KEPT = ("index", "success", "l2", "linf", "zero_gradients", "passes")


def gather(plan: Plan, opened: Opened, rows: Iterable[Row], failed: Iterable[str]) -> Evidence | None:
    """Gather what a card looks at.

    Parameters
    ----------
    plan : Plan
    opened : callable
        The artifact of a node, or None where there is none.
    rows : iterable of Row
        The study's results.
    failed : iterable of str
        What could not be computed, in words.

    Returns
    -------
    Evidence or None
        None where the study asks for no card, or attacks nothing.
    """
    card = plan.card
    entries = [e for e in plan.entries if "craft" in e.nodes and e.nodes["craft"].key in card.validity]
    if not entries:
        return None
    found = _Gatherer(card, opened)
    for entry in entries:
        found.study(entry)
    for probe in card.probes:
        found.probe(probe)
    plain: list[Mapping[str, Any]] = [asdict(row) for row in rows]
    probed = all(entry.cell.config["card"]["run"] == "all" for entry in entries)
    return Evidence(found.models, list(found.runs.values()), plain, list(failed), probed)


class _Gatherer:
    """Opens each artifact once."""

    def __init__(self, card: CardPlan, opened: Opened) -> None:
        self.card, self.opened = card, opened
        self.models: dict[str, Model] = {}
        self.runs: dict[str, Run] = {}
        self.right: dict[str, Tensor] = {}

    def json(self, node: Node | None, name: str) -> dict[str, Any]:
        """Content of an artifact's file; empty where there is none."""
        artifact = None if node is None else self.opened(node)
        return {} if artifact is None else dict(artifact.json(name))

    def study(self, entry: Entry) -> None:
        """A cell: its model, its attack, and what its detector says."""
        nodes, config = entry.nodes, entry.cell.config
        crafting, score = nodes["craft"], self.opened(nodes["score"])
        if score is None:
            return
        self.model(entry)
        threat = config["threat"]["name"]
        if crafting.key not in self.runs:
            attack = crafting.spec["attack"]
            run = self.run(crafting, attack, STUDY, entry.cell.label("attack"), threat)
            if run is None:
                return
            facts = self.json(self.card.validity[crafting.key], "validity.json")
            noise = self.json(self.card.noise[crafting.key], "noise.json")
            facts |= {"noise": noise} if noise else {}
            lean = bool(config["attack"].get("lean"))
            self.runs[crafting.key] = replace(run, lean=lean, capped=entry.note, facts=facts)
            self.self_tested(crafting, nodes["train"].key)
        known = self.runs[crafting.key]
        self.runs[crafting.key] = replace(known, also=(known.also | {threat}) - {known.threat})
        self.watch(entry, score)

    def watch(self, entry: Entry, score: Artifact) -> None:
        """Add what a detector says of a run."""
        nodes = entry.nodes
        run, detector = self.runs[nodes["craft"].key], nodes["detector"]
        tensors, told = load_file(score.file("scores.safetensors")), score.json("score.json")
        alarms = self.opened(self.card.alarms[nodes["craft"].key, detector.key])
        noise = None if alarms is None else load_file(alarms.file("scores.safetensors"))["noise"]
        name = entry.cell.label("detector")
        watched = Watched(tensors["clean"], tensors["adversarial"], noise, told["thresholds"])
        self.runs[run.key] = replace(run, watched={**run.watched, name: watched})
        self.alarms(nodes["train"].key, name, detector, told["thresholds"])
        if alarms is not None:
            self.repeats(nodes["train"].key, name, alarms.json("alarms.json")["nondeterministic"])

    def model(self, entry: Entry) -> None:
        """A trained classifier, with what was measured of it."""
        train, cell = entry.nodes["train"], entry.cell
        if train.key in self.models:
            return
        self.models[train.key] = Model(
            key=train.key,
            title=train.title,
            data=cell.name("data"),
            gradients=self.json(self.card.gradients.get(train.key), "gradients.json"),
            splits=self.json(self.card.splits.get(train.key), "splits.json"),
        )

    def alarms(self, model: str, name: str, detector: Node, thresholds: Mapping[str, float | None]) -> None:
        """How many clean test images a frozen threshold flags, and how many validation images it may."""
        artifact = self.opened(detector)
        if artifact is None or name in self.models[model].alarms:
            return
        scores = load_file(artifact.file("scores.safetensors"))
        m, n = len(scores["validation"]), len(scores["test"])
        counts = {
            fpr: {
                "flagged": int((scores["test"] > threshold).sum()),
                "n": n,
                "allowed": int(float(fpr) * m + 1e-9),
                "m": m,
            }
            for fpr, threshold in thresholds.items()
            if threshold is not None
        }
        self.note(model, "alarms", name, counts)

    def repeats(self, model: str, name: str, differ: float) -> None:
        """Keep the largest difference between two scorings of the same images."""
        known = dict(self.models[model].gradients.get("scores_nondeterministic", {}))
        known[name] = max(differ, known.get(name, 0.0))
        self.note(model, "gradients", "scores_nondeterministic", known)

    def self_tested(self, crafting: Node, model: str) -> None:
        """What the attack's self-test found."""
        measured = self.json(self.card.selftest.get(crafting.key), "selftest.json")
        if measured:
            self.note(model, "selftest", crafting.key, measured)

    def note(self, model: str, part: str, name: str, value: Any) -> None:
        """Add an entry to one of a model's mappings."""
        found = self.models[model]
        changes: dict[str, Any] = {part: {**getattr(found, part), name: value}}
        self.models[model] = replace(found, **changes)

    def probe(self, probe: Probe) -> None:
        """An attack that a check asked for, where its own run is there."""
        own = self.runs.get(probe.of.key)
        if own is None:
            return
        name = f"{own.name}, {probe.role}"
        foreign = own.threat in SURROGATE and "surrogate" not in probe.node.parents
        run = self.run(probe.node, probe.attack, probe.role, name, "gray_box" if foreign else own.threat)
        if run is not None:
            key = f"{probe.node.key}:{probe.role}:{own.key}"  # one crafting may serve several checks
            self.runs[key] = replace(run, of=own.key, lean=own.lean, also=own.also)

    def run(self, node: Node, attack: dict[str, Any], role: str, name: str, threat: str) -> Run | None:
        """What a crafting came to; None where it is not there."""
        artifact = self.opened(node)
        if artifact is None:
            return None
        rows, counts = load_file(artifact.file("adversarial.safetensors")), artifact.json("craft.json")
        kept: dict[str, Any] = {key: rows[key] for key in _KEPT}
        right = self.in_order(node)
        return Run(
            key=node.key,
            model=node.parents["train"].key,
            threat=threat,
            name=name,
            attack=attack,
            role=role,
            fooled=rows["predicted"] != rows["y"],
            candidates=counts["candidates"],
            tried=len(right),
            expected=int(right.sum()),
            needs=needs(attack),
            single_step=single_step(attack),
            length=tuple(lengths(attack)),
            **kept,
        )

    def in_order(self, node: Node) -> Tensor:
        """(n,) bool: of the images that a crafting has to try, those that its model's features classify correctly."""
        parent = node.parents["features"]
        if parent.key not in self.right:
            artifact = self.opened(parent)
            assert artifact is not None
            test = features.read(artifact)["test"]
            order = balanced_order(test.labels, TEST_ORDER_SEED)
            self.right[parent.key] = (test.predicted == test.labels)[order]
        return self.right[parent.key][: node.spec["images"]]
