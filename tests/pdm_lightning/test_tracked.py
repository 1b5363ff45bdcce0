"""From a study under every threat model to the runs that a tracker gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc

from pdm_lightning.report import StudyResult
from pdm_lightning.study.execute import Outcome
from pdm_lightning.study.exhibits import roc
from pdm_lightning.study.results import collect
from pdm_lightning.study.tracked import _Records
from pdm_lightning.tracking import Record


@pytest.fixture(scope="module")
def result(threat_study: Any) -> StudyResult:
    return collect(threat_study.plan, threat_study.context, Outcome(), "", "")


@pytest.fixture(scope="module")
def records(threat_study: Any, result: StudyResult) -> list[Record]:
    return list(_Records(threat_study.plan, result, threat_study.fresh()).all())


def of(records: list[Record], job: str, **axes: Any) -> list[Record]:
    return [r for r in records if r.job == job and axes.items() <= r.axes.items()]


def test_one_record_an_artifact(threat_study: Any, records: list[Record]) -> None:
    kinds = {"train": ("train", "proxy"), "cell": ("score",), "worst_case": ("worst",)}
    for job, stages in kinds.items():
        keys = [record.key for record in of(records, job)]
        assert sorted(keys) == sorted(node.key for node in threat_study.plan if node.kind in stages)
    # what is one computation under two names is one run, under the first of them
    first = threat_study.node("gray_box", "fgsm_010", "score")
    assert first.key == threat_study.node("white_box", "fgsm_010", "score").key
    (shared,) = (record for record in records if record.key == first.key)
    assert shared.axes["threat"] == "gray_box"


def test_metrics_are_the_rows(records: list[Record], result: StudyResult) -> None:
    for record in [*of(records, "cell"), *of(records, "worst_case")]:
        rows = [
            row
            for row in result.rows
            if row.artifact == record.key
            and (row.threat, row.attack) == (record.axes["threat"], record.axes["attack"])
        ]
        assert rows
        for row in rows:
            assert record.metrics[row.metric] == (row.value, row.ci_low, row.ci_high, row.n)


def test_surrogates_are_trainings_too(records: list[Record]) -> None:
    (proxy,) = of(records, "train", defense="proxy")
    agreement = proxy.metrics["proxy_agreement"]
    assert 0 < (agreement.value or 0) <= 1 and agreement.n
    assert "accuracy" not in proxy.metrics  # nobody looks at its test images
    (own,) = of(records, "train", defense="ce", seed=1000)
    content = own.load()
    assert content.history and {upload.name for upload in content.uploads} == {f"model-{own.key}"}
    # a surrogate has features, so it has a picture of them
    assert "tsne" in content.pictures and len(content.tables["tsne"].rows) <= 1000


def test_a_record_is_the_same_until_its_artifacts_change(
    threat_study: Any, result: StudyResult, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = list(_Records(threat_study.plan, result, threat_study.fresh()).all())
    assert [r.digest for r in again] == [r.digest for r in records]
    from pdm_lightning.study import tracked

    craft = threat_study.node("gray_box", "bim_010")
    true = tracked.content_digest
    monkeypatch.setattr(
        tracked, "content_digest", lambda path: "new" if craft.key in str(path) else true(path)
    )
    changed = list(_Records(threat_study.plan, result, threat_study.fresh()).all())
    differ = [new.title for new, old in zip(changed, records, strict=True) if new.digest != old.digest]
    (title,) = differ
    assert " gray_box bim_010 " in title


def test_examples_are_what_was_attacked(threat_study: Any, records: list[Record]) -> None:
    (record,) = of(records, "cell", threat="gray_box", attack="bim_010")
    content = record.load()
    assert 0 < len(content.examples) <= 16
    fooled = [example.label != example.predicted for example in content.examples]
    assert fooled == sorted(fooled, reverse=True)  # those that the attack won come first
    assert fooled[0]
    for example in content.examples:
        far = np.abs(example.adversarial.astype(float) - example.original).max() / 255
        assert far == pytest.approx(example.linf, abs=1 / 255)
        assert example.original.shape == (8, 8, 1)


def test_without_the_data_a_cell_has_no_images_and_all_the_rest(
    threat_study: Any, result: StudyResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = threat_study.fresh()

    def gone(node: Any) -> None:
        raise FileNotFoundError("the data are\ngone")

    monkeypatch.setattr(context, "data", gone)
    found = of(list(_Records(threat_study.plan, result, context).all()), "cell")
    contents = [record.load() for record in found]
    assert all(not content.examples and content.roc and content.uploads for content in contents[:2])
    assert caplog.text.count("without images: the data are gone") == 1


def test_a_roc_curve_is_thinned_and_keeps_its_area() -> None:
    rng = np.random.default_rng(0)
    clean, adversarial = rng.normal(size=3000), rng.normal(1, 1, 3000)
    curve = roc("auc", clean, adversarial)
    assert len(curve.x) <= 200 and (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    above = (adversarial[:, None] > clean).mean()
    assert auc(curve.x, curve.y) == pytest.approx(above, abs=2e-3)
