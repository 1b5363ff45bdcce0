"""The order of the page, and what it does with more than it can hold."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
from PIL import Image

from pdm_lightning.report import build_tables, figures, write_report
from pdm_lightning.report.contents import KINDS, MANY_ROWS, OTHER, embedded, grouped
from pdm_lightning.report.figures import COLOURS, panel_png
from pdm_lightning.report.gallery import BUDGET
from pdm_lightning.report.page import FIGURES_BUDGET
from pdm_lightning.report.palette import LIGHT
from pdm_lightning.report.results import TABLES, Figure
from pdm_lightning.report.tables import Table


def table(kind: str, name: str) -> Table:
    return Table(name, kind, name, "", "", [], [])


def test_every_kind_of_table_has_a_group() -> None:
    assert set(TABLES) - {"summary"} <= set(KINDS)


def test_groups_stand_as_in_the_paper_and_keep_the_order_of_their_tables() -> None:
    given = [table("timings", "a"), table("mine", "b"), table("joint", "c"), table("accuracy", "d")]
    given += [table("white_box", "e"), table("detection", "f")]
    found = [(group.title, [one.name for one in group.tables], group.late) for group in grouped(given)]
    assert found == [
        ("Clean images", ["d"], False),
        ("Detection", ["e", "f"], False),
        ("Classifier and detector together", ["c"], False),
        ("Cost", ["a"], True),
        (OTHER, ["b"], False),
    ]


def test_panels_beyond_the_budget_are_only_in_the_files(make: Any) -> None:
    figure = make.figures()[2]
    (whole,) = embedded([figure], 10**9)
    assert len(whole["panels"]) == 2 and whole["left_out"] == 0
    first, second = embedded([figure, figure], 1)
    assert (len(first["panels"]), first["left_out"]) == (1, 1)
    assert (len(second["panels"]), second["left_out"]) == (0, 2)


def test_a_panel_has_few_colours_and_looks_as_it_did(make: Any) -> None:
    figure = make.figures()[2]
    few = Image.open(io.BytesIO(panel_png(figure, figure.panels[0], LIGHT)))
    whole = Image.open(io.BytesIO(figures._save(figures._canvas(figure, figure.panels[:1], LIGHT), "png")))
    assert few.getcolors() is not None and len(few.getcolors() or []) <= COLOURS
    gap = np.abs(np.asarray(few.convert("RGB"), int) - np.asarray(whole.convert("RGB"), int))
    assert gap.max() <= 20


def test_sixty_dense_panels_fit_their_share_of_the_page(make: Any) -> None:
    rng = np.random.default_rng(0)
    lines = [
        {"label": f"defence {j}", "x": list(range(30)), "y": rng.random(30).cumsum().tolist()}
        for j in range(10)
    ]
    points = {
        "points": rng.random((1000, 2)),
        "labels": rng.integers(0, 10, 1000),
        "classes": list("0123456789"),
    }
    dense = [
        Figure("a", "curves", "", "", [{"series": lines}]),
        Figure("b", "tsne", "", "", [points]),
        Figure(
            "c",
            "confusion",
            "",
            "",
            [{"counts": rng.integers(0, 99, (10, 10)), "classes": list("0123456789")}],
        ),
    ]
    sizes = [
        sum(len(panel[theme]) for panel in one["panels"] for theme in ("light", "dark"))
        for one in embedded(dense, 10**9)
    ]
    # as many of the largest kind
    assert 60 * max(sizes) < FIGURES_BUDGET
    assert FIGURES_BUDGET + BUDGET < 9_000_000


def test_a_long_table_is_folded(make: Any, tmp_path: Any) -> None:
    result = make.rich_study()
    result.rows += [
        make.auc("mnist", "ce", f"attack {k}", 1.0, metric="seconds", detector="", bandwidth="")
        for k in range(MANY_ROWS)
    ]
    (timings,) = [one for one in build_tables(result) if one.kind == "timings"]
    page = write_report(tmp_path, result).read_text()
    assert f"<summary>{len(timings.rows)} rows</summary>" in page
    # the order of the page: tables, figures, attacked images, cost, all numbers
    places = [
        page.index(f'id="{name}"') for name in ("accuracy", "figures", "examples", "timings", "all-numbers")
    ]
    assert places == sorted(places)


def test_pictures_of_a_page_are_data(make: Any, tmp_path: Any) -> None:
    page = write_report(tmp_path, make.rich_study()).read_text()
    for encoded in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        Image.open(io.BytesIO(base64.b64decode(encoded))).verify()
