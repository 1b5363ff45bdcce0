"""Tables of the pages: written from the committed results, and held to them."""

from __future__ import annotations

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


def test_a_cell_tells_value_interval_n_and_the_paper_s_number(tables: dict[str, Any], tmp_path: Path) -> None:
    few = auc(None, defense="rce", status="n/a", n=7)
    # other detectors, bandwidths and threats are other cells
    others = [auc(0.1, detector="knn"), auc(0.2, bandwidth="validation x0.5"), auc(0.3, threat="white_box")]
    study(tmp_path, "mine", [*others, auc(0.9), few])
    made = tables["table"]("mine defenses=ce,rce attacks=fgsm_005")
    assert made.splitlines() == [
        "|  | CE | RCE |",
        "| --- | ---: | ---: |",
        "| MNIST, FGSM-0.05 | **.900** [.880, .910], n = 60, paper .981 | n/a, n = 7, paper .983 |",
    ]


def test_seeds_are_averaged_and_clean_metrics_have_data_sets_for_rows(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    clean = {"attack": "none", "threat": "", "detector": "", "bandwidth": "", "metric": "accuracy"}
    rows = [auc(value, seed=seed, n=100 + seed, **clean) for seed, value in enumerate((0.90, 0.92))]
    study(tmp_path, "mine", rows)
    copy = [auc(0.8, **(clean | {"data": "cifar10_jpeg"}))]
    study(tmp_path, "copy", copy)
    made = tables["table"]("mine,copy metric=accuracy defenses=ce").splitlines()
    assert made[2] == "| MNIST | **91.00** [88.0, 93.0], n = 100 to 101, paper 99.33 |"
    assert made[3] == "| cifar10_jpeg | **80.00** [78.0, 81.0], n = 60, paper (CIFAR-10) 93.62 |"


def test_a_mark_is_filled_again_and_a_word_it_does_not_know_is_told(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    study(tmp_path, "mine", [auc(0.9)])
    mark = "<!-- table: mine defenses=ce attacks=fgsm_005 -->"
    once = tables["page"](f"Before.\n\n{mark}\nold\n<!-- end -->\nAfter.\n")
    assert once.startswith("Before.") and "old" not in once and ".900" in once and once.endswith("After.\n")
    assert tables["page"](once) == once
    with pytest.raises(ValueError, match="known are metric, defenses, attacks, threat"):
        tables["table"]("mine detector=knn")
