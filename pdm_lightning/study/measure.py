"""Which measurements of trained models a study asks for beyond its attacks, and the rows that come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdm_lightning.report.rows import Row, row_of
from pdm_lightning.store import Artifact
from pdm_lightning.threat import needs

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Entry, Node

MakeNode = Callable[..., "Node"]
# It keeps L0 small, and has neither a radius nor a norm to say so.
_OTHER_NORM = {"attacks.JSMA"}
#: By kind of node, the words of ``report.tables`` and ``report.figures`` that ask for it.
ASKED_BY = {
    "bound": {"bound"},
    "rank": {"bound"},
    "layer_gradients": {"gradients"},
    "walk": {"walk"},
    "bandwidths": {"bandwidths"},
}


@dataclass(frozen=True)
class Measurement:
    """One node and the entry that asked for it.

    Attributes
    ----------
    entry : Entry
    node : Node
        Its kind is one of `ASKED_BY`.
    """

    entry: Entry
    node: Node


def asks(entry: Entry, kind: str) -> bool:
    """Whether an entry's ``report`` asks for a kind of measurement."""
    report = entry.cell.config["report"]
    return bool(ASKED_BY[kind] & {*report["tables"], *report["figures"]})


def minimises_l2(entry: Entry) -> bool:
    """Whether an entry's attack looks for the nearest image in L2."""
    attack = entry.cell.config["attack"]
    return (
        attack.get("eps") is None
        and attack.get("norm", "l2") == "l2"
        and attack.get("_target_") not in _OTHER_NORM
    )


def measurements(entries: Iterable[Entry], make: MakeNode) -> list[Measurement]:
    """Plan what entries ask for, each node once an entry.

    Parameters
    ----------
    entries : iterable of Entry
    make : callable
        Makes a node: ``make(kind, spec, title, runtime, **parents)``, each of them once.
    """
    return [
        Measurement(entry, node)
        for entry in entries
        for kind, plan in _PLANS.items()
        if asks(entry, kind) and (node := plan(entry, make)) is not None
    ]


def _settings(entry: Entry, **more: Any) -> dict[str, Any]:
    """What every measurement of images depends on."""
    config = entry.cell.config
    common = {"images": config["measure"]["images"], "bootstrap": config["evaluate"]["bootstrap"]}
    return common | more


def _bound(entry: Entry, make: MakeNode) -> Node:
    features = entry.nodes["features"]
    return make("bound", _settings(entry), features.title, {}, features=features)


def _rank(entry: Entry, make: MakeNode) -> Node | None:
    craft = entry.nodes.get("craft")
    # who also hides from a detector, or works on another model, needs another distance
    if craft is None or {"detector", "surrogate"} & set(craft.parents) or not minimises_l2(entry):
        return None
    spec = {"bootstrap": entry.cell.config["evaluate"]["bootstrap"]}
    return make("rank", spec, craft.title, {}, bound=_bound(entry, make), craft=craft)


def _gradients(entry: Entry, make: MakeNode) -> Node:
    features = entry.nodes["features"]
    spec = _settings(entry, seed=entry.cell.config["seed"])
    return make("layer_gradients", spec, features.title, {}, features=features)


def _walk(entry: Entry, make: MakeNode) -> Node | None:
    craft, attack = entry.nodes.get("craft"), entry.cell.config["attack"]
    if craft is None or "surrogate" in craft.parents or "detector" in needs(attack):
        return None
    if attack.get("targeted"):  # its loss is that of the class that it aims at
        return None
    if not {"iterations", "step", "eps"} <= set(attack):
        return None
    spec = _settings(entry, attack=craft.spec["attack"], seed=entry.cell.config["seed"])
    return make("walk", spec, craft.title, {}, features=entry.nodes["features"])


def _bandwidths(entry: Entry, make: MakeNode) -> Node | None:
    config, detector = entry.cell.config, entry.nodes.get("detector")
    if (
        detector is None
        or "bandwidth" not in config["detector"]
        or config["detector"]["layer"] not in _LAYERS
    ):
        return None
    spec = {
        "factors": [float(factor) for factor in config["measure"]["bandwidths"]],
        "bootstrap": config["evaluate"]["bootstrap"],
        "min_n": config["evaluate"]["min_n"],
    }
    craft = entry.nodes["craft"]
    return make("bandwidths", spec, craft.title, {}, detector=detector, craft=craft)


_LAYERS = ("embedding", "logits")
_PLANS: dict[str, Callable[[Entry, MakeNode], Node | None]] = {
    "bound": _bound,
    "rank": _rank,
    "layer_gradients": _gradients,
    "walk": _walk,
    "bandwidths": _bandwidths,
}
_OF_MODEL = ("data", "model", "defense", "budget")


def rows(
    measured: Iterable[Measurement],
    opened: Callable[[Node], Artifact | None],
    status: Callable[[Node], str],
    bandwidth: Callable[[dict[str, Any]], str | float],
    notes: Mapping[str, str],
) -> Iterator[Row]:
    """Rows of measurements; those of a model's own have no attack. Curves (``bandwidths``) are figures alone.

    Parameters
    ----------
    measured : iterable of Measurement
    opened : callable
        The artifact of a node, or None where there is none.
    status : callable
        ``failed`` or ``missing``, of a node without an artifact.
    bandwidth : callable
        What the column ``bandwidth`` says of a detector's configuration.
    notes : mapping of str to str
        Notes of rows by the key of their artifact: an attack's caps, and whether its training collapsed.
    """
    for one in measured:
        if one.node.kind not in _ROWS:
            continue
        first, read, attacked = _ROWS[one.node.kind]
        cell, nodes = one.entry.cell, one.entry.nodes
        common: dict[str, Any] = {group: cell.name(group) for group in _OF_MODEL}
        common |= {"seed": cell.config["seed"], "artifact": one.node.key}
        if attacked:
            common |= {group: cell.name(group) for group in ("attack", "threat", "detector")}
            common["bandwidth"] = bandwidth(cell.config["detector"])
        note = notes.get(nodes["score"].key if attacked else nodes["clean"].key, "")
        artifact = opened(one.node)
        if artifact is None:
            yield Row(**common, metric=first, status=status(one.node), note=note)
            continue
        told = read(artifact)
        common["note"] = "; ".join(part for part in (_cap(told.pop("images", None)), note) if part)
        yield from (row_of(common, metric, found) for metric, found in told.items())


def _cap(images: dict[str, int] | None) -> str:
    """Whether the test set is larger than what was measured."""
    if images is None or images["measured"] >= images["of"]:
        return ""
    return f"measured on {images['measured']} of {images['of']} test images"


def _layers(artifact: Artifact) -> dict[str, Any]:
    from pdm_lightning.stages import (
        layer_gradients,
    )  # PyTorch and the losses, which planning need not wait for

    found = layer_gradients.read(artifact)
    return {
        f"gradient_{loss}:{layer}": told for loss, layers in found.items() for layer, told in layers.items()
    }


def _growth(artifact: Artifact) -> dict[str, Any]:
    found = artifact.json("walk.json")
    ends = {"gradient_first": found["embedding"][0], "gradient_last": found["embedding"][-1]}
    return {"images": found.get("images"), "gradient_growth": found["gradient_growth"], **ends}


#: By kind: the metric that stands for a missing one, how its rows are read, and whether they belong to an attack.
_ROWS: dict[str, tuple[str, Callable[[Artifact], dict[str, Any]], bool]] = {
    "bound": ("bound", lambda artifact: artifact.json("bound.json"), False),
    "rank": ("bound_rank", lambda artifact: artifact.json("rank.json"), True),
    "layer_gradients": ("gradient_attack:input", _layers, False),
    "walk": ("gradient_growth", _growth, True),
}
