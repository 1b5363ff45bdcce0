"""Reports: the tables, figures and page of a finished study.

What counts and draws is imported when it is first asked for: planning a study needs the names of the tables alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pdm_lightning.report.published import paper_value, published
from pdm_lightning.report.results import Failure, Figure, StudyResult
from pdm_lightning.report.rows import Row, read_csv, rows_to_csv

if TYPE_CHECKING:
    from pdm_lightning.report.build import build_tables
    from pdm_lightning.report.terminal import print_tables
    from pdm_lightning.report.write import write_report

_LATER = {"build_tables": "build", "print_tables": "terminal", "write_report": "write"}

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


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
