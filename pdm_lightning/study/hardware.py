"""On what the nodes of a study compute, and whether that is there where they will be built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pdm_lightning.devices import pick_device, several
from pdm_lightning.pace import check_tf32
from pdm_lightning.study.graph import Node, ancestry

ON_CPU = {
    "clean",
    "val_clean",
    "tsne",
    "splits",
    "selftest",
    "score",
    "val_score",
    "compare",
    "average",
    "worst",
    "rank",
    "bandwidths",
}
"""Kinds that no device is leased for."""


def hardware(node: Node) -> tuple[Mapping[str, Any], int]:
    """The trainer that says on what a node computes, and how many devices its processes share."""
    if node.kind in ON_CPU:
        return {"device": "cpu"}, 1
    trainers = [each.runtime["trainer"] for each in ancestry(node) if "trainer" in each.runtime]
    if node.kind in ("train", "proxy"):
        return trainers[-1], int(trainers[-1].get("devices", 1))
    return trainers[-1], int(node.runtime.get("devices", 1))


def check_devices(nodes: Iterable[Node], launcher: Any = None) -> None:
    """ValueError where the devices that nodes ask for are not there, or cannot train in the precision asked for.

    So it is told before anything is computed.

    Parameters
    ----------
    nodes : iterable of Node
        What is to be built.
    launcher : object, optional
        Of a study whose jobs run elsewhere. It may tell by ``gpus`` how many GPUs each job gets, and by which option;
        where it does not, the jobs find out. None, or one that says that it is ``here``: this machine is asked.
    """
    here = launcher is None or getattr(launcher, "here", False)
    given = None if here else getattr(launcher, "gpus", None)
    for device, count, key, precision in sorted({_asked(node) for node in nodes}):
        if here:
            found = pick_device(device)
            several([found], count, key)
            check_tf32(precision, found.type, f"trainer.device={device} finds none here")
        elif given is not None and device != "cpu":
            option, gpus = given
            _check_given(option, gpus, device, count, key)
            check_tf32(precision, "cuda" if gpus else "cpu", f"jobs get no GPU (set {option}={count})")


def _asked(node: Node) -> tuple[str, int, str, str]:
    trainer, count = hardware(node)
    if node.kind not in ("train", "proxy"):
        return str(trainer["device"]), count, "craft.devices", ""
    return str(trainer["device"]), count, "trainer.devices", str(trainer.get("precision", "float32"))


def _check_given(option: str, gpus: float, device: str, count: int, key: str) -> None:
    if not gpus and device != "auto":
        raise ValueError(f"trainer.device={device}: jobs get no GPU: set {option}={count}")
    if gpus and count > max(1, gpus):
        raise ValueError(
            f"{key}={count}: jobs get {gpus:g} GPUs each: set {option}={count}, or {key}={gpus:g}"
        )
