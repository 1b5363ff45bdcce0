"""The worst case over many attacks, and joint success behind it."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pdm_lightning
from pdm_lightning.stages import worst
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import Node, make_plan
from pdm_lightning.study.results import collect

STUDY = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))
finished = STUDY["finished"]


def run_of(rows: dict[int, tuple[bool, float, float, float]]) -> dict[str, torch.Tensor]:
    """Scores of an attack from {image: (fooled, score, l2, linf)}; clean image i scores i / 10."""
    fooled, score, l2, linf = (list(column) for column in zip(*rows.values(), strict=True))
    return {
        "index": torch.tensor(list(rows)),
        "fooled": torch.tensor(fooled),
        "clean": torch.tensor(list(rows), dtype=torch.float64) / 10,
        "adversarial": torch.tensor(score, dtype=torch.float64),
        "l2": torch.tensor(l2),
        "linf": torch.tensor(linf),
    }


def united(folder: Path, norm: str, eps: float, *runs: Any, thresholds: Any = None) -> tuple[Any, Any]:
    """Build a worst case over hand-made score artifacts: its tensors and its numbers."""
    artifacts = {}
    for number, rows in enumerate(runs):
        place = folder / f"score{number}"
        place.mkdir()
        save_file(run_of(rows), place / "scores.safetensors")
        known = {"thresholds": thresholds or {"0.05": 1.0}, "candidates": 10 + number}
        (place / "score.json").write_text(json.dumps(known))
        artifacts[place.name] = place
    parents = {name: Node("score", {"number": name}) for name in artifacts}
    names = {node.key: name for name, node in parents.items()}

    def artifact(node: Node) -> Any:
        place = artifacts[names[node.key]]
        return SimpleNamespace(
            file=lambda name: place / name, json=lambda name: json.loads((place / name).read_text())
        )

    node = Node("worst", {"norm": norm, "eps": eps, "min_n": 2}, parents)
    worst.build(node, folder, SimpleNamespace(artifact=artifact))  # type: ignore[arg-type]
    return load_file(folder / "worst.safetensors"), json.loads((folder / "worst.json").read_text())


def test_each_image_in_the_hands_of_the_worst(tmp_path: Path) -> None:
    first = {
        7: (True, 0.5, 1.0, 0.1),  # a joint success
        3: (True, 2.0, 1.0, 0.1),  # flagged
        5: (False, 0.5, 1.0, 0.1),  # not fooled
        9: (True, 1.0, 1.0, 0.1),  # on the threshold is not above it
        1: (True, 0.5, 1.0, 0.1),  # the other did not attack it
    }
    second = {
        3: (True, 0.9, 1.0, 0.1),  # a joint success where the first was flagged
        5: (True, 0.5, 4.0, 0.2),  # outside the ball
        7: (False, 0.0, 1.0, 0.1),
        9: (False, 0.0, 1.0, 0.1),
        2: (True, 0.5, 1.0, 0.1),
    }
    tensors, numbers = united(tmp_path, "linf", 0.1, first, second)
    assert tensors["index"].tolist() == [3, 5, 7, 9]
    assert tensors["hits@0.05"].tolist() == [True, False, True, True]
    assert numbers["joint_success@0.05"]["value"] == pytest.approx(3 / 4)
    assert numbers["joint_success@0.05"]["n"] == 4
    assert (numbers["attacks"], numbers["images"]) == (2, 4)
    # of the ten images that both tried, one is neither flagged when clean nor a joint success: number 5
    assert numbers["robust_accuracy@0.05"]["value"] == pytest.approx(1 / 10)
    assert numbers["robust_accuracy@0.05"]["n"] == 10


def test_clean_images_that_are_flagged_are_no_robust_accuracy(tmp_path: Path) -> None:
    rows = {5: (False, 0.0, 0.0, 0.0), 12: (False, 0.0, 0.0, 0.0)}  # clean scores .5 and 1.2, threshold 1
    _, numbers = united(tmp_path, "linf", 0.1, rows, rows)
    assert numbers["joint_success@0.05"]["value"] == 0
    assert numbers["robust_accuracy@0.05"]["value"] == pytest.approx(1 / 10)


def test_too_few_images_make_no_number(tmp_path: Path) -> None:
    rows = {0: (True, 0.0, 1.0, 0.1)}
    _, numbers = united(tmp_path, "linf", 0.1, rows, rows)
    assert (numbers["joint_success@0.05"]["value"], numbers["joint_success@0.05"]["n"]) == (None, 1)


@pytest.mark.parametrize(
    ("norm", "eps", "expected"),
    [
        ("l2", 2.0, [True, False]),
        ("l2", 3.0, [True, True]),
        ("linf", 0.3, [False, True]),
        ("linf", 0.5, [True, True]),
    ],
)
def test_the_ball_is_that_of_its_norm(norm: str, eps: float, expected: list[bool], tmp_path: Path) -> None:
    rows = {0: (True, 0.0, 2.0, 0.5), 1: (True, 0.0, 3.0, 0.3)}
    idle = {0: (False, 0.0, 0.0, 0.0), 1: (False, 0.0, 0.0, 0.0)}
    assert united(tmp_path, norm, eps, rows, idle)[0]["hits@0.05"].tolist() == expected


def test_rounding_does_not_leave_the_ball(tmp_path: Path) -> None:
    """Float32 misses 0.1 by some 1e-8; an excess of a thousandth is no rounding."""
    rows = {0: (True, 0.0, 1.0, 0.1000001), 1: (True, 0.0, 1.0, 0.1001)}
    assert united(tmp_path, "linf", 0.1, rows, rows)[0]["hits@0.05"].tolist() == [True, False]


def test_without_a_threshold_there_is_no_number(tmp_path: Path) -> None:
    rows = {0: (True, 0.0, 1.0, 0.1), 4: (True, 0.0, 1.0, 0.1)}
    _, numbers = united(tmp_path, "linf", 0.1, rows, rows, thresholds={"0.01": None, "0.1": -1.0})
    assert (numbers["joint_success@0.01"]["value"], numbers["joint_success@0.01"]["n"]) == (None, 2)
    assert numbers["joint_success@0.1"]["value"] == 0


# ---- in a study


def joint(study: Any, node: Any, fpr: str) -> float:
    value: float = study.artifact(node).json("score.json")[f"joint_success@{fpr}"]["value"]
    return value


def test_the_worst_case_of_the_study_unites_all_threats_inside_the_ball(threat_study: Any) -> None:
    (found,) = threat_study.plan.worst
    assert found.name == "worst_linf_0.1"
    assert {p.key for p in found.node.parents.values()} == {
        entry.nodes["score"].key for entry in threat_study.plan.entries if not entry.refused
    }
    tensors = pdm_lightning.load(f"worst/{found.node.key}", str(threat_study.output))
    numbers = threat_study.artifact(found.node).json("worst.json")
    indices, hits = [], set()
    for parent in found.node.parents.values():
        artifact = threat_study.artifact(parent)
        rows, limit = (
            load_file(artifact.file("scores.safetensors")),
            artifact.json("score.json")["thresholds"]["0.1"],
        )
        indices.append(set(rows["index"].tolist()))
        inside = rows["linf"] <= 0.1 + 1e-5
        hits |= set(rows["index"][rows["fooled"] & inside & (rows["adversarial"] <= limit)].tolist())
    common = set.intersection(*indices)
    assert set(tensors["index"].tolist()) == common
    assert set(tensors["index"][tensors["hits@0.1"]].tolist()) == hits & common
    assert numbers["joint_success@0.1"]["value"] == pytest.approx(len(hits & common) / len(common))
    assert numbers["attacks"] == len(found.node.parents) >= 5


def test_never_below_a_single_attack_inside_the_ball(threat_study: Any) -> None:
    (found,) = threat_study.plan.worst
    numbers = threat_study.artifact(found.node).json("worst.json")
    balls = [e for e in threat_study.plan.entries if not e.refused and e.cell.config["attack"].get("eps")]
    assert len(balls) >= 4
    for fpr in ("0.05", "0.1"):
        for entry in balls:
            assert numbers[f"joint_success@{fpr}"]["value"] >= joint(threat_study, entry.nodes["score"], fpr)


def test_rows_of_the_worst_case(threat_study: Any) -> None:
    result = collect(threat_study.plan, threat_study.context, finished(), "", "")
    rows = {row.metric: row for row in result.rows if row.threat == "worst_case"}
    asked = [(name, fpr) for name in ("joint_success", "robust_accuracy") for fpr in ("0.01", "0.05", "0.1")]
    assert set(rows) == {f"{name}@{fpr}" for name, fpr in asked}
    assert {row.attack for row in rows.values()} == {"worst_linf_0.1"}
    assert result.labels["attack"]["worst_linf_0.1"] == "Worst case, L-inf <= 0.1"
    (found,) = threat_study.plan.worst
    numbers = threat_study.artifact(found.node).json("worst.json")
    assert rows["joint_success@0.1"].value == numbers["joint_success@0.1"]["value"]
    assert (rows["joint_success@0.01"].status, rows["joint_success@0.01"].value) == ("n/a", None)
    capped, attacks = rows["joint_success@0.1"].note.rsplit("; ", 1)
    assert attacks == f"{numbers['attacks']} attacks"
    assert capped.startswith("capped: 24 of 540 test images")
    assert rows["joint_success@0.1"].n_attacked == numbers["joint_success@0.1"]["n"]
    assert not [row.budget for row in result.rows if "worst_case" in row.budget]


# ---- the plan


def changed(cell: Cell, **values: Any) -> Cell:
    config = copy.deepcopy(cell.config)
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        node = config
        for part in parents:
            node = node[part]
        node[last] = value
    return Cell(config, (*cell.overrides, *(f"{key}={value}" for key, value in values.items())))


def cells_of(study: Any, *names: tuple[str, str], **values: Any) -> list[Cell]:
    return [changed(study.entries[name].cell, **values) for name in names]


FGSM, BIM, WHITE = ("gray_box", "fgsm_010"), ("gray_box", "bim_010"), ("white_box", "cw_wb")


def test_asking_for_the_worst_case_changes_no_other_node(threat_study: Any) -> None:
    asked = make_plan(cells_of(threat_study, FGSM, BIM))
    plain = make_plan(cells_of(threat_study, FGSM, BIM, **{"evaluate.worst_case": False}))
    assert {node.key for node in asked} - {node.key for node in plain} == {asked.worst[0].node.key}
    assert not plain.worst
    assert plain.entries[0].cell.names() == asked.entries[0].cell.names()


def test_one_attack_alone_has_no_worst_case(threat_study: Any) -> None:
    assert not make_plan(cells_of(threat_study, FGSM)).worst
    # the same attack under another threat model is the same node, and still alone
    twin = changed(threat_study.entries["white_box", "fgsm_010"].cell)
    assert not make_plan([*cells_of(threat_study, FGSM), twin]).worst
    # minimum-norm attacks declare no ball
    assert not make_plan(cells_of(threat_study, WHITE)).worst


def test_a_worst_case_for_each_model_and_each_ball(threat_study: Any) -> None:
    cells = cells_of(threat_study, FGSM, BIM) + cells_of(threat_study, FGSM, BIM, seed=1)
    plan = make_plan(cells)
    assert [(w.name, w.cell.config["seed"]) for w in plan.worst] == [
        ("worst_linf_0.1", 0),
        ("worst_linf_0.1", 1),
    ]
    assert len({w.node.key for w in plan.worst}) == 2
    wide = cells_of(threat_study, BIM, **{"attack.eps": 0.3})
    plan = make_plan([*cells_of(threat_study, FGSM, BIM), *wide])
    assert [w.name for w in plan.worst] == ["worst_linf_0.1", "worst_linf_0.3"]
    assert {len(w.node.parents) for w in plan.worst} == {3}
    other = cells_of(threat_study, FGSM, BIM, **{"detector.bandwidth": 0.3})
    assert len(make_plan([*cells_of(threat_study, FGSM, BIM), *other]).worst) == 2


def test_what_is_refused_is_in_no_worst_case(threat_study: Any) -> None:
    plan = make_plan(cells_of(threat_study, FGSM, ("gray_box", "cw_wb")))
    assert not plan.worst
    plan = make_plan(cells_of(threat_study, FGSM, BIM, ("gray_box", "cw_wb")))
    assert len(plan.worst[0].node.parents) == 2
