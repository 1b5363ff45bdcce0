"""Planning a study: which stages its cells need, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pdm_lightning.manifest import canonical, key_of
from pdm_lightning.stages.instantiate import instantiate
from pdm_lightning.study import specs
from pdm_lightning.study.averages import averages
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.compare import comparisons
from pdm_lightning.study.graph import WAVES, Entry, Node, Plan, Worst, ancestry
from pdm_lightning.study.measure import measurements
from pdm_lightning.study.probes import plan_card
from pdm_lightning.threat import check, needs, surrogate_of

__all__ = ["WAVES", "Entry", "Node", "Plan", "Worst", "ancestry", "make_plan"]

Made = TypeVar("Made")
#: Parts of a configuration that a training, its features and their figures follow from, or run by.
_MODEL = (
    *("data", "model", "defense", "optimizer", "budget", "seed", "features", "report", "tsne"),
    *("trainer", "paths", "logger", "name"),
)


def make_plan(cells: Iterable[Cell]) -> Plan:
    """Plan the cells.

    Raises
    ------
    PermissionError
        Where the only cell asks for what its threat model withholds; in a sweep such a cell is listed as refused.
    """
    cells = list(cells)
    planner = _Planner()
    entries = [planner.entry(cell) for cell in cells]
    _check_names(entries)
    if len(entries) == 1 and entries[0].refused:
        raise PermissionError(entries[0].refused)
    card, compared = plan_card(entries, planner.node), comparisons(entries, planner.node)
    averaged, measured = averages(entries, planner.node), measurements(entries, planner.node)
    return Plan(entries, list(planner.worst(entries)), card, compared, averaged, measured)


def _check_names(entries: list[Entry]) -> None:
    """ValueError where two different cells would be one row of a table."""
    last = {entry.cell.names(): entry for entry in entries}
    for entry in entries:
        other = last[entry.cell.names()]
        if other is entry:
            continue
        if {n.key for n in entry.nodes.values()} != {n.key for n in other.nodes.values()}:
            differ = sorted(set(entry.cell.overrides) ^ set(other.cell.overrides))
            raise ValueError(
                f"two cells of the sweep would have the same names in the tables: they differ in {', '.join(differ)} "
                "only; sweep it in two commands with name=... each"
            )


@dataclass(frozen=True)
class _Model:
    """A training with what is computed of it alone."""

    title: str
    runtime: dict[str, Any]
    nodes: dict[str, Node]


class _Planner:
    """Makes nodes and keeps one of each.

    The cells of a sweep share the parts of their configurations, so what follows from the same parts is made once.
    """

    def __init__(self) -> None:
        self.known: dict[str, Node] = {}
        self.prints: dict[str, str] = {}
        self._made: dict[tuple[int | str, ...], tuple[tuple[Any, ...], Any]] = {}

    def once(self, what: str, parts: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """What `make` gives, made once for the same texts and the same (not only equal) other parts."""
        place = (what, *(part if isinstance(part, str) else id(part) for part in parts))
        if place not in self._made:
            self._made[place] = (parts, make())  # while the parts are kept, no other object has their ids
        made: Made = self._made[place][1]
        return made

    def node(
        self, kind: str, spec: dict[str, Any], title: str, runtime: dict[str, Any], **parents: Node
    ) -> Node:
        """The node of these settings and parents: the first that was made, with its title and runtime."""
        text = self.once("text", (spec,), lambda: canonical(spec))
        key = key_of(kind, text, {role: parent.key for role, parent in parents.items()})
        if key not in self.known:
            self.known[key] = Node(kind, spec, parents, runtime, title)
            vars(self.known[key])["key"] = key  # known already: the property need not hash the settings again
        return self.known[key]

    def entry(self, cell: Cell) -> Entry:
        config = cell.config
        names = {group: cell.name(group) for group in ("data", "model", "defense")}
        parts = (*names.values(), *(config[part] for part in _MODEL))
        model = self.once("model", parts, lambda: self.model(config, names))
        if config["attack"]["name"] == "none":
            return Entry(cell, dict(model.nodes))
        return self.attacked(cell, model)

    def model(self, config: dict[str, Any], names: dict[str, str]) -> _Model:
        title = " ".join([*names.values(), f"seed={config['seed']}"])
        runtime = {"data": config["data"], "trainer": config["trainer"], "paths": config["paths"]}
        spec = specs.train_spec(config, self.prints)
        train = self.node("train", spec, title, runtime | _training(config, names))
        features = self.node("features", specs.features_spec(config), title, runtime, train=train)
        nodes = {"train": train, "features": features}
        nodes["clean"] = self.node("clean", {}, title, {}, features=features)
        if "tsne" in config["report"]["figures"]:
            nodes["tsne"] = self.node("tsne", dict(config["tsne"]), title, {}, features=features)
        return _Model(title, runtime, nodes)

    def attacked(self, cell: Cell, model: _Model) -> Entry:
        config, nodes, runtime = cell.config, model.nodes, model.runtime
        attack, threat, craft = config["attack"], config["threat"], config["craft"]
        asks = (attack, threat, config["detector"])
        refused = self.once("refused", asks, lambda: check(*asks))
        if refused:
            return Entry(cell, dict(nodes), refused=refused)
        parts = (attack, threat, craft, config["budget"], config["seed"])
        spec, note, watches = self.once("craft", parts, lambda: _craft_spec(config))
        hands = self.once("hands", (runtime, craft, threat), lambda: {**runtime, **craft, "threat": threat})
        detector = self.detector(cell, nodes["features"], runtime)
        surrogate = (model, threat, config["features"])
        held = self.once("surrogate", surrogate, lambda: self.surrogate(cell, model))
        parents = {"train": nodes["train"], "features": nodes["features"], **held}
        if watches:
            seen = held.get("surrogate_features", nodes["features"])
            parents["detector"] = self.detector(cell, seen, runtime)
        title = f"{model.title} {cell.name('attack')}" + (f" {cell.name('threat')}" if held else "")
        crafted = self.node("craft", spec, title, hands, **parents)
        judges = {"detector": detector}
        if held:  # who is asked what the surrogate makes of the clean images
            judges["surrogate_features"] = held["surrogate_features"]
        rule = self.once("rule", (config["evaluate"],), lambda: specs.score_spec(config))
        score = self.node("score", rule, title, {}, craft=crafted, **judges)
        return Entry(cell, nodes | held | {"craft": crafted, "detector": detector, "score": score}, note)

    def detector(self, cell: Cell, features: Node, runtime: dict[str, Any]) -> Node:
        """The cell's detector on a classifier whose features are given."""
        config, name = cell.config, cell.name("detector")
        used = (config[part] for part in ("detector", "features", "craft", "budget", "threat", "seed"))
        parts = (name, features, runtime, *used)
        return self.once("detector", parts, lambda: self.fitted(config, name, features, runtime))

    def fitted(self, config: dict[str, Any], name: str, features: Node, runtime: dict[str, Any]) -> Node:
        spec = self.once("settings", (config["detector"],), lambda: specs.detector_spec(config))
        detector = self.once("built", (spec,), lambda: instantiate(spec, "detector"))
        train, title = features.parents["train"], f"{features.title} {name}"
        seen = specs.features_spec(config, detector.reads)
        parents = {"features": features}
        if "layers" in seen:
            parents["features"] = self.node("features", seen, features.title, runtime, train=train)
        if detector.needs_attack:
            attack, threat = config["detector"]["attack"], {"_target_": "pdm_lightning.threat.GrayBox"}
            what = f"{features.title} {attack['name']}"
            hands = runtime | dict(config["craft"]) | {"threat": threat}
            examples = specs.examples_spec(config, attack, threat)
            parents["examples"] = self.node("examples", examples, what, hands, train=train, features=features)
        return self.node("detector", spec, title, runtime if detector.needs_images else {}, **parents)

    def surrogate(self, cell: Cell, target: _Model) -> dict[str, Node]:
        """The model that the adversary works on where it is not the target's, and its features."""
        config, threat = cell.config, cell.config["threat"]
        kind = surrogate_of(threat)
        if not kind:
            return {}
        named = {"data": cell.name("data"), "model": cell.name("model"), "defense": kind}
        if kind == "proxy":
            own = config | {"model": threat["proxy"]["model"]}
            runtime = target.runtime | _training(own, named | {"model": own["model"]["name"]})
            spec, title = specs.proxy_spec(config, self.prints), f"proxy of {target.title}"
            model = self.node("proxy", spec, title, runtime, train=target.nodes["train"])
        else:
            own = config | {
                "defense": threat["own"]["defense"],
                "seed": config["seed"] + threat["own"]["seed"],
            }
            named["defense"] = own["defense"]["name"]
            runtime = target.runtime | _training(own, named)
            title = " ".join([*named.values(), f"seed={own['seed']}"])
            model = self.node("train", specs.train_spec(own, self.prints), title, runtime)
        features = self.node("features", specs.features_spec(config), model.title, runtime, train=model)
        return {"surrogate": model, "surrogate_features": features}

    def worst(self, entries: list[Entry]) -> Iterator[Worst]:
        """One node for each model, detector and ball that an attack of the study declares."""
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            if "score" in entry.nodes and entry.cell.config["evaluate"]["worst_case"]:
                rule = entry.nodes["score"].spec
                told = self.once("text", (rule,), lambda rule=rule: canonical(rule))  # type: ignore[misc]
                groups.setdefault((entry.nodes["detector"].key, told), []).append(entry)
        for group in groups.values():
            found = {entry.nodes["score"].key: entry.nodes["score"] for entry in group}
            # in whatever order they were asked for
            scores = sorted(found.values(), key=lambda score: score.key)
            attacks = [entry.cell.config["attack"] for entry in group]
            balls = {(a.get("norm", "linf"), float(a["eps"])) for a in attacks if a.get("eps")}
            for norm, eps in sorted(balls) if len(scores) > 1 else ():
                spec = {"norm": norm, "eps": eps, "min_n": group[0].cell.config["evaluate"]["min_n"]}
                parents = {f"score{number:02d}": score for number, score in enumerate(scores)}
                title = f"{group[0].nodes['detector'].title} {norm} {eps:g}"
                yield Worst(group[0].cell, self.node("worst", spec, title, {}, **parents))


def _craft_spec(config: dict[str, Any]) -> tuple[dict[str, Any], str, bool]:
    """Settings of a crafting, what the budget capped, and whether it works on a detector, too."""
    spec, note = specs.craft_spec(config)
    watches = "detector" in needs(config["attack"])
    return spec | ({"aim": specs.aim_spec(config)} if watches else {}), note, watches


def _training(config: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """What a training, of whichever kind, needs to know and its outcome does not depend on; `names` show it."""
    return {
        "weights": config["model"].get("weights"),
        "logger": config["logger"],
        "group": config["name"],
        "segment": config["budget"]["train"]["segment"],
        "axes": names | {"budget": config["budget"]["name"], "seed": config["seed"]},
    }
