"""``pdml wandb sweep`` and ``pdml wandb dashboard``: what W&B can be given beside runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from pdm_lightning.errors import nearest
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.validate import validate
from pdm_lightning.study.words import split_words
from pdm_lightning.tracking import wandb_mode
from pdm_lightning.tracking.dashboard import default_entity, save, spec, workspace
from pdm_lightning.tracking.sweep import grids, sweep_config

USAGE = """\
pdml wandb sweep [overrides]        write the cells that the overrides ask for as a sweep for W&B's agents
pdml wandb dashboard [overrides]    save the project's dashboard, where nobody is logged in as JSON

Overrides and flags are those of pdml run ('pdml run --help' lists them).

Examples
  pdml wandb sweep experiment=table2 data=mnist budget=cpu
  pdml wandb sweep -m defense=ce,pdm attack=fgsm_010,bim_010 logger.project=mine logger.entity=my-team
  pdml wandb dashboard experiment=table2 logger.project=mine
"""


def wandb(words: list[str]) -> int:
    """Carry out ``pdml wandb ...``.

    Parameters
    ----------
    words : list of str
        What follows ``wandb``: a command, then overrides as for ``pdml run``.

    Returns
    -------
    int
        Exit status: 0.

    Raises
    ------
    ValueError
        For an unknown command, or a request that cannot be met.
    """
    commands = {"sweep": _sweep, "dashboard": _dashboard}
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if words[0] not in commands:
        hint = nearest(words[0], commands) or ":"
        raise ValueError(f"pdml wandb {words[0]} is no command{hint} use {', '.join(commands)}")
    if {"--help", "-h"} & set(words):
        print(USAGE, end="")
        return 0
    cells = ask(f"wandb {words[0]}", words[1:])
    if cells:  # else Hydra printed a configuration
        validate(cells)
        commands[words[0]](words[1:], cells)
    return 0


def _sweep(words: list[str], cells: list[Cell]) -> None:
    if len(cells) == 1:
        raise ValueError(
            "one cell is no sweep: name an experiment, or list values with -m, as -m defense=ce,pdm attack=fgsm,bim"
        )
    cells = _scored(cells)
    config = cells[0].config
    found = grids(cell.overrides for cell in cells)
    folder = Path(config["paths"]["output"]) / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    for number, grid in enumerate(found, start=1):
        name = config["name"] + (f"-{number}" if len(found) > 1 else "")
        grid = {key: values for key, values in grid.items() if key != "logger"}
        content = sweep_config(
            grid,
            _beside(words, grid),
            name=name,
            project=config["logger"]["project"],
            entity=config["logger"]["entity"] or "",
        )
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        count = sum(1 for cell in cells if _within(cell, grid))
        print(f"{path}: {count} cells; wandb sweep {path}")
    print(
        "Each 'wandb sweep' prints the command of its agents: start one a device, on as many machines as you like."
    )


def _scored(cells: list[Cell]) -> list[Cell]:
    """Those that an agent can run, each once: the others would have no result to tell W&B."""
    kept: dict[str, Cell] = {}
    refused = clean = 0
    for entry in make_plan(cells).entries:
        if "score" in entry.nodes:
            kept.setdefault(entry.nodes["score"].key, entry.cell)
        elif entry.refused:
            refused += 1
        else:
            clean += 1
    reasons = {
        "refused by their threat model": refused,
        "without an attack": clean,
        "the same as another": len(cells) - len(kept) - refused - clean,
    }
    if told := ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count):
        print(f"left out: {len(cells) - len(kept)} of {len(cells)} cells ({told})")
    if not kept:
        raise ValueError("no cell is left for a sweep: 'pdml plan' with the same words says why")
    return list(kept.values())


def _beside(words: list[str], grid: dict[str, list[str]]) -> list[str]:
    """Flags and overrides of a command that are no keys of a grid."""
    flags, overrides = split_words(words)
    kept = ["--config-dir", str(Path(flags.config_dir).resolve())] if flags.config_dir else []
    kept += [word for word in overrides if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if "experiment" in grid:
        # else the experiment's further grids would come along with each cell
        kept.append("++hydra.sweeper.also=null")
    return [*kept, "logger=wandb"]


def _within(cell: Cell, grid: dict[str, list[str]]) -> bool:
    pairs = dict(override.partition("=")[::2] for override in cell.overrides)
    pairs.pop("logger", None)
    return pairs.keys() == grid.keys() and all(pairs[key] in values for key, values in grid.items())


def _dashboard(words: list[str], cells: list[Cell]) -> None:
    config = cells[0].config
    cfg: dict[str, Any] = config["logger"]
    online = wandb_mode(cfg["mode"]) == "online"
    entity = cfg["entity"] or (default_entity() if online else "entity")
    terms = sorted({term for cell in cells for term in cell.config["defense"]["use"]})
    view = workspace(cfg["project"], entity, terms, [f"{rate:g}" for rate in config["evaluate"]["fpr"]])
    folder = Path(config["paths"]["output"]) / "logs" / "wandb"
    if online:
        print(f"The dashboard: {save(view, folder / 'dashboard-saved.json')}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dashboard.json"
    path.write_text(json.dumps(spec(view), indent=1) + "\n", encoding="utf-8")
    print(f"{path}: the dashboard; nobody is logged in to W&B, so it is not saved there (wandb login)")
