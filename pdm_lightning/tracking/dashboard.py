"""The project's dashboard at W&B as code: which panels a workspace shows, in which sections."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pdm_lightning.tracking.to_wandb import STEP, sortable

NAME = "Attacks and their detection"
#: What a bar stands for: its title, and the key of a run's configuration.
_BY = {"attack": "attack", "defence": "defense", "detector": "detector"}


def workspace(project: str, entity: str, terms: Sequence[str], rates: Sequence[str], name: str = NAME) -> Any:
    """Build the workspace, without asking W&B anything.

    Parameters
    ----------
    project, entity : str
        Where it is kept.
    terms : sequence of str
        Loss terms that trainings log.
    rates : sequence of str
        False-positive rates of the thresholds, as in ``joint_success@0.05``.
    name : str
        The saved view's.

    Returns
    -------
    wandb_workspaces.workspaces.Workspace

    Raises
    ------
    ModuleNotFoundError
        Where the package ``wandb-workspaces`` is not installed.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ModuleNotFoundError(
            "the dashboard needs a package that is not installed: pip install 'pdm-lightning[wandb-workspace]'"
        )
    import wandb_workspaces.workspaces as ws

    sections = [
        _section("Training curves", _training(terms), 3),
        _section("Detection AUC by attack and defence", _detection(), 3),
        _section("Joint success", [panel for rate in rates for panel in _joint(rate)], 3),
        _section("ROC curves and images", _exhibits(), 2),
    ]
    columns = ["auc", "auc_all", "accuracy", *(f"joint_success@{rate}" for rate in rates)]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        runset_settings=ws.RunsetSettings(pinned_columns=[f"summary:{sortable(c)}" for c in columns]),
    )


def spec(view: Any) -> dict[str, Any]:
    """What W&B keeps of a workspace, as plain values."""
    # W&B's package has no public name for what its own `save` sends
    held: dict[str, Any] = json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return held


def save(view: Any, note: Path) -> str:
    """Save the workspace at W&B; where it was saved from here before, that view is replaced.

    Parameters
    ----------
    view : Workspace
    note : Path
        File that remembers the view.

    Returns
    -------
    str
        Its address.
    """
    with suppress(OSError, ValueError, KeyError):
        held = json.loads(note.read_text(encoding="utf-8"))
        if (held["entity"], held["project"]) == (view.entity, view.project):
            view._internal_name, view._internal_id = held["name"], held["id"]
    view.save()
    note.parent.mkdir(parents=True, exist_ok=True)
    kept = {"entity": view.entity, "project": view.project}
    kept |= {"name": view._internal_name, "id": view._internal_id}
    note.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    return str(view.url)


def default_entity() -> str:
    """Whoever is logged in to W&B."""
    import wandb

    return str(wandb.Api().default_entity or "")


def _section(title: str, panels: list[Any], columns: int) -> Any:
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=columns, rows=math.ceil(len(panels) / columns))
    return ws.Section(name=title, panels=panels, is_open=True, layout_settings=layout)


def _training(terms: Sequence[str]) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    shown = [("loss", "Loss"), ("accuracy", "Accuracy"), *((term, f"Term: {term}") for term in terms)]
    panels: list[Any] = [
        wr.LinePlot(title=title, x=STEP, y=[f"train/{name}", f"val/{name}"], title_x="step")
        for name, title in shown
    ]
    panels.append(wr.LinePlot(title="Learning rate", x=STEP, y=["lr"], title_x="step"))
    panels.append(wr.MediaBrowser(title="Embeddings (t-SNE)", media_keys=["tsne_plot"], num_columns=3))
    return panels


def _bars(metric: str, title: str) -> list[Any]:
    """A metric's mean over the cells that share an option."""
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.BarPlot(
            title=f"{title} by {what}",
            metrics=[sortable(metric)],
            groupby=wr.Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_bars_to_show=50,
        )
        for what, key in [("attack and defence", "attack_and_defense"), *_BY.items()]
    ]


def _detection() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    columns: list[Any] = [wr.Config(key) for key in ("data", "defense", "threat", "attack", "detector")]
    columns += [wr.SummaryMetric(name) for name in ("success_rate", "auc")]
    axes = [wr.ParallelCoordinatesPlotColumn(column) for column in columns]
    whole = wr.ParallelCoordinatesPlot(title="Every cell", columns=axes)
    return [*_bars("auc", "AUC"), *_bars("auc_all", "AUC, failures kept")[:1], whole]


def _joint(rate: str) -> list[Any]:
    at = f"at {float(rate):.3g} false positives"
    success = _bars(f"joint_success@{rate}", f"Joint success {at}")
    return [*success[:3], *_bars(f"robust_accuracy@{rate}", f"Robust accuracy {at}")[:3]]


def _exhibits() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    roc = wr.CustomChart(
        query={"summaryTable": {"tableKey": "roc_table"}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
        chart_strings={"title": "Detection: true against false positives", "xname": "false-positive rate"},
    )
    images = wr.MediaBrowser(title="Originals and attacked images", media_keys=["adversarial"], num_columns=4)
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("examples", "results")]
    return [roc, images, *tables]
