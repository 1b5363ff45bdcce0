"""All tables of a study, in the order it asks for."""

from __future__ import annotations

from pdm_lightning.report.ablation_table import ablation_tables
from pdm_lightning.report.black_box_table import black_box_tables
from pdm_lightning.report.bound_table import bound_tables
from pdm_lightning.report.cells import Cube
from pdm_lightning.report.detector_tables import detector_tables
from pdm_lightning.report.difference_tables import difference_tables
from pdm_lightning.report.equal_success_table import equal_success_tables
from pdm_lightning.report.gradient_table import gradient_tables
from pdm_lightning.report.joint_tables import joint_tables
from pdm_lightning.report.paper_tables import accuracy_tables, detection_tables
from pdm_lightning.report.results import MEAN_AUC, StudyResult
from pdm_lightning.report.summary_table import summary_tables
from pdm_lightning.report.tables import Table
from pdm_lightning.report.timings_table import timings_tables
from pdm_lightning.report.white_box_tables import white_box_tables


def build_tables(result: StudyResult) -> list[Table]:
    """All tables that ``result.tables`` asks for, in its order; one without a row is left out."""
    makers = {
        "accuracy": accuracy_tables,
        "detection": detection_tables,
        "equal_success": equal_success_tables,
        "white_box": white_box_tables,
        "black_box": black_box_tables,
        "joint": joint_tables,
        "detectors": detector_tables,
        "differences": difference_tables,
        "ablation": ablation_tables,
        "gradients": gradient_tables,
        "bound": bound_tables,
        "timings": timings_tables,
        "summary": summary_tables,
    }
    rows = [row for row in result.rows if row.metric not in MEAN_AUC]
    tables: list[Table] = []
    for kind in dict.fromkeys(result.tables):
        tables += makers[kind](result, Cube(row for row in rows if result.shows(kind, row)))
    used: dict[str, int] = {}
    for table in tables:
        used[table.name] = used.get(table.name, 0) + 1
        if used[table.name] > 1:
            table.name += f"-{used[table.name]}"
    return tables
