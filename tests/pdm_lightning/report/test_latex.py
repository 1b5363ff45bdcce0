"""Every table of a report as LaTeX, input into one document."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.report import write_report
from pdm_lightning.report.render_text import LONG_TABLE_ROWS
from pdm_lightning.report.results import TABLES

PREAMBLE = "\\documentclass{article}\n\\usepackage{booktabs,graphicx,longtable}\n\\begin{document}\n"


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is not installed: apt install texlive-latex-recommended",
)
def test_every_table_of_a_report_compiles_in_one_document(make: Any, tmp_path: Path) -> None:
    result = make.rich_study()
    result.tables = list(TABLES)
    # a summary that breaks over pages
    for k in range(LONG_TABLE_ROWS):
        result.rows.append(make.auc("mnist", "ce", "cw", 0.5, metric=f"metric_{k}"))
    write_report(tmp_path, result)
    files = sorted((tmp_path / "tables").glob("*.tex"))
    kinds = {path.stem.partition("-")[0] for path in files}
    assert {"accuracy", "detection", "ablation", "timings", "summary"} <= kinds
    assert any("\\begin{longtable}" in path.read_text() for path in files)
    inputs = "\n\\clearpage\n".join(f"\\input{{tables/{path.stem}}}" for path in files)
    (tmp_path / "all.tex").write_text(f"{PREAMBLE}{inputs}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    # twice: a longtable's columns and the labels settle in the second run
    for _ in range(2):
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        log = run.stdout.decode(errors="replace")
        assert run.returncode == 0, log[-2000:]
    assert "multiply defined" not in log and "undefined" not in log
    pages = re.search(r"Output written on all\.pdf \((\d+) pages", log)
    assert pages and int(pages[1]) >= len(files)
