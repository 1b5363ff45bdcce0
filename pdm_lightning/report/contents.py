"""The order of a long page: its tables and figures in groups, and the table of contents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdm_lightning.report.results import Figure
from pdm_lightning.report.tables import Table

#: Heading of the group that tables of a kind stand in, in the order of the page: as the paper has them.
KINDS = {
    "accuracy": "Clean images",
    "detection": "Detection",
    "equal_success": "Detection",
    "white_box": "Detection",
    "black_box": "Detection",
    "joint": "Classifier and detector together",
    "detectors": "Detectors",
    "differences": "Differences",
    "ablation": "Ablation",
    "gradients": "Gradients and the bound",
    "bound": "Gradients and the bound",
    "timings": "Cost",
}
OTHER = "Tables"
#: What stands after the figures.
LATE = ("Cost",)
#: A table of more rows is folded.
MANY_ROWS = 40


@dataclass
class Group:
    """Tables under one heading.

    Attributes
    ----------
    title : str
    tables : list of Table
    """

    title: str
    tables: list[Table] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The name of the place on the page."""
        return "group-" + "-".join(self.title.lower().split())

    @property
    def late(self) -> bool:
        """Whether it stands after the figures."""
        return self.title in LATE

    @property
    def links(self) -> list[tuple[str, str]]:
        """(place, title) of each table."""
        return [(table.name, table.title) for table in self.tables]


def grouped(tables: Iterable[Table]) -> list[Group]:
    """Tables in the groups of their kinds: groups as in `KINDS`, the tables of each in the order in which they come."""
    groups: dict[str, Group] = {}
    for table in tables:
        title = KINDS.get(table.kind, OTHER)
        groups.setdefault(title, Group(title)).tables.append(table)
    order = [*dict.fromkeys(KINDS.values()), OTHER]
    return sorted(groups.values(), key=lambda group: order.index(group.title))


def embedded(figures: Sequence[Figure], budget: int) -> list[dict[str, Any]]:
    """Figures as the page's template takes them; panels beyond `budget` characters are only in the figure's files."""
    import base64

    from pdm_lightning.report.figures import panel_png  # matplotlib writes its caches when it is imported
    from pdm_lightning.report.palette import DARK, LIGHT

    made, spent = [], 0
    for figure in figures:
        panels: list[dict[str, str]] = []
        for panel in figure.panels:
            if spent > budget:
                break
            light, dark = (
                base64.b64encode(panel_png(figure, panel, theme)).decode() for theme in (LIGHT, DARK)
            )
            spent += len(light) + len(dark)
            title = str(panel.get("title", ""))
            panels.append({"light": light, "dark": dark, "alt": f"{figure.title}: {title}"})
        shown = {"name": figure.name, "title": figure.title, "caption": figure.caption, "panels": panels}
        made.append(shown | {"left_out": len(figure.panels) - len(panels)})
    return made
