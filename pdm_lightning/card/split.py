"""Check 10: is what is tested apart from what was fitted and chosen?"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pdm_lightning.card.alarms import Trial, judge_alarms, share_tied
from pdm_lightning.card.card import Finding
from pdm_lightning.card.compare import EXCEPTIONS
from pdm_lightning.card.evidence import Evidence, Model, Watched
from pdm_lightning.card.harm import detectors

PARTS = {"shared_train": "training", "shared_validation": "validation"}


def disjoint(evidence: Evidence) -> Finding:
    """(10) Nothing was chosen on test images; the thresholds' alarms are as frequent as they promise."""
    found = Finding()
    for model in evidence.models.values():
        _judge_images(model, found)
        for detector in detectors(evidence, model.key):
            _judge_constant(evidence, model, detector, found)
    if not any(model.splits for model in evidence.models.values()):
        found.missing = "images shared by the splits were not counted: card.run=facts does so"
    judge_alarms(list(_alarms(evidence)), found)
    return found


def _judge_images(model: Model, found: Finding) -> None:
    if not model.splits:
        return
    test = model.splits["test"]
    shared = {name: model.splits[key] for key, name in PARTS.items() if model.splits[key] > EXCEPTIONS * test}
    told = " and ".join(f"{count} are {name} images" for name, count in shared.items())
    faults = [f"of {test} test images {told}: split the data anew"] if shared else []
    both, validation = model.splits["validation_in_train"], model.splits["validation"]
    if both > EXCEPTIONS * validation:  # a threshold frozen on them lets through too little
        faults.append(f"{both} of {validation} validation images are training images: split the data anew")
    found.judge(f"{model.title}, images", "; ".join(faults), **model.splits)


def _seen(evidence: Evidence, model: str, detector: str) -> list[Watched]:
    runs = [run for run in evidence.study() if run.model == model]
    return [run.watched[detector] for run in runs if detector in run.watched]


def _judge_constant(evidence: Evidence, model: Model, detector: str, found: Finding) -> None:
    """One score for all images flags none of them, at any threshold."""
    seen = _seen(evidence, model.key, detector)
    scores = torch.cat([part for watched in seen for part in (watched.clean, watched.adversarial)])
    if len(scores) > 1:
        distinct = len(scores.unique())
        fault = f"gives all {len(scores)} images one score: it detects nothing" if distinct == 1 else ""
        found.judge(f"{model.title}, {detector}, scores", fault, distinct=distinct, n=len(scores))
    known = {fpr for watched in seen for fpr, limit in watched.thresholds.items() if limit is None}
    for fpr in sorted(known):
        found.skip(f"{model.title}, {detector} at {_percent(fpr)}: too few validation images for a threshold")


def _percent(fpr: str) -> str:
    return f"{100 * float(fpr):g} %"


def _alarms(evidence: Evidence) -> Iterator[Trial]:
    """What each threshold came to, and the share of clean images that lie on it."""
    for model in evidence.models.values():
        for detector, rates in model.alarms.items():
            for fpr, told in rates.items():
                seen = _seen(evidence, model.key, detector)
                tied = max((share_tied(watched, fpr) for watched in seen), default=0.0)
                what = f"{model.title}, {detector} at {_percent(fpr)}"
                yield Trial(what, f"{model.title}, all detectors at {_percent(fpr)}", {**told, "tied": tied})
