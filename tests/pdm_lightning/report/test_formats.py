from __future__ import annotations

import pytest

from pdm_lightning.report import formats


@pytest.mark.parametrize(
    "function, value, text",
    [
        (formats.fraction, 0.9874, ".987"),
        (formats.fraction, 1.0, "1.000"),
        (formats.fraction, -0.25, "-.250"),
        (formats.published_fraction, 0.88, ".88"),
        (formats.published_fraction, 1, "1"),
        (formats.percent, 0.9933, "99.33"),
        (formats.rate, 0.88, "88 %"),
        (formats.rate, 0.0151, "1.5 %"),
        (formats.rate, 1.0, "100 %"),
        (formats.real, 0.012345, "0.0123"),
        (formats.real, 0.9, "0.900"),
        (formats.real, 123.0, "123"),
        (formats.real, 12345.6, "12,346"),
        (formats.real, 0.0, "0"),
        (formats.seconds, 0.84, "0.84 s"),
        (formats.seconds, 59.7, "1 min 00 s"),
        (formats.seconds, 185.0, "3 min 05 s"),
        (formats.seconds, 3600 * 2 + 599.0, "2 h 10 min"),
        (formats.flag, 1.0, "yes"),
        (formats.words, ["a", "b", "c"], "a, b and c"),
        (formats.slug, "Table 1: <C&W>", "table-1-c-w"),
        (formats.slug, "&&", "x"),
    ],
)
def test_numbers_are_printed(function, value, text):
    assert function(value) == text


@pytest.mark.parametrize(
    "value, text", [(0.08704, ".0870"), (0.00832, ".00832"), (1.5, "1.50"), (0.0, "0"), (-0.25, "-.250")]
)
def test_distortions_have_three_digits_and_no_leading_zero(value, text):
    assert formats.metric_value("distortion", value) == formats.small(value) == text


def test_what_has_a_threshold_is_named_by_its_false_positive_rate():
    assert formats.metric_label("joint_success@0.05") == "Joint success at 5 % false positives, %"
    assert formats.metric_label("robust_accuracy@0.001").endswith(
        "with rejection at 0.1 % false positives, %"
    )
    assert formats.metric_label("robust_accuracy") == "Accuracy under attack, %"
    assert formats.metric_value("detected@0.01", 0.123) == "12.30"
    assert formats.metric_bound("detected@0.01", 0.123) == "12.3"
    assert formats.metric_deviation("joint_success@0.05", 0.0123) == "1.23"
    names = ("joint_success@0.05", "robust_accuracy@0.01", "auc@0.05", "joint_success", "joint_success@x")
    assert [formats.at_threshold(name) for name in names] == [
        ("joint_success", 0.05),
        ("robust_accuracy", 0.01),
        None,
        None,
        None,
    ]


def test_metrics_with_a_threshold_come_after_the_others_and_before_unknown_ones():
    names = ["other", "robust_accuracy@0.05", "joint_success@0.05", "seconds", "robust_accuracy", "accuracy"]
    ordered = sorted(names, key=formats.metric_position)
    assert ordered == [
        "accuracy",
        "robust_accuracy",
        "seconds",
        "joint_success@0.05",
        "robust_accuracy@0.05",
        "other",
    ]


def test_a_deviation_has_the_digits_of_its_value():
    assert formats.metric_deviation("accuracy", 0.0012) == "0.12"
    assert formats.metric_deviation("auc", 0.0124) == ".012"
    assert formats.metric_deviation("collapsed", 0.0) == "0"


def test_an_unknown_metric_is_shown_in_words():
    assert formats.metric_label("new_score") == "new score"
    assert formats.metric_value("new_score", 0.5) == "0.500"


def test_a_correlation_keeps_its_sign() -> None:
    assert formats.metric_value("bound_rank", -0.2) == "-.200"
    assert [formats.within("bound_rank", value) for value in (-1.3, -0.2, 1.2)] == [-1.0, -0.2, 1.0]
    assert formats.metric_label("gradient_train:stage2") == "Gradient of the training loss at stage2"
