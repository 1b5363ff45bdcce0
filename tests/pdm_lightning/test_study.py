"""A study from the command line to the report: what is computed, kept, reused and reported."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import pdm_lightning
from pdm_lightning.cli import main
from pdm_lightning.report import read_csv
from pdm_lightning.stages.builders import BUILDERS
from pdm_lightning.store import Store

pytestmark = pytest.mark.slow


def kinds(output: Path) -> Counter[str]:
    return Counter(artifact.kind for artifact in Store(output / "store").list())


def test_four_cells_need_two_trainings(tiny_study: Any) -> None:
    found = kinds(tiny_study.output)
    assert found == {"train": 2, "features": 2, "clean": 2, "tsne": 2, "detector": 2, "craft": 4, "score": 4}


def test_report_has_every_cell(tiny_study: Any) -> None:
    rows = read_csv(tiny_study.report / "results.csv")
    cells = {(row.defense, row.attack) for row in rows if row.metric == "auc_all"}
    assert cells == {(d, a) for d in ("ce", "pdm") for a in ("fgsm_010", "bim_010")}
    assert {row.status for row in rows} <= {"ok", "n/a"}
    accuracy = [row for row in rows if row.metric == "accuracy"]
    assert len(accuracy) == 2
    assert all(row.attack == "none" and row.n == 540 and row.data == "digits" for row in accuracy)
    rates = [row for row in rows if row.metric == "success_rate"]
    assert all(
        row.n == row.n_attacked and row.n <= 60 and row.note.startswith("capped: 60 of 540") for row in rates
    )
    assert (tiny_study.report / "index.html").stat().st_size > 10_000
    for name in ("tables/detection.md", "tables/accuracy.tex", "figures/tsne.png", "figures/confusion.pdf"):
        assert (tiny_study.report / name).is_file()


def test_rerun_builds_nothing(
    tiny_study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("built again")

    for kind in BUILDERS:
        monkeypatch.setitem(BUILDERS, kind, forbidden)
    before = (tiny_study.report / "results.csv").read_bytes()
    assert main(["run", *tiny_study.words]) == 0
    assert (tiny_study.report / "results.csv").read_bytes() == before
    assert "Report:" in capsys.readouterr().out


def test_plan_and_report_compute_nothing(
    tiny_study: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["plan", *tiny_study.words]) == 0
    assert "18 cached" in capsys.readouterr().out
    elsewhere = [word for word in tiny_study.words if not word.startswith("paths.")] + [
        f"paths.output={tmp_path}"
    ]
    assert main(["plan", *elsewhere]) == 0
    assert "18 missing" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    assert main(["report", *elsewhere]) == 1
    assert {row.status for row in read_csv(tmp_path / "report" / "tiny" / "results.csv")} == {"missing"}


def test_load_by_key(tiny_study: Any) -> None:
    rows = read_csv(tiny_study.report / "results.csv")
    score = next(
        row for row in rows if row.metric == "auc_all" and row.defense == "pdm" and row.attack == "bim_010"
    )
    scores = pdm_lightning.load(score.artifact, str(tiny_study.output))
    assert scores["metrics"]["auc_all"]["value"] == score.value
    assert len(scores["clean"]) == len(scores["adversarial"]) == score.n_attacked
    store = Store(tiny_study.output / "store")
    craft = store.find(f"score/{score.artifact}").manifest["parents"]["craft"]
    rows_of_images = pdm_lightning.load(craft, str(tiny_study.output))
    train = store.find(f"craft/{craft}").manifest["parents"]["train"]
    classifier = pdm_lightning.load(f"train/{train}", str(tiny_study.output))
    with torch.no_grad():
        predicted = classifier(rows_of_images["x_adv"]).argmax(1)
    assert torch.equal(predicted, rows_of_images["predicted"])
    with pytest.raises(FileNotFoundError, match="no artifact"):
        pdm_lightning.load("ffffffffffffffff", str(tiny_study.output))


def test_stored_scores_follow_from_stored_images(tiny_study: Any) -> None:
    """Densities and AUC recomputed from the artifacts with SciPy and scikit-learn give the reported numbers.

    Not with scikit-learn's KernelDensity: with a bandwidth as small as these its tree is wrong by tens of nats for
    points far from every kernel.
    """
    from scipy.special import logsumexp
    from sklearn.metrics import roc_auc_score

    store = Store(tiny_study.output / "store")
    score = next(store.find(f"score/{a.key}") for a in store.list() if a.kind == "score")
    parents = score.manifest["parents"]
    detector = store.find(f"detector/{parents['detector']}")
    features = pdm_lightning.load(
        f"features/{detector.manifest['parents']['features']}", str(tiny_study.output)
    )
    images = pdm_lightning.load(f"craft/{parents['craft']}", str(tiny_study.output))
    h = detector.json("detector.json")["bandwidth"]
    train, test = features["train"], features["test"]

    def scores(points: torch.Tensor, predicted: torch.Tensor) -> list[float]:
        found = []
        for point, label in zip(points.double(), predicted, strict=True):
            kernels = train.embeddings[train.labels == label].double()
            exponents = -(kernels - point).square().sum(dim=1).numpy() / (2 * h**2)
            volume = math.log(len(kernels)) + len(point) * math.log(h * math.sqrt(2 * math.pi))
            found.append(volume - float(logsumexp(exponents)))
        return found

    index = images["index"]
    clean = scores(test.embeddings[index], test.predicted[index])
    adversarial = scores(images["embeddings"], images["logits"].argmax(1))
    stored = pdm_lightning.load(f"score/{score.key}", str(tiny_study.output))
    assert stored["clean"].tolist() == pytest.approx(clean, abs=1e-6)
    assert stored["adversarial"].tolist() == pytest.approx(adversarial, abs=1e-6)
    expected = roc_auc_score([0] * len(clean) + [1] * len(adversarial), clean + adversarial)
    assert score.json("score.json")["auc_all"]["value"] == pytest.approx(expected, abs=1e-9)


def test_failed_cell_is_a_hole(
    tiny_study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = BUILDERS["craft"]

    def fails_on_bim(node: Any, folder: Path, context: Any) -> None:
        if "BIM" in node.spec["attack"]["_target_"]:
            raise RuntimeError("the attack broke")
        build(node, folder, context)

    monkeypatch.setitem(BUILDERS, "craft", fails_on_bim)
    words = [word for word in tiny_study.words if not word.startswith("name=")]
    status = main(["run", *words, "seed=0", "attack=fgsm_010,bim_010", "attack.eps=0.07", "name=holes"])
    err = capsys.readouterr().err
    assert status == 1
    assert "the attack broke" in err
    rows = read_csv(tiny_study.output / "report" / "holes" / "results.csv")
    failed = [row for row in rows if row.status == "failed"]
    assert {(row.defense, row.attack) for row in failed} == {
        ("ce", "bim_010[eps=0.07]"),
        ("pdm", "bim_010[eps=0.07]"),
    }
    assert any(
        row.attack == "fgsm_010[eps=0.07]" and row.metric == "auc_all" and row.status == "ok" for row in rows
    )
    logs = list((tiny_study.output / "logs" / "failed").glob("craft-*.txt"))
    assert any("the attack broke" in path.read_text() for path in logs)


def test_killed_study_goes_on(tmp_path: Path) -> None:
    """SIGKILL in the middle of training and of crafting; the rerun ends with the undisturbed run's numbers."""
    base = ["run", "attack=cw", "attack.max_iterations=40", "budget=smoke", "budget.train.batch_size=32"]
    base += [
        "budget.train.steps=60",
        "budget.train.segment=10",
        "craft.batch_size=4",
        "budget.images.medium=24",
    ]
    base += ["evaluate.bootstrap=20", "evaluate.min_n=5", "report.tables=[summary]", "trainer.threads=1"]
    words = [*base, f"paths.output={tmp_path / 'killed'}"]
    partial = tmp_path / "killed" / "store" / ".partial"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for waits_for in ("train-*/checkpoint/*", "craft-*/batches/*.safetensors"):
        process = subprocess.Popen(
            [sys.executable, "-m", "pdm_lightning", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        while not list(partial.glob(waits_for)):
            assert process.poll() is None, "the study ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / "report" / "study" / "results.csv").exists()
    assert main(words) == 0
    # layout and micro-batch of the gradient passes are measured, and round differently: both studies use the same
    shutil.copytree(tmp_path / "killed" / "passes", tmp_path / "whole" / "passes")
    assert main([*base, f"paths.output={tmp_path / 'whole'}"]) == 0
    killed, whole = (
        read_csv(tmp_path / run / "report" / "study" / "results.csv") for run in ("killed", "whole")
    )
    timeless = [(a, b) for a, b in zip(killed, whole, strict=True) if a.metric != "seconds"]
    assert [a for a, _ in timeless] == [b for _, b in timeless]


def test_wandb_free_settings_are_written(tiny_study: Any) -> None:
    train = next(a for a in Store(tiny_study.output / "store").list() if a.kind == "train")
    manifest = json.loads((train.path / "manifest.json").read_text())
    assert manifest["spec"]["seed"] == 0
    assert "root" not in manifest["spec"]["data"]
