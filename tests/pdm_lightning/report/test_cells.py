from __future__ import annotations

import math
import statistics

import pytest
from scipy.stats import t, ttest_1samp

from pdm_lightning.report import Row
from pdm_lightning.report.cells import Block, Cube, aggregate, t_quantile

BLOCK = Block("toy", "resnet8", "gray_box", "kde", "validation")


def test_seeds_are_aggregated_to_mean_and_sample_deviation():
    values = [0.91, 0.93, 0.98]
    rows = [Row(seed=s, value=v, ci_low=0, ci_high=1, n=100 + s) for s, v in enumerate(values)]
    measure = aggregate(rows)
    assert measure.value == pytest.approx(statistics.mean(values))
    assert measure.sd == pytest.approx(statistics.stdev(values))
    # Student's t at 0.975 with 2 degrees of freedom, from a printed table
    half = 4.30265 * statistics.stdev(values) / math.sqrt(3)
    assert (measure.low, measure.high) == pytest.approx(
        (measure.value - half, measure.value + half), abs=1e-6
    )
    assert (measure.seeds, measure.seeds_ok, measure.n) == (3, 3, (100, 102))


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 99])
def test_the_t_interval_is_scipy_s(freedom):
    assert t_quantile(0.975, freedom) == pytest.approx(t.ppf(0.975, freedom))
    values = [0.3 + 0.1 * math.sin(k) for k in range(freedom + 1)]
    measure = aggregate(Row(seed=seed, value=value) for seed, value in enumerate(values))
    assert (measure.low, measure.high) == pytest.approx(ttest_1samp(values, 0).confidence_interval(0.95))


def test_one_seed_keeps_its_own_interval():
    measure = aggregate([Row(value=0.9, ci_low=0.8, ci_high=0.95)])
    assert (measure.low, measure.high, measure.sd) == (0.8, 0.95, None)


def test_seeds_that_coincide_have_the_interval_of_their_images():
    """Ends .8 and .82, .95 and .97: their means; a t interval would have no width."""
    ends = [(0.8, 0.95), (0.82, 0.97)]
    measure = aggregate(
        Row(seed=s, value=0.9, ci_low=low, ci_high=high) for s, (low, high) in enumerate(ends)
    )
    assert (measure.low, measure.high) == pytest.approx((0.81, 0.96)) and measure.sd == 0
    assert measure.shown == (0.8, 0.97), "two seeds show all of their own intervals, alike or not"
    bare = aggregate([Row(seed=0, value=0.9, ci_low=0.8, ci_high=0.95), Row(seed=1, value=0.9)])
    assert (bare.low, bare.high) == (None, None)


def test_limits_stay_within_what_a_metric_can_be():
    """Cosines end at -1 and 1: Student's interval of -0.9, 0.9 and 0.99 would be [-2.3, 3.0]."""
    measure = aggregate(
        Row(seed=s, metric="class_cosine", value=value) for s, value in enumerate((-0.9, 0.9, 0.99))
    )
    assert measure.low < -1 and measure.high > 1 and measure.shown == (-1.0, 1.0)
    single = aggregate([Row(metric="auc", value=0.99, ci_low=0.97, ci_high=1.01)])
    assert single.shown == (0.97, 1.0)


def test_a_failed_seed_beside_a_good_one():
    measure = aggregate([Row(seed=0, value=0.9), Row(seed=1, status="failed")])
    assert (measure.status, measure.value, measure.seeds, measure.seeds_ok) == ("ok", 0.9, 2, 1)


@pytest.mark.parametrize(
    "statuses, shown",
    [
        (["n/a", "failed"], "failed"),
        (["missing", "n/a"], "n/a"),
        (["missing", "refused"], "refused"),
        ([], "missing"),
    ],
)
def test_the_most_telling_gap_is_shown(statuses, shown):
    assert aggregate(Row(seed=s, status=status) for s, status in enumerate(statuses)).status == shown


def test_a_row_without_a_detector_holds_for_every_detector(make):
    rows = [make.auc("digits", "ce", "cw", 0.7, metric="success_rate", detector="", bandwidth="")]
    assert Cube(rows).measure("success_rate", BLOCK, "digits", "ce", "cw").value == 0.7


def test_a_row_of_another_block_is_not_taken(make):
    rows = [
        make.auc("digits", "ce", "cw", 0.7, bandwidth=0.26),
        make.auc("digits", "ce", "cw", 0.8, threat="white_box"),
    ]
    cube = Cube(rows)
    assert cube.measure("auc", BLOCK, "digits", "ce", "cw").status == "missing"
    assert len(cube.blocks(detection=True)) == 2


def test_a_clean_row_of_a_threat_model_belongs_to_that_one_alone(make):
    rows = [
        make.accuracy("digits", "ce", value, metric="proxy_agreement", threat=threat)
        for threat, value in (("black_box", 0.9), ("transfer", 0.8))
    ]
    cube = Cube([*rows, make.accuracy("digits", "ce", 0.99)])
    found = {
        threat: cube.measure("proxy_agreement", Block("toy", "resnet8", threat), "digits", "ce").value
        for threat in ("black_box", "transfer", "gray_box")
    }
    assert found == {"black_box": 0.9, "transfer": 0.8, "gray_box": None}
    assert cube.measure("accuracy", Block("toy", "resnet8", "transfer"), "digits", "ce").value == 0.99


@pytest.mark.parametrize(
    "bandwidth, rule, scale",
    [
        ("validation", "validation", 1),
        ("validation x0.5", "validation", 0.5),
        (0.26, "0.26", 1),
        ("0.26 x2", "0.26", 2),
    ],
)
def test_a_scaled_bandwidth_is_a_rule_and_a_factor(bandwidth, rule, scale):
    block = Block(bandwidth=bandwidth)
    assert (block.rule, block.scale) == (rule, scale)


def test_what_failed_holds_for_every_metric_without_a_row(make):
    rows = [
        make.auc("digits", "ce", "cw", None, status="failed"),
        make.auc("digits", "ce", "cw", 0.2, metric="passes"),
    ]
    cube = Cube(rows)
    assert cube.measure("auc_all", BLOCK, "digits", "ce", "cw").status == "failed"
    assert cube.measure("passes", BLOCK, "digits", "ce", "cw").value == 0.2


def test_a_threat_without_any_detector_is_a_block_of_its_own(make):
    rows = [
        make.auc("digits", "ce", "cw", 0.9),
        make.auc("digits", "ce", "cw", 0.2, metric="passes", detector="", bandwidth=""),
        make.auc("digits", "ce", "cw", None, status="failed", threat="white_box", detector="", bandwidth=""),
    ]
    assert [(b.threat, b.detector) for b in Cube(rows).blocks(detection=True)] == [
        ("gray_box", "kde"),
        ("white_box", ""),
    ]
