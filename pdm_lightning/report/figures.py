"""Figures as files (PNG, PDF, CSV) and as pictures for the page."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from pdm_lightning.report.draw import draw_panel
from pdm_lightning.report.palette import LIGHT, Theme
from pdm_lightning.report.results import Figure

#: Inches of one panel, by kind of figure.
PANEL_SIZE = {"tsne": (4.2, 4.3), "confusion": (4.6, 4.7), "curves": (4.8, 4.0)}
DPI = 150
MAX_COLUMNS = 3
#: Of a panel on the page; no pixel of one changes by more than 20 of 255.
COLOURS = 96


def figure_files(figure: Figure) -> dict[str, bytes]:
    """``name.png``, ``name.pdf`` and ``name.csv``: all panels in one picture, and the data behind it."""
    canvas = _canvas(figure, figure.panels, LIGHT)
    return {
        f"{figure.name}.png": _save(canvas, "png"),
        f"{figure.name}.pdf": _save(canvas, "pdf"),
        f"{figure.name}.csv": figure_csv(figure).encode("utf-8"),
    }


def panel_png(figure: Figure, panel: dict[str, Any], theme: Theme) -> bytes:
    """One panel alone, as the page shows it: of `COLOURS` colours, a quarter of the size of all."""
    from PIL import Image

    whole = Image.open(io.BytesIO(_save(_canvas(figure, [panel], theme), "png"))).convert("RGB")
    # the colours that cover the most different ones: thin curves keep theirs
    few = whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    few.save(out, format="PNG", optimize=True)
    return out.getvalue()


def figure_csv(figure: Figure) -> str:
    """The figure's numbers in long form, one line a point, cell or curve point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header, lines = {"tsne": _tsne_lines, "confusion": _confusion_lines, "curves": _curve_lines}[figure.kind](
        figure.panels
    )
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()


def _canvas(figure: Figure, panels: list[dict[str, Any]], theme: Theme) -> Canvas:
    columns = max(1, min(len(panels), MAX_COLUMNS if len(panels) != 4 else 2))
    rows = max(1, math.ceil(len(panels) / columns))
    width, height = PANEL_SIZE[figure.kind]
    canvas = Canvas(
        figsize=(columns * width, rows * height), dpi=DPI, layout="constrained", facecolor=theme.paper
    )
    FigureCanvasAgg(canvas)
    for position, panel in enumerate(panels):
        draw_panel(canvas.add_subplot(rows, columns, position + 1), figure.kind, panel, theme)
    return canvas


def _save(canvas: Canvas, kind: str) -> bytes:
    # neither a date nor a version of matplotlib: the same data makes the same bytes
    metadata = (
        {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None, "Creator": None}
    )
    out = io.BytesIO()
    canvas.savefig(out, format=kind, metadata=metadata, facecolor=canvas.get_facecolor())
    return out.getvalue()


def _tsne_lines(panels: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    lines = [
        [panel.get("title", ""), float(x), float(y), int(label), panel["classes"][int(label)]]
        for panel in panels
        for (x, y), label in zip(panel["points"], panel["labels"], strict=True)
    ]
    return ["panel", "x", "y", "label", "class"], lines


def _confusion_lines(panels: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    lines = [
        [panel.get("title", ""), original, adversarial, int(panel["counts"][i][j])]
        for panel in panels
        for i, original in enumerate(panel["classes"])
        for j, adversarial in enumerate(panel["classes"])
    ]
    return ["panel", "original", "adversarial", "count"], lines


def _curve_lines(panels: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    lines = []
    for panel in panels:
        for series in panel["series"]:
            blank, named = [""] * len(series["x"]), series.get("name", series["label"])
            bounds = [blank if series.get(key) is None else series[key] for key in ("low", "high")]
            for x, y, low, high in zip(series["x"], series["y"], *bounds, strict=True):
                if y is not None:
                    lines.append([panel.get("title", ""), named, x, y, low, high])
            for x, y in series.get("marks") or ():
                lines.append([panel.get("title", ""), f"{series['label']}, operating point", x, y, "", ""])
            for word, places in series.get("signs", {}).items():
                name = f"{series['label']}, {word}"
                lines += [
                    [panel.get("title", ""), name, x, "" if y is None else y, "", ""] for x, y in places
                ]
    return ["panel", "series", "x", "y", "low", "high"], lines
