"""Reports: the tables, figures and page of a finished study."""

from __future__ import annotations

from pdm_lightning.report.build import build_tables
from pdm_lightning.report.published import paper_value, published
from pdm_lightning.report.results import Failure, Figure, Row, StudyResult, read_csv, rows_to_csv
from pdm_lightning.report.terminal import print_tables
from pdm_lightning.report.write import write_report

__all__ = [
    "Failure",
    "Figure",
    "Row",
    "StudyResult",
    "build_tables",
    "paper_value",
    "print_tables",
    "published",
    "read_csv",
    "rows_to_csv",
    "write_report",
]
