from __future__ import annotations

import io
import shutil
import subprocess

import pytest
from rich.console import Console

from pdm_lightning.report import build_tables, print_tables
from pdm_lightning.report.render_text import latex, latex_escape, markdown

HOSTILE = r"50% & $x_1$ #{~^\} <b>[|`*"


def test_latex_special_characters_are_escaped():
    assert latex_escape("a_b & 50% #1 $x$ {y}") == r"a\_b \& 50\% \#1 \$x\$ \{y\}"
    assert latex_escape("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert latex_escape("±†‡\u2013") == r"$\pm$\dag{}\ddag{}--"


def test_latex_has_every_column_in_every_row(make):
    detection = next(t for t in build_tables(make.full_study()) if t.name == "detection")
    text = latex(detection)
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(body) == 2
    # C\&W is a name, not a column
    assert all(line.replace("\\&", "").count("&") == len(detection.columns) for line in body)
    assert "\\multicolumn{2}{c}{MNIST}" in text and "\\cmidrule(lr){2-3}\\cmidrule(lr){4-5}" in text
    assert "\\toprule" in text and text.count("{") == text.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(make, tmp_path):
    result = make.full_study()
    result.labels["defense"] = {"ce": HOSTILE}
    for k in range(40):
        result.rows.append(make.auc("mnist", "ce", "cw", 0.5, metric=f"metric_{k}"))
    tables = [latex(table) for table in build_tables(result)]
    assert any("longtable}{l" in table for table in tables)
    preamble = "\\documentclass{article}\\usepackage{booktabs,graphicx,longtable}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(preamble + "\n".join(tables) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]


def test_markdown_is_one_grid_whatever_the_names(make):
    result = make.full_study()
    result.labels["defense"] = {"ce": HOSTILE}
    detection = next(t for t in build_tables(result) if t.name == "detection")
    lines = [line for line in markdown(detection).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(detection.columns) + 2}
    assert "<b>" not in "".join(lines)
    assert ".987 \\[.970, .990\\]<br>n = 100, fooled 88 % of 540<br>paper .981" in lines[2]


def printed(result, width, encoding="utf-8", **more):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_tables(result, Console(file=file, width=width, **more))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 100, 300])
def test_the_terminal_fits_its_width_and_keeps_every_cell(make, width):
    result = make.full_study()
    result.rows += [make.auc("digits", f"defence_{k}", "cw", 0.5 + k / 100) for k in range(12)]
    text = printed(result, width)
    assert max(map(len, text.splitlines())) <= min(width, 100)
    assert all(f".{500 + 10 * k} n=100" in text for k in range(12))
    assert "…" not in text and "\x1b" not in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_label_wraps_and_takes_no_number_away(make, width):
    result = make.study([make.auc("mnist", "ce", "fgsm_005", 0.987)], tables=["detection"])
    result.labels["attack"]["fgsm_005"] = "An attack with words " * 5
    text = printed(result, width)
    assert max(map(len, text.splitlines())) <= width and ".987 n=100" in text
    assert text.count("words") == 5


def test_the_terminal_without_unicode_is_plain_ascii(make):
    result = make.full_study()
    result.rows[0].note = "collapsed"
    result.labels["defense"]["pdm"] = "Stärke"
    text = printed(result, 90, encoding="ascii")
    assert "99.00++ n=540" in text and "St?rke" in text


def test_the_terminal_shows_the_deviation_over_seeds_in_place_of_n(make):
    rows = [make.auc("digits", "ce", "cw", value, seed=s) for s, value in enumerate((0.90, 0.92, 0.94))]
    text = printed(make.study(rows, tables=["detection"]), 80)
    assert ".920 ± .020" in text and "n=100" not in text


def test_the_terminal_reads_no_markup_in_names(make):
    result = make.study([make.accuracy("digits", "ce")], labels={"defense": {"ce": "[red]x[/nope]"}})
    assert "[red]x[/nope]" in printed(result, 100)


def test_the_summary_is_printed_for_a_single_cell_only(make):
    assert "All numbers" not in printed(make.full_study(), 100)
    assert "All numbers" in printed(make.study([make.accuracy("digits", "ce")]), 100)
