"""A tracked study, read back from the files that W&B wrote."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc

from pdm_lightning.data import load_data
from pdm_lightning.report.rows import COLUMNS, Row
from pdm_lightning.store import Store
from tests.pdm_lightning.tracking.conftest import Tracked
from tests.pdm_lightning.tracking.wandb_files import OfflineRun

AXES = ("data", "model", "defense", "budget", "threat", "attack", "detector", "seed")


def cells(study: Tracked) -> list[OfflineRun]:
    return [run for run in study.first if run.run.job_type == "cell"]


def trainings(study: Tracked, name: str) -> list[OfflineRun]:
    return [run for run in study.first if run.run.job_type == "train" and f" {name} " in run.run.display_name]


def rows_of(study: Tracked, run: OfflineRun) -> list[Row]:
    found = [row for row in study.rows if row.artifact == run.id]
    assert found
    return found


def test_ids_groups_and_tags(tracked: Tracked) -> None:
    found = tracked.first
    store = Store(tracked.output / "store")
    keys = {kind: {a.key for a in store.list() if a.kind == kind} for kind in ("train", "score")}
    assert {run.id for run in found if run.run.job_type == "train"} == keys["train"]
    assert sorted(run.id for run in found if run.run.job_type == "cell") == sorted(keys["score"])
    # a training's run goes on when the study has ended, so that offline it has two folders
    assert len(found) == 2 * len(keys["train"]) + len(keys["score"])
    for run in found:
        assert run.run.resume  # `wandb sync` adds to the run of the same id
        assert (run.run.run_group, run.run.project, run.exit_code) == ("tracked", "pdm-lightning", 0)
        assert run.config["key"] == run.id
        names = [run.config[axis] for axis in AXES[:3]]
        assert {"thesis", "smoke", "seed=0", *names} <= set(run.run.tags)
        assert all(len(tag) <= 64 for tag in run.run.tags)
    assert all({"fgsm_010", "gray_box", "kde"} <= set(run.run.tags) for run in cells(tracked))


def test_curves_of_a_training(tracked: Tracked) -> None:
    live, after = trainings(tracked, "pdm")
    artifact = Store(tracked.output / "store").open("train", live.id)
    lines = artifact.file("log.csv").read_text().splitlines()
    names = lines[0].split(",")
    logged = [
        {name: float(v) for name, v in zip(names, line.split(","), strict=True) if v} for line in lines[1:]
    ]
    assert {
        "train/rce",
        "train/siamese",
        "train/rvl",
        "train/accuracy",
        "val/rce",
        "val/accuracy",
        "lr",
    } <= set(names)
    tracked_rows = [
        {name: value for name, value in row.items() if name in names} for row in live.history if "step" in row
    ]
    assert tracked_rows == logged
    assert [row["trainer/global_step"] for row in live.history] == [row["step"] for row in logged]
    # nothing of it a second time
    assert not [row for row in after.history if "train/loss" in row or "val/loss" in row]


def test_what_a_training_came_to(tracked: Tracked) -> None:
    _, after = trainings(tracked, "pdm")
    values = {row.metric: row for row in tracked.rows if row.defense == "pdm" and row.attack == "none"}
    for metric in ("accuracy", "dbi", "cluster_variance", "val_accuracy", "images_seen"):
        assert after.summary[metric] == values[metric].value
    assert after.summary["accuracy_ci_low"] == values["accuracy"].ci_low
    assert after.summary["accuracy_n"] == values["accuracy"].n
    columns, points = after.table("tsne")
    assert columns == ["x", "y", "class"] and len(points) == 200
    assert {name for _, _, name in points} == {str(digit) for digit in range(10)}
    (picture,) = after.image_files("tsne_plot")
    pixels = np.asarray(Image.open(picture))
    # ten classes, each in a colour of its own
    coloured = {tuple(p) for p in pixels.reshape(-1, pixels.shape[2])[::7].tolist() if np.ptp(p) > 60}
    assert len(coloured) >= 10
    # made once, and kept where the report's own figure would look for it
    assert len([a for a in Store(tracked.output / "store").list() if a.kind == "tsne"]) == 2


def test_configuration_of_a_cell(tracked: Tracked) -> None:
    for run in cells(tracked):
        row = rows_of(tracked, run)[0]
        assert {axis: run.config[axis] for axis in AXES} == {axis: getattr(row, axis) for axis in AXES}
        assert run.config["settings"]["attack"]["eps"] == 0.1
        assert run.config["settings"]["budget"]["train"]["steps"] == 40
        assert run.config["attack_and_defense"] == f"fgsm_010 / {row.defense}"
        assert run.config["studies"] == ["tracked"]
        # where it ran is nobody's business
        assert str(tracked.output) not in json.dumps(run.config["settings"])


def test_every_metric_of_a_cell(tracked: Tracked) -> None:
    for run in cells(tracked):
        rows = rows_of(tracked, run)
        assert {"auc", "auc_all", "success_rate", "joint_success@0.05", "robust_accuracy"} <= {
            r.metric for r in rows
        }
        for row in rows:
            parts = {"": row.value, "_ci_low": row.ci_low, "_ci_high": row.ci_high, "_n": row.n}
            for part, value in parts.items():
                assert run.summary.get(f"{row.metric}{part}") == value, row.metric
        # W&B sorts by such names alone
        assert run.summary["joint_success_0_05"] == run.summary["joint_success@0.05"]
        columns, table = run.table("results")
        assert columns == list(COLUMNS)
        assert [line[columns.index("metric")] for line in table] == [row.metric for row in rows]


def test_roc_curve_of_a_cell(tracked: Tracked) -> None:
    for run in cells(tracked):
        columns, points = run.table("roc_table")
        assert columns == ["step", "lineKey", "lineVal"]
        for name in ("auc", "auc_all"):
            curve = [(x, y) for x, label, y in points if label == name]
            assert curve[0] == (0, 0) and curve[-1] == (1, 1)
            assert auc(*zip(*curve, strict=True)) == pytest.approx(run.summary[name], abs=1e-9)
        chart = run.config["_wandb"]["visualize"]["roc"]["panel_config"]
        assert chart["panelDefId"] == "wandb/lineseries/v0"


def test_images_of_a_cell(tracked: Tracked) -> None:
    run = cells(tracked)[0]
    data = load_data(run.config["settings"]["data"])
    columns, table = run.table("examples")
    lines = [dict(zip(columns, line, strict=True)) for line in table]
    assert len(lines) == 5
    captions = next(row["adversarial"] for row in run.history if "adversarial" in row)["captions"]
    for line, caption in zip(lines, captions, strict=True):
        assert line["label"] == str(int(data.test[1][line["index"]])) != line["predicted"]
        assert caption.startswith(
            f"{line['label']} -> {line['predicted']}, score {line['clean_score']:.4g} -> "
        )
        assert ("flagged at 0.05" in caption) == line["flagged@0.05"]
        original, attacked = (
            np.asarray(Image.open(run.artifact_file(f"run-{run.id}-examples", line[which]["path"])))
            for which in ("original", "adversarial")
        )
        assert (original == data.test[0][line["index"]][0].numpy()).all()
        far = np.abs(attacked.astype(float) - original).max() / 255
        assert far == pytest.approx(line["linf"], abs=1 / 255) and 0 < line["linf"] < 0.1 + 1e-6
    pairs = [np.asarray(Image.open(path)) for path in run.image_files("adversarial")]
    # 16x16 side by side, a white line between, four times as large
    assert [pair.shape for pair in pairs] == [(64, 132, 3)] * 5


def test_artifacts(tracked: Tracked) -> None:
    store = Store(tracked.output / "store")
    _, after = trainings(tracked, "ce")
    expected = [(after, "model", "train", after.id, "model.safetensors")]
    expected += [
        (
            run,
            "adversarial",
            "craft",
            store.open("score", run.id).manifest["parents"]["craft"],
            "adversarial.safetensors",
        )
        for run in cells(tracked)
    ]
    for run, kind, stage, key, name in expected:
        artifact = run.artifacts[f"{kind}-{key}"]
        assert artifact.type == kind
        (held,) = (entry for entry in artifact.manifest.contents if entry.path == name)
        path = store.open(stage, key).file(name)
        # the store's own file, not a copy of it
        assert Path(held.local_path).resolve() == path.resolve()
        assert base64.b64decode(held.digest) == hashlib.md5(path.read_bytes()).digest()


def test_nothing_outside_the_output(tracked: Tracked, nobody_home: Path) -> None:
    assert not [path for path in nobody_home.rglob("*") if path.is_file() and "wandb" in path.name]
