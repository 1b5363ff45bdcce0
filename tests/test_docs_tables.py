"""Tables of the pages: written from the committed results, and held to them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.report.rows import Row, rows_to_csv

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    """The script, looking for results in a folder of its own."""
    made = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    made["table"].__globals__["ROOT"] = tmp_path
    return made


def study(root: Path, name: str, rows: list[Row]) -> None:
    folder = root / "results" / name
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text(rows_to_csv(rows), encoding="utf-8")


def auc(value: float | None, **more: Any) -> Row:
    names = {"data": "mnist", "model": "resnet20", "defense": "ce", "budget": "short", "threat": "gray_box"}
    place = {"attack": "fgsm_005", "detector": "kde", "bandwidth": "validation", "metric": "auc"}
    ends = {} if value is None else {"ci_low": value - 0.02, "ci_high": value + 0.01}
    return Row(**(names | place | {"value": value, "n": 60} | ends | more))


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_pages_hold_the_tables_of_today_s_results(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "tables.py"))["page"](text) == text, f"{page}: make docs"


def test_readme_has_a_table_of_results() -> None:
    assert "<!-- table: " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_cell_tells_value_interval_n_and_the_paper_s_number(tables: dict[str, Any], tmp_path: Path) -> None:
    few = auc(None, defense="rce", status="n/a", n=7)
    # other detectors, bandwidths and threats are other cells
    others = [auc(0.1, detector="knn"), auc(0.2, bandwidth="loo"), auc(0.3, threat="white_box")]
    study(tmp_path, "mine", [*others, auc(0.9), few])
    asked = "mine defenses=ce,rce attacks=fgsm_005"
    assert tables["table"](asked).splitlines() == [
        "|  | CE | RCE |",
        "|---|---:|---:|",
        r"| MNIST, FGSM-0.05 | .900 \[.880, .910\]<br>n = 60<br>paper .981 | n/a (n=7)<br>paper .983 |",
        "",
        "- paper: for ResNet-56 and its full training.",
        "- One seed; in brackets the 95 % interval.",
        "- n/a: too few examples to say; n is how many there were.",
    ]
    assert ".200" in tables["table"](f"{asked} bandwidth=loo")


def test_marks_tell_caps_collapse_and_seeds_that_failed(tables: dict[str, Any], tmp_path: Path) -> None:
    rows = [auc(0.9, note="collapsed; capped: 5 of 9 test images"), auc(None, seed=1, status="failed")]
    study(tmp_path, "mine", rows)
    made = tables["table"]("mine defenses=ce attacks=fgsm_005")
    assert r"| MNIST, FGSM-0.05† | .900‡ \[.880, .910\]<br>n = 60, 1 of 2 seeds<br>" in made
    assert "- † FGSM-0.05 was capped: 5 of 9 test images." in made and "- ‡ The training collapsed" in made


def test_a_distortion_that_leaves_images_out_says_so(tables: dict[str, Any], tmp_path: Path) -> None:
    place = {"attack": "cw_wb", "threat": "white_box"}
    rows = [auc(0.2, metric="distortion", **place), auc(0.03, metric="success_rate", **place)]
    study(tmp_path, "mine", rows)
    made = tables["table"]("mine metric=distortion defenses=ce attacks=cw_wb threat=white_box")
    assert "CENSORED: success 3.00 %" in made and "- CENSORED: the attack succeeded on fewer" in made


def test_seeds_are_averaged_and_clean_metrics_have_data_sets_for_rows(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    clean = {"attack": "none", "threat": "", "detector": "", "bandwidth": "", "metric": "accuracy"}
    rows = [auc(value, seed=seed, n=100 + seed, **clean) for seed, value in enumerate((0.90, 0.92))]
    study(tmp_path, "mine", rows)
    copy = [auc(0.8, **(clean | {"data": "cifar10_jpeg"}))]
    study(tmp_path, "copy", copy)
    made = tables["table"]("mine,copy metric=accuracy defenses=ce").splitlines()
    assert made[2] == r"| MNIST | 91.00 ± 1.41 \[88.0, 93.0\]<br>n = 100 to 101, 2 seeds<br>paper 99.33 |"
    assert made[3] == r"| cifar10\_jpeg | 80.00 \[78.0, 81.0\]<br>n = 60<br>paper 93.62 |"
    assert made[5] == "- paper: for ResNet-56 and its full training, on CIFAR-10 itself."


def test_what_a_mark_has_to_tell_apart_is_asked_for(tables: dict[str, Any], tmp_path: Path) -> None:
    study(tmp_path, "mine", [auc(0.9), auc(0.8, budget="paper")])
    asked = "mine defenses=ce attacks=fgsm_005"
    with pytest.raises(ValueError, match=r"add budget= \(one of paper, short\)"):
        tables["table"](asked)
    assert ".800" in tables["table"](f"{asked} budget=paper")


def test_a_mark_is_filled_again_and_a_word_it_does_not_know_is_told(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    study(tmp_path, "mine", [auc(0.9)])
    mark = "<!-- table: mine defenses=ce attacks=fgsm_005 -->"
    once = tables["page"](f"Before.\n\n{mark}\nold\n<!-- end -->\nAfter.\n")
    assert once.startswith("Before.") and "old" not in once and ".900" in once and once.endswith("After.\n")
    assert tables["page"](once) == once
    with pytest.raises(
        ValueError, match="known are metric, defenses, attacks, threat, detector, bandwidth, budget, model"
    ):
        tables["table"]("mine seed=1")


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("mine attacks=fgsm_005 foo", "'foo' is no WORD=VALUE; known are metric, "),
        ("mine =foo", "'=foo' is no WORD=VALUE; "),
        ("min", "no study 'min': did you mean 'mine'?"),
        ("", "no study ''; there are mine"),
        ("mine attacks=fgsm_05", "no attack 'fgsm_05': did you mean 'fgsm_005'?"),
        ("mine defenses=ce,pdn", "no defense 'pdn': did you mean 'pdm'?"),
        ("mine metric=acuracy", "no metric=acuracy in mine: did you mean 'accuracy'?"),
        ("mine detector=kdee", "no detector=kdee in mine: did you mean 'kde'?"),
        ("mine threat=graybox", "no threat=graybox in mine: did you mean 'gray_box'?"),
        ("mine bandwidth=foo", "no bandwidth=foo in mine; there are 0.5, validation"),
        ("mine budget=paper", "no budget=paper in mine; there are short"),
        ("mine detector=", "'detector=' is no WORD=VALUE; "),
        (
            "mine defenses=siamese,pdm",
            "no cell of mine is one of metric=auc defenses=siamese,pdm attacks=fgsm_005,",
        ),
    ],
)
def test_a_mark_that_asks_for_what_is_not_there_is_one_line(
    tables: dict[str, Any], tmp_path: Path, mark: str, told: str
) -> None:
    accuracy = auc(0.9, metric="accuracy", attack="none", threat="", detector="", bandwidth="")
    # a training that failed stands for every metric
    failed = auc(None, defense="rce", status="failed", threat="", detector="", bandwidth="")
    study(tmp_path, "mine", [auc(0.9), accuracy, failed, auc(0.8, bandwidth=0.5)])
    with pytest.raises(ValueError, match=re.escape(f"<!-- table: {mark} -->: {told}")) as found:
        tables["table"](mark)
    assert "\n" not in str(found.value)


def test_a_cell_may_be_missing_beside_others(tables: dict[str, Any], tmp_path: Path) -> None:
    study(tmp_path, "mine", [auc(0.9)])
    assert "| missing<br>" in tables["table"]("mine defenses=ce,rce attacks=fgsm_005")


def test_a_bandwidth_may_be_a_number(tables: dict[str, Any], tmp_path: Path) -> None:
    study(tmp_path, "mine", [auc(0.9), auc(0.8, bandwidth=0.5)])
    assert ".800" in tables["table"]("mine defenses=ce attacks=fgsm_005 bandwidth=0.5")


def test_a_script_that_meets_such_a_mark_ends_with_that_line_and_the_page(tmp_path: Path) -> None:
    for name in ("docs", "conf", "results"):
        (tmp_path / name).mkdir()
    script = tmp_path / "docs" / "tables.py"
    script.write_text((ROOT / "docs" / "tables.py").read_text(encoding="utf-8"), encoding="utf-8")
    page = "<!-- table: mine -->\n<!-- end -->\n"
    (tmp_path / "README.md").write_text(page, encoding="utf-8")
    told = "README.md: <!-- table: mine -->: no defense 'ce'; there are none"
    with pytest.raises(SystemExit, match=re.escape(told)):
        runpy.run_path(str(script), run_name="__main__")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page


def test_the_paper_s_number_stands_beside_a_defence_that_was_changed(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    study(tmp_path, "mine", [auc(0.9, data="cifar10_jpeg", defense="pdm[term.rce.weight=9]")])
    made = tables["table"]("mine defenses=pdm[term.rce.weight=9] attacks=fgsm_005")
    assert "| PDM\\[term.rce.weight=9\\] |" in made
    assert "paper .967 |" in made
    told = "- paper: for ResNet-56 and its full training, on CIFAR-10 itself, and for defences without the changes in"
    assert told in made
    # the paper's is one detector
    study(tmp_path, "other", [auc(0.9, detector="kde_unit")])
    assert "paper" not in tables["table"]("other defenses=ce attacks=fgsm_005 detector=kde_unit")


def test_a_table_of_the_report_stands_whole_or_in_part(tables: dict[str, Any], tmp_path: Path) -> None:
    def fooled(eps: float, share: float, value: float, **others: Any) -> list[Row]:
        more = {"attack": f"fgsm[eps={eps}]", "n_attacked": 500} | others
        return [auc(value, **more), auc(share, metric="misclassified_rate", **more)]

    study(tmp_path, "mine", [*fooled(0.1, 0.4, 0.9), *fooled(0.2, 0.6, 0.92)])
    made = tables["table"]("mine report=equal_success").splitlines()
    assert made[2] == r"| MNIST | FGSM, 50 % fooled | .910 \[.890, .920\]<br>n = 250 |"
    assert made[4].startswith("- Detection AUC, paired rule, where an attack fools the same share")
    assert "95 % bootstrap interval" in made[4]
    study(
        tmp_path,
        "two",
        [
            *fooled(0.1, 0.4, 0.9),
            *fooled(0.2, 0.6, 0.92),
            *fooled(0.1, 0.4, 0.7, detector="knn"),
            *fooled(0.2, 0.6, 0.72, detector="knn"),
            # an attack of the user's own, which no table at equal success has
            auc(0.8, attack="mine"),
        ],
    )
    rules = [fooled(0.1, 0.4, 0.8, bandwidth=0.26), fooled(0.2, 0.6, 0.82, bandwidth=0.26)]
    study(tmp_path, "rules", [*fooled(0.1, 0.4, 0.9), *fooled(0.2, 0.6, 0.92), *rules[0], *rules[1]])
    study(tmp_path, "plain", [auc(0.9)])
    assert "| .810" in tables["table"]("rules report=equal_success bandwidth=0.26")
    assert tables["table"]("two report=equal_success detector=kde").splitlines() == made
    assert "| .710" in tables["table"]("two report=equal_success detector=knn")
    for mark, told in (
        ("two report=equal_success", "2 tables of this kind; add some of .*detector"),
        ("two report=equal_success detector=kda", "no detector=kda in two: did you mean 'kde'"),
        ("two report=equal_success detector=kde detector=knn", "detector: typed twice"),
        ("mine report=equal_success attacks=fgsm", "leave out attacks"),
        ("mine report=equal", "report=equal: ablation and equal_success are known"),
        ("plain report=equal_success", "no attack ran at several radii"),
    ):
        with pytest.raises(ValueError, match=told):
            tables["table"](mark)


def test_an_ablation_has_a_row_for_each_defence_and_no_column_for_a_radius_of_a_sweep(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    clean = {"metric": "accuracy", "attack": "none", "detector": "", "bandwidth": "", "threat": ""}
    rows = [
        row
        for name, value in (("ce", 0.9), ("pdm", 0.8))
        for row in (
            auc(value + 0.05, defense=name, **clean),
            auc(value, defense=name),
            auc(value - 0.1, defense=name, attack="fgsm[eps=0.1]"),
        )
    ]
    study(tmp_path, "mine", rows)
    head, _, *lines = tables["table"]("mine report=ablation").splitlines()
    assert head == "| Defence | Clean images: Accuracy, % | AUC, paired rule: FGSM-0.05 |"
    assert [line.split(" | ")[0] for line in lines[:2]] == ["| CE", "| PDM"]
    assert ".900" in lines[0]
    assert ".800" in lines[1]
    assert "Every defence on MNIST" in lines[3]


def test_attacks_of_a_clean_metric_say_nothing(tables: dict[str, Any], tmp_path: Path) -> None:
    study(
        tmp_path, "mine", [auc(0.9, metric="accuracy", attack="none", detector="", bandwidth="", threat="")]
    )
    with pytest.raises(ValueError, match="metric=accuracy is measured on clean images: leave attacks= out"):
        tables["table"]("mine metric=accuracy defenses=ce attacks=fgsm_005")
