"""What a computed study puts on its page: ROC curves, attacked images, timings and where it all came from."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pdm_lightning.cli import main
from pdm_lightning.report import Row, read_csv
from pdm_lightning.report.formats import fraction
from pdm_lightning.store import Store

ASKED = ("name=paged", "report.figures=[roc]", "report.tables=[timings,summary]", "report.examples=2")


@pytest.fixture(scope="module")
def folder(tiny_study: Any) -> Path:
    words = [word for word in tiny_study.words if not word.startswith(("report.", "name="))]
    assert main(["report", *words, *ASKED]) == 0
    found: Path = tiny_study.output / "report" / "paged"
    return found


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return read_csv(folder / "results.csv")


def test_the_area_under_each_curve_is_the_auc_of_its_row(folder: Path, rows: list[Row]) -> None:
    curves: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    marks: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with (folder / "figures" / "roc.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            defense, _, rest = line["series"].partition(", ")
            kept = marks if "operating point" in rest else curves
            kept[line["panel"], defense].append((float(line["x"]), float(line["y"])))
    known = [row for row in rows if row.metric == "auc" and row.value is not None]
    assert len(curves) == len(known) > 0
    attacks, defenses = {"fgsm_010": "FGSM-0.1", "bim_010": "BIM-0.1"}, {"ce": "CE", "pdm": "PDM"}
    for row in known:
        place = (f"digits, resnet8, {attacks[row.attack]}, gray box", defenses[row.defense])
        points = curves[place]
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
        assert area == pytest.approx(row.value, abs=1e-12)
        # an operating point lies on its curve
        x, y = np.array(points).T
        for across, up in marks[place]:
            assert y[x < across].max(initial=0) <= up <= y[x > across].min(initial=1)
    text = (folder / "figures" / "roc.csv").read_text()
    assert all(f"AUC {fraction(row.value)}" in text for row in known if row.value is not None)


def test_the_page_shows_attacked_images_beside_their_originals(folder: Path, tiny_study: Any) -> None:
    page = (folder / "index.html").read_text()
    galleries = page[page.index('id="examples"') :]
    shots = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', galleries)
    # two attacks, two defences, two images each, three pictures an image
    assert len(shots) + 3 * galleries.count("not attacked") == 2 * 2 * 2 * 3 and len(shots) > 12
    images = [
        (np.asarray(Image.open(io.BytesIO(base64.b64decode(png))), float) / 255, alt) for png, alt in shots
    ]
    for k in range(0, len(images), 3):
        (original, first), (adversarial, second), (difference, third) = images[k : k + 3]
        factor = float(third.removeprefix("difference times "))
        assert first.startswith("original, class ") and second.startswith("attacked, taken for ")
        # each picture is rounded to 8 bits
        expected = 0.5 + factor * (adversarial - original)
        assert np.abs(difference - expected).max() <= (1 + factor) / 255
        assert 0 < np.abs(adversarial - original).max() <= 0.1 + 1 / 255


def test_times_keys_and_machine_are_told(folder: Path, rows: list[Row], tiny_study: Any) -> None:
    page, text = (folder / "index.html").read_text(), (folder / "tables" / "timings.md").read_text()
    stored = {artifact.key for artifact in Store(tiny_study.output / "store").list()}
    told = set(re.findall(r'title="pdml store show ([0-9a-f]{16})"', page))
    assert told == {row.artifact for row in rows if row.artifact} <= stored
    assert "Training on digits" in text and "FGSM-0.1 on digits, gray box" in text
    assert re.search(r"<dt>artifacts</dt><dd>16, made (on|from) \d{4}-\d\d-\d\d", page)


def test_a_study_whose_images_are_gone_says_so(tiny_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise FileNotFoundError("data.root=/nowhere: no such folder")

    monkeypatch.setattr("pdm_lightning.stages.context.load_data", gone)
    words = [word for word in tiny_study.words if not word.startswith(("report.", "name="))]
    assert main(["report", *words, "name=bare", "report.examples=1"]) == 0
    page = (tiny_study.output / "report" / "bare" / "index.html").read_text()
    assert "No attacked images: data.root=/nowhere: no such folder" in page and 'id="examples"' not in page


@pytest.mark.parametrize("count", ["-1", "17", "1.5", "many"])
def test_a_number_of_examples_that_cannot_be_is_refused(count: str, capsys: Any, tmp_path: Path) -> None:
    assert main(["plan", f"report.examples={count}", f"paths.output={tmp_path}"]) == 2
    assert f"report.examples={count}" in capsys.readouterr().err
