"""What a training leaves behind: the result, the collapse, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pdm_lightning import durable
from pdm_lightning.lit import TrainingDiverged
from pdm_lightning.models import Classifier
from pdm_lightning.stages import folder as folder_module
from pdm_lightning.stages.collapse import measure_collapse
from pdm_lightning.stages.folder import check_same, finished, history_csv, identity, publish

SPEC = {"seed": 0, "defense": {"use": ["rce", "rvl"]}}
HISTORY = [{"step": 1, "train/loss": 2.0}, {"step": 1, "val/loss": 1.5, "val/accuracy": 0.25}]


def classifier() -> Classifier:
    return Classifier(nn.Flatten(), 4, 2, mean=0.0, std=1.0)


def images(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8).reshape(-1, 1, 2, 2)


def write(folder: Path, model: Classifier, rows: list[list[int]]) -> dict:
    (folder / "checkpoint").mkdir()
    validation = images(rows), torch.tensor([0, 0, 1, 1])
    return publish(folder, model, validation, HISTORY, {"steps": 1, "spec": SPEC})


def test_publish_writes_weights_log_and_result_and_cleans_up(tmp_path, caplog):
    model = classifier()
    result = write(tmp_path, model, [[255, 0, 0, 0], [255, 9, 0, 0], [0, 0, 255, 0], [0, 0, 255, 9]])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "model.safetensors", "train.json"]
    assert torch.equal(load_file(tmp_path / "model.safetensors")["head.weight"], model.head.weight)
    assert json.loads((tmp_path / "train.json").read_text()) == result
    assert (result["steps"], result["val_accuracy"], result["terms"]["loss"]) == (1, 0.25, 1.5)
    assert result["history"] == HISTORY[1:]
    assert result["collapsed"] is False
    assert result["parameters"] == 10
    assert caplog.records == []


ROWS = [[255, 0, 0, 0], [255, 9, 0, 0], [0, 0, 255, 0], [0, 0, 255, 9]]


def test_the_checkpoint_goes_when_all_is_on_the_disk(tmp_path, monkeypatch):
    """A power cut after the clean-up finds what it was cleaned up for."""
    done: list[str] = []
    sync, rmtree = durable.sync, folder_module.shutil.rmtree
    monkeypatch.setattr(durable, "sync", lambda path: done.append(path.name) or sync(path))
    monkeypatch.setattr(
        folder_module.shutil, "rmtree", lambda path, **how: done.append("clean-up") or rmtree(path, **how)
    )
    write(tmp_path, classifier(), ROWS)
    assert done.index("clean-up") == len(done) - 1
    for name in ("model.safetensors.new", "log.csv.new", "train.json.new", tmp_path.name):
        assert name in done
    assert done.index("model.safetensors.new") < done.index("train.json.new")
    assert done[-2] == tmp_path.name


@pytest.mark.parametrize("name", ["train.json", "model.safetensors"])
@pytest.mark.parametrize("left", [0, 40])
def test_a_torn_result_is_none_and_the_checkpoint_stays(tmp_path, name, left):
    write(tmp_path, classifier(), ROWS)
    (tmp_path / "checkpoint").mkdir()
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:left])
    assert finished(tmp_path, SPEC) is None
    assert (tmp_path / "checkpoint").is_dir()
    (tmp_path / name).write_bytes(whole)
    assert finished(tmp_path, SPEC)["steps"] == 1
    assert not (tmp_path / "checkpoint").exists()


def test_a_collapse_warns_and_is_recorded(tmp_path, caplog):
    result = write(tmp_path, classifier(), [[200, 0, 0, 0]] * 4)
    assert result["collapsed"] is True
    assert result["collapse"]["cosine"] == pytest.approx(1.0)
    assert "train longer, or lower the weight of defense.term.rvl" in caplog.text


def test_weights_that_are_not_finite_are_no_result(tmp_path):
    model = classifier()
    with torch.no_grad():
        model.head.bias[0] = math.nan
    with pytest.raises(TrainingDiverged, match=r"lower optimizer\.lr"):
        write(tmp_path, model, [[255, 0, 0, 0]] * 4)
    assert not (tmp_path / "train.json").exists()


def test_collapse_numbers_by_hand():
    # class means (3,0) and (0,4); embeddings stand 1 from theirs
    z = torch.tensor([[2.0, 0], [4, 0], [0, 3], [0, 5]])
    found = measure_collapse(z, torch.tensor([1, 1, 4, 4]))
    assert found["cosine"] == found["cosine_max"] == pytest.approx(0)
    assert found["distance"] == found["distance_min"] == pytest.approx(5)
    assert found["spread"] == pytest.approx(1)
    assert found["collapsed"] is False


def test_classes_nearer_than_their_spread_are_collapsed():
    # means (2,0) and (2,9): their cosine is .22; spread 2 < 9, and 10 > 9 with a spread of 10
    wide = torch.tensor([[0.0, 0], [4, 0], [0, 9], [4, 9]])
    assert measure_collapse(wide, torch.tensor([0, 0, 1, 1]))["collapsed"] is False
    wide[:, 0] *= 5
    found = measure_collapse(wide, torch.tensor([0, 0, 1, 1]))
    assert found["cosine"] < 0.95
    assert (found["distance"], found["spread"], found["collapsed"]) == (9.0, 10.0, True)


def test_two_merged_classes_of_three_are_measured_and_no_collapse():
    """The rule looks at the mean over pairs of classes: one merged pair shows in the extremes alone."""
    z = torch.tensor([[3.0, 0], [3, 0.1], [3, 0], [3, 0.1], [0, 4], [0, 4.1]])
    found = measure_collapse(z, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert (found["cosine_max"], found["distance_min"]) == (pytest.approx(1), 0)
    assert found["cosine"] == pytest.approx(1 / 3, abs=0.02)
    assert found["collapsed"] is False


def test_one_class_alone_cannot_collapse():
    with pytest.raises(ValueError, match="two classes"):
        measure_collapse(torch.rand(4, 2), torch.zeros(4).long())


def test_the_identity_leaves_out_what_does_not_change_the_weights():
    spec = {"seed": 1, "model": {"widths": (4, 8)}, "train": {"steps": 3, "segment": 5, "log_every": 2}}
    assert identity(spec) == {"seed": 1, "model": {"widths": [4, 8]}, "train": {"steps": 3}}


def test_another_identity_is_refused_by_the_name_of_what_differs(tmp_path):
    with pytest.raises(ValueError, match="other settings of model, seed: use another folder"):
        check_same({"seed": 1, "data": 0}, {"seed": 2, "data": 0, "model": 1}, tmp_path)
    (tmp_path / "train.json").write_text(json.dumps({"spec": {"seed": 1}}))
    with pytest.raises(ValueError, match="seed"):
        finished(tmp_path, {"seed": 2})


def test_the_log_has_a_column_for_every_key():
    assert history_csv(HISTORY) == "step,train/loss,val/loss,val/accuracy\n1,2.0,,\n1,,1.5,0.25\n"
