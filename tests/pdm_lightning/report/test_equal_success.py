"""Detection at equal success: interpolated by hand, seed by seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pdm_lightning.report import Row, build_tables
from pdm_lightning.report.equal_success_table import radius_of
from pdm_lightning.report.tables import Table

#: By radius: the share fooled, and the AUC of a seed.
WEAK = {0.02: (0.0, None), 0.05: (0.1, 0.80), 0.1: (0.3, 0.90), 0.2: (0.7, 0.96)}
STRONG = {0.02: (0.05, None), 0.05: (0.4, 0.91), 0.1: (0.6, 0.97), 0.2: (0.9, 0.98)}


def swept(make: Any, defense: str, points: dict[float, tuple[float, float | None]], **more: Any) -> list[Row]:
    rows = []
    for eps, (share, auc) in points.items():
        attack = f"fgsm[eps={eps:g}]"
        ends = {} if auc is None else {"ci_low": auc - 0.02, "ci_high": auc + 0.01}
        shown = {"n": round(500 * share), "n_attacked": 500, **more}
        rows += [
            make.auc("mnist", defense, attack, share, metric="misclassified_rate", **shown),
            make.auc("mnist", defense, attack, auc, status="n/a" if auc is None else "ok", **ends, **shown),
        ]
    return rows


def table(make: Any, rows: list[Row]) -> Table:
    (found,) = build_tables(make.study(rows, tables=["equal_success"]))
    return found


def cells(found: Table, label: str) -> list[tuple[str, str, str]]:
    (row,) = [row for row in found.rows if row.label == label]
    return [(cell.value, cell.interval, cell.n) for cell in row.cells]


def test_one_seed_by_hand(make: Any) -> None:
    found = table(make, swept(make, "ce", STRONG) + swept(make, "pdm", WEAK))
    assert [f"{column.group} {column.label}" for column in found.columns] == [
        "AUC CE",
        "AUC PDM",
        "Difference PDM - CE",
    ]
    assert [(row.section, row.label) for row in found.rows] == [
        ("MNIST", f"fgsm, {share} % fooled") for share in (10, 20, 50, 80)
    ]
    # a fifth lies half way from .1 to .3; the first model is fooled on 5 and then on 40 %, with no AUC at 5
    missing, half, none = cells(found, "fgsm, 20 % fooled")
    assert (missing[0], half, none[0]) == ("n/a", (".850", "[.830, .860]", "100"), "n/a")
    # .91 and half of .06; .90 and half of .06
    assert cells(found, "fgsm, 50 % fooled") == [
        (".940", "[.920, .950]", "250"),
        (".930", "[.910, .940]", "250"),
        # by hand: sqrt(.02^2 + .01^2) on either side, for the ends lie .02 below and .01 above both
        ("-.010", "[-.032, +.012]", "250"),
    ]
    # 70 % is all that the largest radius fools of the second
    assert [value for value, _, _ in cells(found, "fgsm, 80 % fooled")] == [".977", "n/a", "n/a"]


def test_seeds_are_interpolated_one_by_one_and_subtracted_in_pairs(make: Any) -> None:
    raised = {eps: (share, auc and auc + 0.01) for eps, (share, auc) in WEAK.items()}
    rows = [
        *swept(make, "ce", WEAK, seed=0),
        *swept(make, "ce", raised, seed=1),
        *swept(make, "pdm", STRONG, seed=0),
        *swept(make, "pdm", STRONG, seed=1),
        *swept(make, "pdm", STRONG, seed=2),
    ]
    ce, pdm, difference = cells(table(make, rows), "fgsm, 50 % fooled")
    assert (ce[0], ce[1]) == (".935", "± .007 [.910, .950]")
    # three seeds that do not differ: the mean of their own intervals
    assert pdm == (".940", "± .000 [.920, .950]", "250")
    # .940 - .930 and .940 - .940, each .022 on either side: two seeds have both
    assert (difference[0], difference[1]) == ("+.005", "± .007 [-.022, +.032]")


def failed(make: Any, defense: str, seed: int) -> list[Row]:
    """What a study records of a model whose scoring failed: no metric has a value."""
    return [
        make.auc("mnist", defense, f"fgsm[eps={eps:g}]", None, seed=seed, status="failed") for eps in WEAK
    ]


def details(found: Table, label: str) -> list[tuple[str, tuple[str, ...]]]:
    (row,) = [row for row in found.rows if row.label == label]
    return [(cell.value, cell.details) for cell in row.cells]


def test_a_seed_that_failed_is_counted_and_a_defence_that_failed_says_so(make: Any) -> None:
    rows = [
        *swept(make, "ce", WEAK, seed=0),
        *failed(make, "ce", 1),
        *swept(make, "rce", STRONG, seed=0),
        *swept(make, "rce", STRONG, seed=1),
        *failed(make, "pdm", 0),
        *failed(make, "pdm", 1),
    ]
    found = table(make, rows)
    assert details(found, "fgsm, 50 % fooled") == [
        (".930", ("1 of 2 seeds",)),
        (".940", ("2 seeds",)),
        ("failed", ()),
        ("+.010", ("1 of 2 seeds",)),  # RCE - CE, in the one seed that both have
        ("n/a", ()),
    ]
    assert any(note.startswith("failed:") for note in found.footnotes)
    assert not any(note.startswith("missing:") for note in found.footnotes)


def test_a_share_that_is_not_reached_is_not_called_too_few_images(make: Any) -> None:
    # the one seed of each is not the other's
    rows = [*swept(make, "ce", WEAK, seed=0), *swept(make, "pdm", STRONG, seed=1)]
    found = table(make, rows)
    assert [value for value, _ in details(found, "fgsm, 50 % fooled")] == [".930", ".940", "n/a"]
    (note,) = [note for note in found.footnotes if note.startswith("n/a:")]
    assert "the share lies between no two radii" in note
    assert "in no seed for both" in note


def test_a_defence_without_a_single_auc_is_there_and_not_missing(make: Any) -> None:
    nothing = dict.fromkeys(WEAK, (0.01, None))
    found = table(make, swept(make, "ce", STRONG) + swept(make, "pdm", nothing))
    assert [value for value, _ in details(found, "fgsm, 50 % fooled")] == [".940", "n/a", "n/a"]


def test_collapsed_and_capped_are_marked(make: Any) -> None:
    rows = [
        *swept(make, "ce", WEAK, note="capped: 500 of 10000 test images"),
        *swept(make, "pdm", STRONG, note="collapsed"),
    ]
    found = table(make, rows)
    assert all(row.marks == "†" for row in found.rows)
    assert all([cell.marks for cell in row.cells] == ["", "‡", ""] for row in found.rows)
    assert any("collapsed" in note and "PDM on MNIST" in note for note in found.footnotes)
    assert any("fgsm was capped: 500 of 10000 test images" in note for note in found.footnotes)


def test_the_artifacts_are_those_of_the_neighbours(make: Any) -> None:
    rows = [replace(row, artifact=f"key of {row.attack}") for row in swept(make, "ce", WEAK)]
    (row,) = [row for row in table(make, rows).rows if row.label == "fgsm, 50 % fooled"]
    assert row.cells[0].keys == ("key of fgsm[eps=0.1]", "key of fgsm[eps=0.2]")


def test_each_detector_has_a_table_of_its_own(make: Any) -> None:
    rows = swept(make, "ce", WEAK) + swept(make, "pdm", STRONG)
    other = [
        replace(row, detector="knn", ci_low=None, ci_high=None)
        if row.metric != "auc" or row.value is None
        else replace(row, detector="knn", value=row.value / 2, ci_low=None, ci_high=None)
        for row in rows
    ]
    first, second = build_tables(make.study(rows + other, tables=["equal_success"]))
    assert [value for value, _ in details(first, "fgsm, 50 % fooled")] == [".930", ".940", "+.010"]
    assert [value for value, _ in details(second, "fgsm, 50 % fooled")] == [".465", ".470", "+.005"]
    assert len({first.name, second.name}) == 2


def test_other_settings_of_the_attack_have_rows_of_their_own_and_are_named(make: Any) -> None:
    rows, labels = [], {}
    for steps, points in ((1, WEAK), (10, STRONG)):
        for row in swept(make, "ce", points):
            name = row.attack.replace("]", f",iterations={steps}]")
            labels[name] = name.replace("fgsm", "FGSM")
            rows.append(replace(row, attack=name))
    (found,) = build_tables(make.study(rows, tables=["equal_success"], labels={"attack": labels}))
    value = {row.label: row.cells[0].value for row in found.rows}
    assert value["FGSM[iterations=1], 50 % fooled"] == ".930"
    assert value["FGSM[iterations=10], 50 % fooled"] == ".940"


def test_neighbours_are_subtracted_of_four_defences_and_not_of_five(make: Any) -> None:
    rows = {
        name: swept(make, name, {0.1: (0.1, 0.8), 0.2: (0.6, 0.9)})
        for name in ("ce", "rce", "siamese", "rvl", "pdm")
    }
    five = table(make, [row for one in rows.values() for row in one])
    four = table(make, [row for name, one in rows.items() if name != "rvl" for row in one])
    assert [column.group for column in four.columns] == ["AUC"] * 4 + ["Difference"] * 3
    assert [column.group for column in five.columns] == ["AUC"] * 5
    assert "minus the one before it" in four.caption
    assert "minus" not in five.caption
    assert all(len(row.cells) == 5 for row in five.rows)


def test_without_a_sweep_there_is_no_table(make: Any) -> None:
    rows = [*swept(make, "ce", {0.1: WEAK[0.1]}), make.auc("mnist", "ce", "fgsm_005", 0.9)]
    assert build_tables(make.study(rows, tables=["equal_success"])) == []


@pytest.mark.parametrize(
    ("attack", "found"),
    [
        ("fgsm[eps=0.1]", ("fgsm", 0.1)),
        ("bim[eps=1e-2,steps=3]", ("bim[steps=3]", 0.01)),
        ("bim[steps=3,eps=0.02]", ("bim[steps=3]", 0.02)),
        ("square[p_eps=3]", None),
        ("fgsm_005", None),
        ("fgsm[eps=small]", None),
    ],
)
def test_the_radius_is_read_from_the_name(attack: str, found: tuple[str, float] | None) -> None:
    assert radius_of(attack) == found
