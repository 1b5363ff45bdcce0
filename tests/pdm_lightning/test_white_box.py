"""What an adversary touches while it crafts: spies on the detector, and white boxes that stop and go on."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import detection
from attacks import Setup
from detection import KDE, Detector
from pdm_lightning.cli import main
from pdm_lightning.report import read_csv
from pdm_lightning.stages import craft, hands
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import ancestry, make_plan
from pdm_lightning.threat import GrayBox, Watch, WhiteBox

STUDY = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))
reachable, SMALL = STUDY["reachable"], STUDY["SMALL"]
CPU = torch.device("cpu")
DASH = "\u2013"


@contextmanager
def watched_detector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Within it, every score that any density detector gives is noted with the detector that gives it."""
    calls: list[Any] = []
    with monkeypatch.context() as patch:
        for name in ("score", "score_as", "log_density"):
            method = getattr(KDE, name)

            def noted(self: Any, *arguments: Any, method: Any = method, **more: Any) -> Any:
                calls.append(self)
                return method(self, *arguments, **more)

            patch.setattr(KDE, name, noted)
        yield calls


def built(study: Any, node: Any, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    craft.build(node, folder, study.fresh())
    return folder


def hands_of(study: Any, node: Any) -> Any:
    return hands.take(node, study.fresh(), CPU, Setup())


@pytest.mark.parametrize("attack", ["fgsm_010", "bim_010"])
def test_the_detector_is_never_asked_under_gray_box(
    attack: str, threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = threat_study.node("gray_box", attack)
    with watched_detector(monkeypatch) as calls:
        built(threat_study, node, tmp_path)
    assert calls == []
    assert "detector" not in {one.kind for one in ancestry(node)}


def test_the_spy_sees_a_white_box_ask_the_detector(
    threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = threat_study.node("white_box", "cw_wb")
    with watched_detector(monkeypatch) as calls:
        built(threat_study, node, tmp_path)
    assert len(calls) > 12
    assert node.parents["detector"] is threat_study.node("white_box", "cw_wb", "detector")


def test_nothing_of_the_detector_hangs_on_what_a_gray_box_holds(threat_study: Any) -> None:
    hands = hands_of(threat_study, threat_study.node("gray_box", "bim_010"))
    kept = (Detector, Watch, detection.Features)
    assert not [thing for thing in reachable(hands) if isinstance(thing, kept)]
    assert not hands.foreign
    # nor where somebody hands the detector over
    watch = hands_of(threat_study, threat_study.node("white_box", "cw_wb")).target.exact
    assert [thing for thing in reachable(watch) if isinstance(thing, Detector)]
    sets = threat_study.sets(threat_study.node("gray_box", "bim_010", "features"))
    offered = Watch(watch.watch.detector, sets["train"], sets["validation"])
    target = GrayBox().target(hands.target.exact.module, offered)
    assert not [thing for thing in reachable(target) if isinstance(thing, kept)]
    target = WhiteBox().target(hands.target.exact.module, offered)
    assert [thing for thing in reachable(target) if isinstance(thing, Detector)]


def test_folded_and_exact_target_share_detector_and_thresholds(threat_study: Any) -> None:
    hands = hands_of(threat_study, threat_study.node("white_box", "cw_wb"))
    assert hands.target.module is not hands.target.exact.module
    x = torch.rand(5, 1, 8, 8)
    folded, exact = hands.target.look(x), hands.target.exact.look(x)
    assert torch.allclose(folded.scores, exact.scores, rtol=1e-3)
    assert hands.target.threshold == hands.target.exact.threshold


def test_what_the_attacker_plans_for_is_the_node_s_own(threat_study: Any) -> None:
    node = threat_study.node("white_box", "cw_wb")
    known = load_file(threat_study.artifact(node.parents["detector"]).file("scores.safetensors"))[
        "validation"
    ]
    for fpr in (0.05, 0.4):
        spec = node.spec | {"aim": {"fpr": fpr, "limits": "validation"}}
        hands = hands_of(threat_study, replace(node, spec=spec))
        assert float((known > hands.target.threshold).double().mean()) == pytest.approx(fpr, abs=1 / 257)
        assert hands.target.threshold in known.tolist()


def test_alone_refused_with_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [f"paths.output={tmp_path / 'out'}", *SMALL, "attack=cw_wb"]
    assert main(["run", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("pdml: attack=cw_wb needs the detector's scores and the gradients")
    assert "threat=gray_box withholds" in err
    assert not (tmp_path / "out").exists()


def test_a_dash_and_a_line_in_a_sweep(threat_study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", f"paths.output={threat_study.output}", *SMALL, "attack=fgsm_010,cw_wb", "name=refused"]
    assert main(["plan", *words]) == 0
    assert "1 refused cells" in capsys.readouterr().out
    assert main(["report", *words]) == 0
    printed = capsys.readouterr().out
    assert f"{DASH}: refused, because the threat model withholds" in printed
    folder = threat_study.output / "report" / "refused"
    (row,) = [row for row in read_csv(folder / "results.csv") if row.attack == "cw_wb"]
    assert (row.status, row.value, row.metric) == ("refused", None, "auc")
    assert row.note.startswith("attack=cw_wb needs the detector's scores")
    page = (folder / "index.html").read_text()
    assert "attack=cw_wb needs the detector" in page
    assert any(DASH in line for line in printed.splitlines() if line.startswith("AUC, paired rule"))


class Blunt(KDE):
    """A detector without gradients."""

    differentiable = False


def test_an_attack_by_gradients_is_refused_where_the_detector_has_none(
    threat_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "Blunt", Blunt, raising=False)
    cell = threat_study.entries["white_box", "cw_wb"].cell
    blunt = cell.config["detector"] | {"name": "blunt", "_target_": "detection.Blunt"}
    with pytest.raises(
        PermissionError, match=r"attack=cw_wb needs gradients.*detector=blunt has not"
    ) as caught:
        make_plan([Cell(cell.config | {"detector": blunt})])
    assert "\n" not in str(caught.value)
    # scores alone suffice for an attack that takes no gradient of them
    square = {"name": "square", "_target_": "attacks.square.Square"}
    plan = make_plan([Cell(cell.config | {"detector": blunt, "attack": square})])
    assert not plan.entries[0].refused and "craft" in plan.entries[0].nodes
    assert not make_plan([cell]).entries[0].refused


class Stopped(BaseException):
    """Stands for a kill."""


def test_an_interrupted_white_box_goes_on_where_it_stopped(
    threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = threat_study.node("white_box", "cw_wb")
    node = replace(node, runtime=node.runtime | {"batch_size": 8})
    whole = load_file(built(threat_study, node, tmp_path / "whole") / "adversarial.safetensors")
    save, attacked = craft._save, list[list[int]]()

    def counted(folder: Path, index: torch.Tensor, *others: Any) -> None:
        if len(attacked) == 2:
            raise Stopped
        attacked.append(index.tolist())
        save(folder, index, *others)

    monkeypatch.setattr(craft, "_save", counted)
    with pytest.raises(Stopped):
        built(threat_study, node, tmp_path / "broken")
    assert len(list((tmp_path / "broken" / "batches").glob("*.safetensors"))) == 2
    first, attacked = attacked, []
    built(threat_study, node, tmp_path / "broken")
    again = load_file(tmp_path / "broken" / "adversarial.safetensors")
    assert [image for part in first + attacked for image in part] == whole["index"].tolist()
    assert len(attacked) == len(whole["index"]) // 8 - 2 + bool(len(whole["index"]) % 8)
    assert again.keys() == whole.keys() and all(torch.equal(again[name], whole[name]) for name in whole)
    assert not (tmp_path / "broken" / "batches").exists()
    assert json.loads((tmp_path / "broken" / "craft.json").read_text())["attacked"] == len(again["index"])
