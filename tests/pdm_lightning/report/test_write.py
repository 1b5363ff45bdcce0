from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pdm_lightning.card import judge
from pdm_lightning.card.evidence import Evidence
from pdm_lightning.report import Figure, read_csv, write_report
from pdm_lightning.report.page import from_right, percent
from pdm_lightning.report.write import write_atomically

HOSTILE = "<script>alert('x')</script>\"&amp;"


class Page(HTMLParser):
    """Collects tags, what they load, and the visible text; notices tags that are never closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [values[key] for key in ("src", "srcset", "data") if values.get(key)]
        self.links += [values["href"]] if values.get("href") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def written(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    assert write_report(folder, make.full_study()) == folder / "index.html"
    return folder


def test_every_file_is_there(make, written):
    result = make.full_study()
    names = set(digest(written))
    assert {"index.html", "results.csv", "tables/accuracy.md", "tables/detection.tex"} <= names
    assert {f"figures/{f.name}.{kind}" for f in result.figures for kind in ("png", "pdf", "csv")} <= names
    assert read_csv(written / "results.csv") == result.rows
    assert (written / "figures/eps.png").read_bytes().startswith(b"\x89PNG")
    assert (written / "figures/eps.pdf").read_bytes().startswith(b"%PDF")
    assert not list(written.rglob("*.partial"))


def test_a_card_is_there_to_compute_with_and_to_read(make, tmp_path):
    card = judge(Evidence({}, [], []))
    write_report(tmp_path, replace(make.full_study(), card=card))
    told = json.loads((tmp_path / "card.json").read_text())
    assert [check["verdict"] for check in told] == ["NOT RUN"] * 12
    lines = (tmp_path / "card.md").read_text().splitlines()
    assert lines[0] == "0 PASS, 0 FAIL, 12 NOT RUN"
    assert all(f"| {check['number']} | {check['title']} |" in "\n".join(lines) for check in told)


def test_the_page_needs_nothing_but_itself(written):
    text = (written / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.loads and all(source.startswith("data:image/png;base64,") for source in page.loads)
    assert "link" not in page.tags and "iframe" not in page.tags
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (written / link).is_file()
    assert len(page.ids) == len(set(page.ids))
    for words in (
        "A study",
        "fooled 88 % of 540",
        "paper .981",
        "n/a (n=12)",
        "RuntimeError: no memory",
        "a note",
    ):
        assert words in page.text


def test_the_browser_is_told_to_load_nothing(written):
    assert "content=\"default-src 'none'; img-src data:;" in (written / "index.html").read_text()


def test_strips_are_placed_on_their_scale():
    assert [percent((0.5, 1.0), value) for value in (0.5, 0.75, 1.0, 0.2, 1.1)] == [
        "0.0",
        "50.0",
        "100.0",
        "0.0",
        "100.0",
    ]
    assert from_right((0.5, 1.0), 0.9) == "20.0"


def test_hostile_names_are_text(make, tmp_path):
    result = make.full_study()
    result.labels["defense"] = {"ce": HOSTILE}
    result.title = result.description = result.command = HOSTILE
    result.notes, result.settings = [HOSTILE], {HOSTILE: HOSTILE}
    result.failures[0].error = result.failures[0].node = HOSTILE
    result.rows.append(make.auc(HOSTILE, "ce", HOSTILE, note=f"capped: {HOSTILE}"))
    result.figures = result.figures[:1]
    result.figures[0].panels[0] = {**result.figures[0].panels[0], "title": HOSTILE, "classes": ["$a", "b_$"]}
    page = Page(write_report(tmp_path, result).read_text())
    assert page.tags.count("script") == 1 and not page.open
    assert page.text.count(HOSTILE) > 10


def test_the_same_result_makes_the_same_bytes(make, written, tmp_path):
    write_report(tmp_path, make.full_study())
    assert digest(tmp_path) == digest(written)


def test_a_second_report_leaves_no_stale_table_and_no_other_file_behind(make, tmp_path):
    rows = make.full_study().rows
    write_report(tmp_path, make.study(rows, figures=make.figures()[1:2]))
    assert (tmp_path / "figures/classes.pdf").is_file() and (tmp_path / "tables/detection.md").is_file()
    (tmp_path / "tables" / "mine.txt").write_text("kept")
    write_report(tmp_path, make.study([make.accuracy("digits", "ce")], tables=["accuracy"]))
    names = {"index.html", "results.csv", "tables/accuracy.md", "tables/accuracy.tex", "tables/mine.txt"}
    assert set(digest(tmp_path)) == names


def test_an_empty_study_still_makes_a_page(make, tmp_path):
    page = Page(write_report(tmp_path, make.study([])).read_text())
    assert "A study" in page.text and "table" not in page.tags


def test_figure_csv_holds_the_numbers(written):
    def lines(name):
        with (written / "figures" / f"{name}.csv").open(newline="") as file:
            return list(csv.reader(file))

    assert lines("embeddings")[:2] == [["panel", "x", "y", "label", "class"], ["CE", "0.0", "0.0", "0", "a"]]
    assert lines("classes")[1:] == [
        ["CE", "a", "a", "0"],
        ["CE", "a", "b", "3"],
        ["CE", "b", "a", "5"],
        ["CE", "b", "b", "0"],
    ]
    assert lines("eps")[2:4] == [
        ["FGSM", "CE", "0.1", "0.5", "0.4", "0.6"],
        ["FGSM", "RCE", "0.0", "1.0", "", ""],
    ]


def test_many_classes_and_empty_panels_are_drawn(make, tmp_path):
    names = [str(k) for k in range(100)]
    crowd = {
        "title": "",
        "points": [[k, k] for k in range(100)],
        "labels": list(range(100)),
        "classes": names,
    }
    counts = {"title": "", "counts": [[0] * 100] * 100, "classes": names}
    figures = [
        Figure("a", "tsne", "t", "", [crowd]),
        Figure("b", "confusion", "t", "", [counts]),
        Figure("c", "curves", "t", "", [{"series": []}]),
        Figure("d", "curves", "t"),
    ]
    write_report(tmp_path, make.study([], figures=figures))
    assert all((tmp_path / f"figures/{f.name}.png").stat().st_size > 500 for f in figures)


@pytest.mark.parametrize(
    "panel, kind, words",
    [
        ({"points": [[0, 1]], "labels": [0, 1], "classes": ["a"]}, "tsne", "points"),
        ({"counts": [[1]], "classes": ["a", "b"]}, "confusion", "counts"),
    ],
)
def test_a_panel_that_does_not_fit_is_named_and_nothing_is_written(make, tmp_path, panel, kind, words):
    with pytest.raises(ValueError, match=words):
        write_report(tmp_path, make.study([], figures=[Figure("f", kind, "t", "", [panel])]))
    assert not list(tmp_path.iterdir())


def test_two_figures_of_one_name_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match="two figures are named 'eps'"):
        write_report(tmp_path, make.study([], figures=[*make.figures(), make.figures()[2]]))


def test_a_write_that_breaks_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("pdm_lightning.report.write.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
