"""What a finished study hands to the report: plain data.

Nothing here knows how a number was computed. A row (:mod:`pdm_lightning.report.rows`) is one measured value; a
:class:`Figure` holds the data that is drawn, not the drawing; a :class:`StudyResult` is all that one report needs. The
report is a function of it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pdm_lightning.report.rows import Row, cell_of

if TYPE_CHECKING:
    from pdm_lightning.card import Card
    from pdm_lightning.claims import Judged
    from pdm_lightning.report.gallery import Gallery

TABLES = (
    "accuracy",
    "detection",
    "equal_success",
    "white_box",
    "black_box",
    "joint",
    "detectors",
    "differences",
    "ablation",
    "gradients",
    "bound",
    "timings",
    "summary",
)
#: A detector's mean AUC over the attacks that no detector beside it was fitted on, and over all; of no attack's cell.
MEAN_AUC = ("mean_auc", "mean_auc_all")
#: The most images of an attack that ``report.examples`` may ask for.
MOST_EXAMPLES = 16
FIGURE_KINDS = ("tsne", "confusion", "curves")
#: What ``report.figures`` may ask for: each kind, and what is drawn as curves.
FIGURES = (
    *FIGURE_KINDS,
    "roc",
    "rejection",
    "auc_eps",
    "auc_success",
    "convergence",
    "gradients",
    "walk",
    "bound",
    "bandwidths",
    "weights",
)


@dataclass
class Figure:
    """The data of one figure.

    Attributes
    ----------
    name : str
        Stem of the files in ``figures/``; letters, digits, ``-``, ``_`` and ``.`` only.
    kind : str
        One of :data:`FIGURE_KINDS`.
    title, caption : str
        Shown with the figure.
    panels : list of dict
        Plain data, one dict a panel:

        - ``tsne``: ``title``, ``points`` (n, 2), ``labels`` (n,) int, ``classes`` list of names,
          ``dbi`` (Davies-Bouldin index of the embeddings) and ``dbi_2d`` (of the points), or None.
        - ``confusion``: ``title``, ``counts`` (K, K), row = original and column = adversarial class,
          ``classes``.
        - ``curves``: ``title``, ``x_label``, ``y_label``, ``series``: list of dicts ``label``, ``x``,
          ``y`` and, optionally, ``low`` and ``high``, ``points`` (true: no line through them), ``plain`` (true: a
          thin line to compare with), ``marks`` (list of (x, y): the only points that get a marker) or ``signs`` (by a
          word for the legend, list of (x, y): a ring at the point, or a cross at the bottom where y is None). A y of
          None interrupts the line. Series of one label look alike, and ``name`` tells them apart in the figure's
          files. Optional for the x axis: ``x_log`` (true: logarithmic), or ``x_names`` of the places
          0, 1, ...; for the other: ``y_log``.

    Raises
    ------
    ValueError
        If the kind is unknown or the name is not fit for a file.
    """

    name: str
    kind: str
    title: str
    caption: str = ""
    panels: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind not in FIGURE_KINDS:
            raise ValueError(f"figure kind {self.kind!r} is unknown: use one of {', '.join(FIGURE_KINDS)}")
        if not self.name or self.name.startswith(".") or not _is_file_stem(self.name):
            raise ValueError(
                f"figure name {self.name!r} cannot name a file: use letters, digits, '-', '_', '.'"
            )


@dataclass
class Failure:
    """A node of the study that raised.

    Attributes
    ----------
    node : str
        Which one, in words.
    error : str
        The error's type and first line.
    traceback_path : str
        Where the traceback was written.
    """

    node: str
    error: str
    traceback_path: str = ""


@dataclass
class StudyResult:
    """Everything one report shows.

    Attributes
    ----------
    name, title, description : str
        The study's name (a file stem), its heading and a few sentences under it.
    rows : list of Row
    figures : list of Figure
    tables : list of str
        Which of :data:`TABLES`, in order.
    hidden : dict of set
        By table, the cells (see :func:`pdm_lightning.report.rows.cell_of`) that did not ask to stand in it; what is no
        cell's own row is shown.
    labels : dict of dict
        Per column (``data``, ``model``, ``defense``, ``attack``, ...), name -> label to print. The order
        is the order of display; a name without a label is shown as it is, after the others.
    fitted : dict of list
        By the name of each detector that was fitted on an attack: those of the study's attacks that are that one.
    notes : list of str
        What a reader has to know about the numbers.
    failures : list of Failure
    card : Card or None
        The evaluation card; None for a study without one.
    claims : list of Judged
        The paper's claims, judged on this study; empty for a study that does not ask for them.
    gallery : list of Gallery
        Attacked images beside their originals.
    settings : dict of str
        Shown as a list of key and value.
    command, version : str
        What was typed, and the package's version.
    """

    name: str
    title: str
    description: str = ""
    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[str] = field(default_factory=lambda: list(TABLES))
    hidden: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    fitted: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    card: Card | None = None
    claims: list[Judged] = field(default_factory=list)
    gallery: list[Gallery] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    command: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        unknown = [table for table in self.tables if table not in TABLES]
        if unknown:
            raise ValueError(f"table {unknown[0]!r} is unknown: use {', '.join(TABLES)}")

    def shows(self, table: str, row: Row) -> bool:
        """Whether `row` stands in `table`."""
        return cell_of(row) not in self.hidden.get(table, ())

    def label(self, column: str, name: str) -> str:
        """The label of `name` in `column`, or the name itself."""
        return self.labels.get(column, {}).get(name, name)

    def ordered(self, column: str, names: Iterable[str]) -> list[str]:
        """The distinct `names`: those with a label in the labels' order, then the rest as first met."""
        distinct = list(dict.fromkeys(names))
        known = [name for name in self.labels.get(column, {}) if name in distinct]
        return known + [name for name in distinct if name not in known]

    def columns(self, cells: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The distinct (data, defence) of `cells`, data sets and, within them, defences in order."""
        distinct = dict.fromkeys(cells)
        return [
            (data, defense)
            for data in self.ordered("data", (data for data, _ in distinct))
            for defense in self.ordered("defense", (name for known, name in distinct if known == data))
        ]


def _is_file_stem(name: str) -> bool:
    return all(char.isascii() and (char.isalnum() or char in "-_.") for char in name)
