"""Which rows of two studies belong together, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pdm_lightning.report.contrast import Contrast
from pdm_lightning.report.matched import is_difference, match, pair, repeated, what_differs
from pdm_lightning.report.rows import Row

ROW = Row(
    data="digits",
    model="resnet8",
    defense="ce",
    budget="smoke",
    threat="gray_box",
    attack="bim_010",
    detector="kde",
    bandwidth="validation",
    metric="auc",
    value=0.9,
    ci_low=0.8,
    ci_high=0.95,
    n=100,
    artifact="a" * 16,
)


def row(**changes: Any) -> Row:
    return replace(ROW, **changes)


def clean(**changes: Any) -> Row:
    none = {"threat": "", "attack": "none", "detector": "", "bandwidth": "", "metric": "accuracy"}
    return replace(ROW, **none | changes)


def no_images(a: Row, b: Row) -> str:
    return "no store"


# ---- what is compared


def test_a_column_with_one_value_in_each_is_compared() -> None:
    a, b = [row(), clean()], [row(defense="pdm"), clean(defense="pdm")]
    assert what_differs(a, b) == {"defense": ("ce", "pdm")}
    assert [len(cell[0]) for cell in match(a, b).cells] == [1, 1]


@pytest.mark.parametrize(
    ("column", "other"),
    [("data", "mnist"), ("model", "resnet20"), ("budget", "cpu"), ("threat", "white_box"), ("attack", "cw"),
     ("detector", "msp"), ("bandwidth", 0.5), ("seed", 1)],
)  # fmt: skip
def test_any_column_can_be_what_is_compared(column: str, other: object) -> None:
    matched = match(
        [row(), clean()],
        [
            row(**{column: other}),
            clean(**({column: other} if column in ("data", "model", "budget", "seed") else {})),
        ],
    )
    assert matched.compared == {column: (str(getattr(ROW, column)), str(other))}
    assert len(matched.cells) == 2 and not matched.alone


def test_a_column_with_several_values_is_matched_on() -> None:
    """Two studies of two defences each: the one that they share has a partner, the others are alone."""
    a, b = [row(), row(defense="pdm")], [row(defense="pdm", value=0.7), row(defense="rce")]
    matched = match(a, b)
    assert matched.compared == {}
    assert [(x.defense, y.value) for (x,), (y,) in matched.cells] == [("pdm", 0.7)]
    assert [(side, one.defense) for side, one in matched.alone] == [("a", "ce"), ("b", "rce")]


def test_several_things_may_differ_at_once() -> None:
    matched = match([row()], [row(budget="cpu", model="resnet20")])
    assert matched.compared == {"model": ("resnet8", "resnet20"), "budget": ("smoke", "cpu")}
    assert len(matched.cells) == 1


def test_clean_images_never_meet_attacked_ones() -> None:
    """With attack, threat and detector compared, seconds of a training do not meet seconds of a crafting."""
    a = [clean(metric="seconds", value=1.0), row(metric="seconds", value=2.0)]
    other = {"attack": "cw", "threat": "white_box", "detector": "msp", "bandwidth": 0.5}
    b = [clean(metric="seconds", value=3.0), row(metric="seconds", value=4.0, **other)]
    found = [(x.value, y.value) for (x,), (y,) in match(a, b).cells]
    assert found == [(1.0, 3.0), (2.0, 4.0)]


def test_metrics_and_seeds_are_matched() -> None:
    a = [row(seed=s) for s in (0, 1, 2)] + [row(metric="auc_all")]
    b = [row(seed=s, defense="pdm") for s in (2, 1, 5)]
    matched = match(a, b)
    ((first, second),) = matched.cells
    assert [one.seed for one in first] == [one.seed for one in second] == [1, 2]
    told = {(side, one.metric, one.seed) for side, one in matched.alone}
    assert told == {("a", "auc", 0), ("a", "auc_all", 0), ("b", "auc", 5)}


def test_every_row_is_in_a_cell_or_alone() -> None:
    a = [row(attack=attack, seed=s) for attack in ("cw", "jsma", "bim") for s in (0, 1)]
    b = [row(attack=attack, seed=s, defense="pdm") for attack in ("cw", "fgsm") for s in (1, 2)]
    matched = match(a, b)
    paired = sum(len(side) for cell in matched.cells for side in cell)
    assert paired == 2 and paired + len(matched.alone) == len(a) + len(b)


def test_a_cell_twice_is_found() -> None:
    assert repeated([row(), row(seed=1), row(metric="auc_all")]) is None
    again = row(value=0.1)
    assert repeated([row(), row(seed=1), again]) is again


def test_differences_are_not_compared_again() -> None:
    assert is_difference(row(metric="auc_minus:ce")) and is_difference(row(metric="p_minus:ce"))
    assert not is_difference(row()) and not is_difference(row(metric="gradient_attack:input"))


# ---- what a cell says


def test_one_seed_on_the_same_images() -> None:
    told = Contrast("images", 0.05, 0.01, 0.09, 0.01, 80)
    found = pair(([row()], [row(defense="pdm", value=0.7, artifact="b" * 16)]), lambda a, b: told)
    assert found.contrast is told and (found.a.value, found.b.value) == (0.9, 0.7)
    assert found.names["defense"] == "ce | pdm" and found.names["attack"] == "bim_010"
    assert found.artifacts == ("a" * 16, "b" * 16)


def test_one_seed_without_images_is_unpaired_and_says_why() -> None:
    found = pair(([row()], [row(value=0.7, ci_low=0.6, ci_high=0.8, artifact="b")]), no_images).contrast
    assert (found.how, found.why) == ("unpaired", "no store") and found.value == pytest.approx(0.2)


def test_the_same_artifact_does_not_differ() -> None:
    found = pair(([row()], [row(budget="cpu")]), no_images).contrast
    assert (found.how, found.value, found.p) == ("same", 0.0, None)
    other = pair(([row()], [row(value=0.8)]), no_images).contrast  # built again, with another outcome
    assert other.how == "unpaired"
    assert pair(([row(artifact="")], [row(artifact="")]), no_images).contrast.how == "unpaired"


def seeds(values: list[float | None], **changes: Any) -> list[Row]:
    known = [{"value": v, "status": "ok" if v is not None else "n/a", "artifact": f"{v}"} for v in values]
    return [row(seed=s, **one | changes) for s, one in enumerate(known)]


def test_seeds_that_lack_a_value_on_one_side_are_left_out_on_both() -> None:
    a, b = seeds([0.9, None, 0.8, 0.7]), seeds([0.8, 0.5, 0.6, 0.4], defense="pdm")
    found = pair((a, b), no_images)
    assert (found.a.value, found.b.value) == (pytest.approx(0.8), pytest.approx(0.6))
    assert found.a.seeds == found.b.seeds == 3
    assert (found.contrast.how, found.contrast.n) == ("seeds", 3)
    assert found.contrast.value == pytest.approx(0.2) and found.contrast.why == "no store"


def test_seeds_take_differences_on_the_same_images_only_where_all_have_one() -> None:
    a, b = seeds([0.9, 0.8, 0.7]), seeds([0.5, 0.6, 0.4])
    by_image = {0: 0.1, 1: 0.2, 2: 0.6}
    every = pair((a, b), lambda x, y: Contrast("images", by_image[x.seed])).contrast
    assert every.value == pytest.approx(0.3) and every.why == ""
    few = pair((a, b), lambda x, y: Contrast("images", None if x.seed == 1 else 0.1)).contrast
    assert few.value == pytest.approx((0.4 + 0.2 + 0.3) / 3) and few.why == "too few images in common"


def test_a_cell_without_a_value_keeps_its_status() -> None:
    found = pair(([row(value=None, status="n/a", n=3)], [row()]), no_images)
    assert (found.a.status, found.a.n, found.contrast.value) == ("n/a", (3, 3), None)
