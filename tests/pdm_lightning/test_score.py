"""What a score is worth at a threshold: joint success, accuracies and false alarms, from the stored scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pdm_lightning.stages import score


def test_rates_that_the_validation_images_cannot_hold_are_no_numbers(threat_study: Any) -> None:
    """257 clean images: too few for 1 % (1,000), enough for 5 % (200) and 10 % (100)."""
    nodes = threat_study.entries["gray_box", "bim_010"].nodes
    found = threat_study.artifact(nodes["score"]).json("score.json")
    assert found["thresholds"]["0.01"] is None
    for metric in ("joint_success", "detected", "robust_accuracy", "joint_accuracy", "false_alarms"):
        assert found[f"{metric}@0.01"]["value"] is None, metric
        assert found[f"{metric}@0.05"]["value"] is not None, metric
    known = load_file(threat_study.artifact(nodes["detector"]).file("scores.safetensors"))
    assert len(known["validation"]) == 257
    for fpr in ("0.05", "0.1"):
        threshold = found["thresholds"][fpr]
        assert float((known["validation"] > threshold).double().mean()) <= float(fpr)
        alarms = float((known["test"] > threshold).double().mean())
        assert found[f"false_alarms@{fpr}"]["value"] == pytest.approx(alarms)
        assert found[f"false_alarms@{fpr}"]["n"] == len(known["test"]) == 540


def test_a_score_on_the_threshold_is_no_false_alarm() -> None:
    clean = torch.tensor([1.0, 2.0, 2.0, 3.0])
    (found,) = score._false_alarms(clean, 2.0, "0.1").values()
    assert (found["value"], found["n"]) == (0.25, 4)
    assert score._false_alarms(clean, None, "0.01") == {"false_alarms@0.01": {"value": None, "n": 4}}


def test_joint_numbers_follow_from_the_stored_scores(threat_study: Any) -> None:
    for entry in threat_study.plan.entries:
        if entry.refused:
            continue
        artifact = threat_study.artifact(entry.nodes["score"])
        rows, found = load_file(artifact.file("scores.safetensors")), artifact.json("score.json")
        threshold = found["thresholds"]["0.05"]
        unflagged, fooled = rows["adversarial"] <= threshold, rows["fooled"]
        n, candidates = len(fooled), 24
        assert found["joint_success@0.05"]["value"] == pytest.approx(int((fooled & unflagged).sum()) / n)
        assert found["joint_success@0.05"]["n"] == n
        assert found["joint_success@0.05"]["value"] <= found["misclassified_rate"]["value"]
        kept = (rows["clean"] <= threshold) & ~(fooled & unflagged)
        assert found["robust_accuracy@0.05"]["value"] == pytest.approx(int(kept.sum()) / candidates)
        right = int((rows["clean"] <= threshold).sum()) + int((~(fooled & unflagged)).sum())
        assert found["joint_accuracy@0.05"]["value"] == pytest.approx(right / (2 * candidates))
        assert found["joint_accuracy@0.05"]["n"] == candidates
        silent, caught = rows["clean"][fooled] <= threshold, fooled & ~unflagged
        assert found["detection_accuracy@0.05"]["n"] == found["auc"]["n"] == int(fooled.sum())
        if fooled.sum() < entry.cell.config["evaluate"]["min_n"]:
            assert found["detection_accuracy@0.05"]["value"] is None
        else:
            told_apart = (int(silent.sum()) + int(caught.sum())) / (2 * int(fooled.sum()))
            assert found["detection_accuracy@0.05"]["value"] == pytest.approx(told_apart)
        if fooled.sum() < entry.cell.config["evaluate"]["min_n"]:
            assert found["detected@0.05"]["value"] is None
        else:
            assert found["detected@0.05"]["value"] == pytest.approx(
                int((fooled & ~unflagged).sum()) / int(fooled.sum())
            )
