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


def test_a_deviation_has_the_digits_of_its_value():
    assert formats.metric_deviation("accuracy", 0.0012) == "0.12"
    assert formats.metric_deviation("auc", 0.0124) == ".012"
    assert formats.metric_deviation("collapsed", 0.0) == "0"


def test_an_unknown_metric_is_shown_in_words():
    assert formats.metric_label("new_score") == "new score"
    assert formats.metric_value("new_score", 0.5) == "0.500"
