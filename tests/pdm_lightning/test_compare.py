"""Two scores compared image by image: the stage, which scores are paired, and the rows."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from detection import auc
from detection.differences import mcnemar
from pdm_lightning.stages import compare as stage
from pdm_lightning.stages.builders import BUILDERS
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.compare import comparisons, rows
from pdm_lightning.study.plan import WAVES, Entry, Node

# ---- the stage


class Stored:
    """Artifacts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def artifact(self, node: Node) -> Any:
        place = self.folder / node.title
        return SimpleNamespace(
            file=lambda name: place / name, json=lambda name: json.loads((place / name).read_text())
        )

    def put(self, side: str, tensors: dict[str, Any], thresholds: dict[str, float | None]) -> None:
        place = self.folder / side
        place.mkdir()
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, place / "scores.safetensors"
        )
        (place / "score.json").write_text(json.dumps({"thresholds": thresholds}))


def made(seed: int, n: int, shift: float) -> dict[str, torch.Tensor]:
    """Scores of the images 0 .. n - 1 in an order of their own; four in five are fooled."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(n, generator=generator)
    clean = torch.randn(n, generator=generator, dtype=torch.float64)
    adversarial = shift + torch.randn(n, generator=generator, dtype=torch.float64)
    fooled = torch.rand(n, generator=generator) < 0.8
    return {"index": index, "clean": clean, "adversarial": adversarial, "fooled": fooled}


def built(folder: Path, a: Any, b: Any, *, limits: Any = None, min_n: int = 5) -> dict[str, Any]:
    stored = Stored(folder)
    for side, tensors, known in zip("ab", (a, b), limits or ({"0.05": 0.5}, {"0.05": 1.0}), strict=True):
        stored.put(side, tensors, known)
    parents = {side: Node("score", {"side": side}, title=side) for side in "ab"}
    node = Node("compare", {"bootstrap": 200, "min_n": min_n}, parents)
    stage.build(node, folder, stored)  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    return found


def test_images_of_both_in_whatever_order(tmp_path: Path) -> None:
    a, b = made(1, 120, 2.0), made(2, 100, 0.5)
    found = built(tmp_path, a, b)
    by_image = [{int(i): row for row, i in enumerate(one["index"])} for one in (a, b)]
    both = [i for i in range(100) if a["fooled"][by_image[0][i]] and b["fooled"][by_image[1][i]]]
    aucs, hits = [], []
    for one, places, limit in zip((a, b), by_image, (0.5, 1.0), strict=True):
        chosen = [places[i] for i in both]
        aucs.append(auc(one["clean"][chosen], one["adversarial"][chosen]))
        every = [places[i] for i in range(100)]
        hits.append(one["fooled"][every] & (one["adversarial"][every] <= limit))
    assert found["images"] == 100
    assert found["auc"]["value"] == pytest.approx(aucs[0] - aucs[1]) and found["auc"]["value"] > 0.1
    assert (
        found["auc"]["n"] == len(both) and found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    )
    joint = found["joint_success@0.05"]
    assert joint["value"] == pytest.approx(float(hits[0].double().mean() - hits[1].double().mean()))
    assert (joint["p"], joint["n"]) == (mcnemar(*hits), 100)


def test_too_few_images_make_no_difference(tmp_path: Path) -> None:
    a, b = made(1, 40, 2.0), made(2, 40, 0.5)
    (tmp_path / "enough").mkdir()
    found = built(tmp_path, a, b, min_n=41)
    assert found["auc"]["value"] is None and found["joint_success@0.05"]["value"] is None
    n = found["auc"]["n"]
    assert 0 < n < found["joint_success@0.05"]["n"] == 40
    # enough attacked, too few of them fooled in both
    found = built(tmp_path / "enough", a, b, min_n=n + 1)
    assert found["auc"] == {"value": None, "low": None, "high": None, "p": None, "n": n}
    assert found["joint_success@0.05"]["value"] is not None


def test_no_image_in_common(tmp_path: Path) -> None:
    a, b = made(1, 20, 2.0), made(2, 20, 0.5)
    b["index"] = b["index"] + 100
    found = built(tmp_path, a, b, min_n=0)
    assert (found["images"], found["auc"]["n"], found["auc"]["value"]) == (0, 0, None)
    assert found["joint_success@0.05"] == {"value": None, "low": None, "high": None, "p": None, "n": 0}


@pytest.mark.parametrize(
    "limits", [({"0.01": None}, {"0.01": 1.0}), ({"0.01": 1.0}, {"0.01": None}), ({"0.01": 1.0}, {})]
)
def test_joint_success_needs_both_thresholds(tmp_path: Path, limits: Any) -> None:
    found = built(tmp_path, made(1, 30, 1.0), made(2, 30, 1.0), limits=limits)
    assert found["joint_success@0.01"]["value"] is None and found["joint_success@0.01"]["n"] == 30
    assert found["auc"]["value"] is not None


def test_the_stage_is_known() -> None:
    assert BUILDERS["compare"].__module__ == stage.__name__
    assert WAVES.index("score") < WAVES.index("compare") < WAVES.index("worst")


# ---- which scores


GROUPS = ("data", "model", "budget", "threat", "attack", "defense", "detector")


def entry(*, tables: tuple[str, ...] = ("differences",), seed: int = 0, key: str = "", **names: str) -> Entry:
    named = {group: names.get(group, group) for group in GROUPS}
    config: dict[str, Any] = {
        group: {"name": name, "root": "", "_target_": ""} for group, name in named.items()
    }
    config |= {"seed": seed, "report": {"tables": list(tables)}, "evaluate": {"bootstrap": 300, "min_n": 20}}
    spec = {"key": key} if key else {**named, "seed": seed}
    nodes = {"detector": Node("detector", {}, title="d"), "score": Node("score", spec)}
    return Entry(Cell(config), nodes)


def make(kind: str, spec: dict[str, Any], title: str, runtime: dict[str, Any], **parents: Node) -> Node:
    return Node(kind, spec, parents, runtime, title)


def test_each_defence_and_each_detector_with_the_first_listed() -> None:
    grid = [
        entry(defense=defense, detector=detector, attack=attack)
        for attack in ("fgsm", "bim")
        for defense in ("ce", "rce", "pdm")
        for detector in ("kde", "msp")
    ]
    found = comparisons(grid, make)
    told = {
        (c.axis, c.a.cell.name("attack"), c.a.cell.name("defense"), c.a.cell.name("detector"), c.reference)
        for c in found
    }
    expected = {
        ("defense", a, d, k, "ce") for a in ("fgsm", "bim") for d in ("rce", "pdm") for k in ("kde", "msp")
    }
    expected |= {("detector", a, d, "msp", "kde") for a in ("fgsm", "bim") for d in ("ce", "rce", "pdm")}
    assert told == expected and len(found) == len(expected)
    for c in found:
        assert c.node.parent_keys == {"a": c.a.nodes["score"].key, "b": c.b.nodes["score"].key}
        assert c.node.kind == "compare" and c.node.spec == {"bootstrap": 3000, "min_n": 20}
        differ = [g for g in GROUPS if c.a.cell.name(g) != c.b.cell.name(g)]
        assert differ == [c.axis]


@pytest.mark.parametrize("group", ["data", "model", "budget", "threat", "attack"])
def test_what_differs_in_more_is_not_compared(group: str) -> None:
    pair = [entry(defense="ce"), entry(defense="pdm", **{group: "other"})]
    assert comparisons(pair, make) == []
    assert comparisons([entry(defense="ce"), entry(defense="pdm", seed=1)], make) == []
    assert len(comparisons([entry(defense="ce"), entry(defense="pdm")], make)) == 1


def test_only_where_asked_for_scored_and_not_the_same_artifact() -> None:
    assert comparisons([entry(defense=d, tables=("summary",)) for d in ("ce", "pdm")], make) == []
    refused = Entry(entry(defense="ce").cell, {}, refused="withheld")
    assert comparisons([refused, entry(defense="pdm")], make) == []
    assert comparisons([entry(defense=d, key="one") for d in ("ce", "pdm")], make) == []


def test_the_order_of_the_entries_chooses_the_reference() -> None:
    (found,) = comparisons([entry(defense="pdm"), entry(defense="ce")], make)
    assert (found.a.cell.name("defense"), found.reference) == ("ce", "pdm")


# ---- the rows

AUC = {"value": 0.1, "low": 0.02, "high": 0.18, "p": 0.0123, "n": 80}
JOINT = {"value": -0.25, "low": -0.4, "high": -0.1, "p": 0.5, "n": 90}
NOTHING = dict.fromkeys(("value", "low", "high", "p")) | {"n": 7}


def rows_of(measured: dict[str, Any] | None, notes: dict[str, str] | None = None) -> list[Any]:
    compared = comparisons([entry(defense="ce"), entry(defense="pdm")], make)
    if notes is not None:
        notes = {compared[0].a.nodes["score"].key: notes["a"], compared[0].b.nodes["score"].key: notes["b"]}
    artifact = None if measured is None else SimpleNamespace(json=lambda _: copy.deepcopy(measured))
    found = rows(compared, lambda _: artifact, lambda _: "failed", lambda _: "loo", notes)  # type: ignore[arg-type,return-value]
    return list(found)


def test_rows_carry_the_names_of_a_and_the_reference_in_the_metric() -> None:
    found = rows_of(
        {"auc": AUC, "joint_success@0.05": JOINT, "images": 95}, {"a": "capped: 9 images", "b": "collapsed"}
    )
    assert [(row.metric, row.value) for row in found] == [
        ("auc_minus:ce", 0.1),
        ("p_minus:ce", 0.0123),
        ("joint_success_minus:ce@0.05", -0.25),
        ("p_joint_success_minus:ce@0.05", 0.5),
    ]
    assert {(row.defense, row.attack, row.detector, row.bandwidth, row.n_attacked) for row in found} == {
        ("pdm", "attack", "detector", "loo", 95)
    }
    assert (found[0].ci_low, found[0].ci_high, found[0].n) == (0.02, 0.18, 80)
    # the reference's collapse is not this defence's
    assert found[0].note == found[1].note == "capped: 9 images; p=0.0123"


def test_rows_without_a_value() -> None:
    (few,) = rows_of({"auc": NOTHING, "images": 7})
    assert (few.metric, few.status, few.value, few.n) == ("auc_minus:ce", "n/a", None, 7)
    (failed,) = rows_of(None)
    assert (failed.metric, failed.status) == ("auc_minus:ce", "failed")
    assert (
        not math.isfinite(float("nan"))
        and rows_of({"auc": AUC | {"value": float("nan")}, "images": 7})[0].status == "n/a"
    )
