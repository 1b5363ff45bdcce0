"""Draws one panel of a figure on given axes; matplotlib's object interface, no global state."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pdm_lightning.report.palette import DASHES, MARKERS, Theme, contrast

#: Above this many classes, neither labels at clusters nor counts in cells are legible.
MANY_CLASSES = 20


#: Markers that a curve has, about.
CROWDED = 20
_CROSS: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 6, "markeredgewidth": 1.6}
_RING: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 10, "markerfacecolor": "none"}
#: Characters of a line of a panel's title: the narrowest panel holds as many.
TITLE_WIDTH = 48


def draw_panel(ax: Axes, kind: str, panel: Mapping[str, Any], theme: Theme) -> None:
    """Draw `panel` (see :class:`pdm_lightning.report.results.Figure`) on `ax` in the colours of `theme`."""
    ax.set_facecolor(theme.paper)
    for spine in ax.spines.values():
        spine.set_color(theme.grid)
    ax.tick_params(which="both", colors=theme.faint, labelsize=8, length=0)
    {"tsne": _tsne, "confusion": _confusion, "curves": _curves}[kind](ax, panel, theme)
    # a single dollar sign is text, not mathematics
    title = "\n".join(textwrap.wrap(_plain(panel.get("title", "")), TITLE_WIDTH))
    ax.set_title(title, color=theme.ink, fontsize=10.5, loc="left", pad=8)


def _tsne(ax: Axes, panel: Mapping[str, Any], theme: Theme) -> None:
    points, labels = np.asarray(panel["points"], dtype=float), np.asarray(panel["labels"], dtype=int)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels):
        raise ValueError(
            f"a tsne panel needs points (n, 2) and labels (n,): got {points.shape} and {labels.shape}"
        )
    classes = panel["classes"]
    size = float(np.clip(9000 / max(len(points), 1), 4, 26))
    for k, name in enumerate(classes):
        mine = points[labels == k]
        if not len(mine):
            continue
        colour = theme.categories[k % len(theme.categories)]
        marker = MARKERS[(k // len(theme.categories)) % len(MARKERS)]
        ax.scatter(
            mine[:, 0],
            mine[:, 1],
            s=size,
            color=colour,
            marker=marker,
            linewidths=0,
            alpha=0.75,
            rasterized=True,
        )
        if len(classes) <= MANY_CLASSES:
            _name_cluster(ax, mine, str(name), theme)
    ax.set(xticks=[], yticks=[])
    ax.margins(0.06)
    numbers = [("DBI", panel.get("dbi")), ("in the plane", panel.get("dbi_2d"))]
    text = ", ".join(f"{name} {value:.2f}" for name, value in numbers if value is not None)
    ax.set_xlabel(text, color=theme.ink, fontsize=9.5, loc="left", labelpad=6)


def _name_cluster(ax: Axes, points: np.ndarray, name: str, theme: Theme) -> None:
    """Write the class at its most central point, so that the colour is not the only key."""
    median = np.median(points, axis=0)
    x, y = points[np.argmin(((points - median) ** 2).sum(axis=1))]
    text = ax.text(float(x), float(y), _plain(name), color=theme.ink, fontsize=11, zorder=5)
    text.set(fontweight="bold", ha="center", va="center")
    text.set_path_effects([patheffects.withStroke(linewidth=3.2, foreground=theme.paper)])


def _confusion(ax: Axes, panel: Mapping[str, Any], theme: Theme) -> None:
    counts, classes = np.asarray(panel["counts"], dtype=float), [_plain(str(c)) for c in panel["classes"]]
    k = len(classes)
    if counts.shape != (k, k):
        raise ValueError(f"a confusion panel of {k} classes needs counts ({k}, {k}): got {counts.shape}")
    top = max(float(counts.max(initial=0.0)), 1.0)
    cmap = LinearSegmentedColormap.from_list("count", theme.heat)
    ax.imshow(counts, cmap=cmap, vmin=0, vmax=top, aspect="equal")
    if k <= MANY_CLASSES:
        ax.set_xticks(range(k), classes, rotation=0 if max(map(len, classes)) < 3 else 45, ha="center")
        ax.set_yticks(range(k), classes)
        for (i, j), number in np.ndenumerate(counts):
            # the ramp passes through mid-tones: the text takes whichever of the two contrasts more
            cell = cmap(number / top)[:3]
            ink = max((theme.paper, theme.ink), key=lambda colour: contrast(to_rgb(colour), cell))
            if number:
                ax.text(j, i, f"{number:g}", ha="center", va="center", fontsize=70 / max(k, 8), color=ink)
    else:
        ax.set(xticks=[], yticks=[])
    for edge in np.arange(k - 1) + 0.5:
        ax.axhline(edge, color=theme.paper, linewidth=1)
        ax.axvline(edge, color=theme.paper, linewidth=1)
    ax.set_xlabel("adversarial class", color=theme.faint, fontsize=9)
    ax.set_ylabel("original class", color=theme.faint, fontsize=9)


def _curves(ax: Axes, panel: Mapping[str, Any], theme: Theme) -> None:
    styles: dict[str, int] = {}
    for series in panel["series"]:
        # curves of one label are alike, and the legend names them once
        first = series["label"] not in styles
        k = styles.setdefault(series["label"], len(styles))
        x, y = np.asarray(series["x"], dtype=float), np.asarray(series["y"], dtype=float)
        colour = theme.categories[k % len(theme.categories)]
        if series.get("plain"):
            ax.plot(
                x,
                y,
                color=theme.faint,
                label=_plain(str(series["label"])),
                linewidth=1.1,
                linestyle=DASHES[1],
            )
            continue
        if series.get("low") is not None and series.get("high") is not None:
            low, high = (np.asarray(series[key], dtype=float) for key in ("low", "high"))
            ax.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        style: dict[str, Any] = {
            "color": colour,
            "linewidth": 1.9,
            "marker": MARKERS[k % len(MARKERS)],
            "markersize": 4.2,
            # of a long curve every so many: all of them would melt into a bar; a lone point has nothing but its marker
            "markevery": None if series.get("points") or np.isnan(y).any() else max(1, len(x) // CROWDED),
        }
        style["linestyle"] = "none" if series.get("points") else DASHES[k % len(DASHES)]
        label = _plain(str(series["label"])) if first else None
        _signs(ax, series.get("signs", {}), k, colour)
        if series.get("marks") is None:
            ax.plot(x, y, label=label, **style)
            continue
        ax.plot(x, y, **style | {"marker": ""})
        ax.plot([], [], label=label, **style)
        for place in series["marks"]:
            ax.plot(*place, **style | {"linestyle": "none", "markersize": 6.5}, markeredgecolor=theme.paper)
    ax.grid(color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    turned = _scale_x(ax, panel)
    if panel.get("y_log"):
        _logarithmic(ax, "y")
    ax.set_xlabel(_plain(panel.get("x_label", "")), color=theme.faint, fontsize=9)
    ax.set_ylabel(_plain(panel.get("y_label", "")), color=theme.faint, fontsize=9)
    _name_signs(ax, panel["series"], theme)
    if panel["series"]:
        wide = max(len(_plain(str(series["label"]))) for series in panel["series"])
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.34 if turned else -0.17),  # under the plot, where it hides no point
            ncols=3 if wide < 14 else 2 if wide < 24 else 1,
            frameon=False,
            fontsize=8.5,
            labelcolor=theme.ink,
            handlelength=3.2,
        )


def _signs(ax: Axes, signs: Mapping[str, Any], k: int, colour: str) -> None:
    """Rings at points of the `k`-th curve, and crosses at the bottom, above those of the curves before."""
    for x, y in (place for places in signs.values() for place in places):
        if y is None:
            ax.plot(x, 0.03 + 0.05 * k, transform=ax.get_xaxis_transform(), color=colour, **_CROSS)
        else:
            ax.plot(x, y, color=colour, **_RING)


def _name_signs(ax: Axes, curves: Sequence[Mapping[str, Any]], theme: Theme) -> None:
    """One entry of the legend for each word, whichever the curve."""
    signs = [sign for series in curves for sign in series.get("signs", {}).items()]
    for word, places in dict(signs).items():
        style = _CROSS if places[0][1] is None else _RING
        ax.plot([], [], color=theme.faint, label=_plain(word), **style)


def _scale_x(ax: Axes, panel: Mapping[str, Any]) -> bool:
    """A logarithmic axis, one of names, or a plain one; whether its labels are turned."""
    names, turned = panel.get("x_names"), False
    if panel.get("x_log"):
        _logarithmic(ax, "x")
    elif names and len(names) <= MANY_CLASSES:
        ax.set_xticks(range(len(names)), [_plain(str(name)) for name in names])
        turned = max(map(len, names)) > 5
        ax.tick_params(axis="x", rotation=30 if turned else 0)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6))
    return turned


def _logarithmic(ax: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers: at the powers of ten, and between them where there are few."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    narrow, middling = high < 8 * low, high < 150 * low
    axis.set_major_locator(
        LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5) if middling else (1,))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
