"""Claims on curves: falling, above others at every radius, above them at most radii."""

from __future__ import annotations

import numpy as np
import pytest

from pdm_lightning.claims.curves import Above, Monotone
from pdm_lightning.claims.place import Place
from pdm_lightning.claims.verdicts import Part, combine, corrected
from pdm_lightning.report import Row

EPS = (0.05, 0.1, 0.15, 0.2)


def rows(defense: str, values, half: float = 0.01, family: str = "fgsm", eps=EPS) -> list[Row]:
    where = {
        "data": "cifar10",
        "model": "resnet56",
        "threat": "gray_box",
        "detector": "kde",
        "metric": "robust_accuracy",
    }
    return [
        Row(**where, defense=defense, attack=f"{family}[eps={e}]", value=v, ci_low=v - half, ci_high=v + half, n=1000)
        for e, v in zip(eps, values, strict=True)
    ]  # fmt: skip


def falls(*found: Row) -> Part:
    (part,) = Monotone("fgsm", ("base",)).parts(Place(found, {}))
    return part


@pytest.mark.parametrize(
    ("values", "half", "verdict"),
    [
        ((0.9, 0.6, 0.3, 0.1), 0.01, "reproduced"),
        ((0.9, 0.6, 0.7, 0.1), 0.01, "not reproduced"),  # up by .1, its interval .1 -+ .014
        ((0.9, 0.6, 0.601, 0.1), 0.01, "undecided"),  # a rise that may be chance
        ((0.9, 0.89, 0.88, 0.87), 0.1, "undecided"),  # falls, and may be flat
        ((0.9, 0.6, 0.6, 0.1), 0.01, "reproduced"),  # flat is no rise
        ((0.5, 0.4, 0.3, 0.6), 0.01, "not reproduced"),
        ((0.9, 0.6, 0.615, 0.1), 0.01, "undecided"),  # up by .015 -+ .0141, one of four comparisons
        ((0.5, 0.51, 0.52, 0.53), 0.01, "not reproduced"),  # as a whole, no step alone
    ],
)
def test_monotone(values, half: float, verdict: str) -> None:
    assert falls(*rows("ce", values, half)).verdict == verdict


def test_monotone_says_from_where_to_where() -> None:
    assert (
        falls(*rows("ce", (0.9, 0.6, 0.7, 0.1))).says
        == "90.00 % at eps 0.05, 10.00 % at 0.2, 1 of 3 steps rise, n = 1,000"
    )


def test_two_radii_are_no_curve() -> None:
    assert falls(*rows("ce", (0.9, 0.1), eps=(0.05, 0.2))).verdict == "not measured"
    assert falls(*rows("ce", (0.9, 0.5, 0.1), family="bim", eps=(0.05, 0.1, 0.2))).verdict == "not measured"


def above(pdm, ce, *, most: bool = False) -> list[Part]:
    return Above("fgsm", "pdm", ("base",), most).parts(Place([*rows("pdm", pdm), *rows("ce", ce)], {}))


LOW = (0.5, 0.4, 0.3, 0.2)


def test_above_at_every_radius() -> None:
    parts = above((0.6, 0.5, 0.4, 0.3), LOW)
    assert [part.verdict for part in parts] == ["reproduced"] * 4
    assert combine(above((0.6, 0.5, 0.4, 0.201), LOW)) == "undecided"
    assert combine(above((0.6, 0.5, 0.2, 0.201), LOW)) == "not reproduced"


@pytest.mark.parametrize(
    ("pdm", "verdict"),
    [
        ((0.6, 0.5, 0.4, 0.1), "reproduced"),  # three of four
        ((0.6, 0.5, 0.3, 0.1), "undecided"),  # two above, one below
        ((0.6, 0.5, 0.2, 0.1), "not reproduced"),  # below at half of them
    ],
)
def test_above_at_most_radii(pdm, verdict: str) -> None:
    (part,) = above(pdm, LOW, most=True)
    assert part.verdict == verdict


def test_at_zero_there_is_nothing_to_be_above() -> None:
    parts = above((0.6, 0.5, 0.1, 0.0), (0.5, 0.4, 0.0, 0.0))
    assert [part.verdict for part in parts] == ["reproduced"] * 3
    (most,) = above((0.6, 0.0, 0.0, 0.0), (0.5, 0.0, 0.0, 0.0), most=True)
    assert most.verdict == "reproduced" and most.says == "above at 1 of 1 radii, below one of them at 0"
    (none,) = above((0.0,) * 4, (0.0,) * 4)
    assert none.verdict == "undecided"


def test_chance_seldom_refutes_a_curve() -> None:
    """Three models that are alike, at ten radii: 2.5 % of 20 comparisons are no refutation, nor of 45 pairs."""
    draws, wrong = np.random.default_rng(0), 0
    for _ in range(60):
        models = {name: draws.binomial(1000, 0.4, 10) / 1000 for name in ("ce", "rce", "pdm")}
        eps = [f"{e / 100:g}" for e in range(2, 21, 2)]
        found = [one for name, values in models.items() for one in rows(name, values, 0.0304, eps=eps)]
        for kind in (Above("fgsm", "pdm", ("base", "rce")), Monotone("fgsm", ("base", "rce", "pdm"))):
            wrong += combine(corrected(kind.parts(Place(found, {})))) == "not reproduced"
    assert wrong <= 12  # 120 at a rate of .05 or less: more than 12 in 1 of 200; uncorrected about 50


def test_radius_zero_is_no_attack() -> None:
    eps = (0.0, *EPS)
    found = [*rows("pdm", (0.1, 0.6, 0.5, 0.4, 0.3), eps=eps), *rows("ce", (0.9, *LOW), eps=eps)]
    assert combine(Above("fgsm", "pdm", ("base",)).parts(Place(found, {}))) == "reproduced"


def test_another_option_of_the_attack_is_no_radius() -> None:
    other = [Row(metric="robust_accuracy", defense="ce", attack="fgsm[eps=0.1,loss=dlr]", value=0.1)]
    assert Place(other, {}).radii("fgsm") == []
