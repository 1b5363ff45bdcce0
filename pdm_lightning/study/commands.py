"""What ``pdml run``, ``check`` and ``report`` do: Hydra composes what is asked for, then the study runs."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pdm_lightning import __version__
from pdm_lightning.card import print_card
from pdm_lightning.report import StudyResult, print_tables, write_report
from pdm_lightning.spoken import quiet
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.cost import total
from pdm_lightning.study.execute import Outcome, execute, preflight
from pdm_lightning.study.kept import remember
from pdm_lightning.study.launching import HERE, launch, make_launcher
from pdm_lightning.study.plan import Plan, make_plan
from pdm_lightning.study.results import collect
from pdm_lightning.study.show import missing_costs
from pdm_lightning.study.standing import statuses
from pdm_lightning.study.tracked import track_study
from pdm_lightning.study.validate import validate


def perform(
    command: str,
    words: list[str],
    cells: list[Cell],
    *,
    strict: bool = False,
    launcher: Mapping[str, Any] | None = None,
) -> int:
    """Carry out a command.

    Parameters
    ----------
    command : {"run", "check", "report"}
    words : list of str
        Hydra's overrides and flags, as typed.
    cells : list of Cell
        What they ask for, at least one.
    strict : bool
        For ``check``: a check that was not run counts as one that failed.
    launcher : mapping, optional
        Hydra's node ``hydra.launcher``; None: everything runs in this process.

    Returns
    -------
    int
        Exit status: 1 where a cell failed, or, for ``report``, is missing or rests on what is no longer there, or,
        for ``check``, a check failed.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    if command == "check":
        cells = [_checked(cell) for cell in cells]
    validate(cells)
    elsewhere = launcher is not None and launcher.get("_target_") != HERE and command in ("run", "check")
    launches = make_launcher(launcher) if elsewhere and launcher else None
    plan = make_plan(cells)
    settings = plan.settings
    store = Store(Path(settings["paths"]["output"]) / "store", on_stale=settings["store"]["on_stale"])
    context = Context(store)
    outcome, orphaned = Outcome(), 0
    if command == "report":
        states = list(statuses(plan, store).values())
        outcome.stale, orphaned = states.count("stale"), states.count("orphaned")
        if orphaned:
            _say(
                f"pdml: orphaned: {orphaned} results rest on what was built anew since: 'pdml run' makes them anew"
            )
    if command in ("run", "check"):
        preflight(plan, context, launches)
        remember(plan, Path(settings["paths"]["output"]) / "report" / str(settings["name"]))
        ahead = total(missing_costs(plan, context).values())
        if ahead:
            _say(ahead)
        with quiet("pdm_lightning.store"):  # what is stale is told in one line, not one by one
            outcome = launch(plan, context, launches, _say) if launches else execute(plan, context, say=_say)
        if outcome.stale and store.on_stale == "warn":
            _say(
                f"stale: {outcome.stale} made by another version of the code; store.on_stale=rebuild makes them anew"
            )
    result, holes = _report(plan, context, outcome, shlex.join(["pdml", command, *words]))
    if command in ("run", "check") and (tracked := track_study(plan, result, context)):
        _say(tracked)
    return max(holes, _verdict(result, strict)) if command == "check" else max(holes, int(orphaned > 0))


def _checked(cell: Cell) -> Cell:
    """The cell with a whole card, unless another one was typed, or its part of an experiment has none."""
    settled = any(override.lstrip("+").startswith("card.run=") for override in cell.overrides)
    card = cell.config["card"] | ({} if settled else {"run": "all"})
    return replace(cell, config=cell.config | {"card": card})


def _verdict(result: StudyResult, strict: bool) -> int:
    """1 where a check failed, or, if it is `strict`, was not run; also where there is no card at all."""
    if result.card is None:
        _say("pdml: no card: nothing was attacked, or card.run=none")
        return int(strict)
    bad = result.card.failed + (result.card.not_run if strict else [])
    if bad:
        _say(
            f"pdml: {len(bad)} of {len(result.card.checks)} checks: "
            + ", ".join(f"{c.id} {c.verdict}" for c in bad)
        )
    return int(bool(bad))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _console() -> Console:
    """Tables as wide as the terminal, and 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


def _report(plan: Plan, context: Context, outcome: Outcome, command: str) -> tuple[StudyResult, int]:
    """Write and print the report; every hole in it is counted in the exit status."""
    result = collect(plan, context, outcome, command, __version__)
    output = Path(plan.settings["paths"]["output"])
    # matplotlib would keep its caches in the home folder
    os.environ.setdefault("MPLCONFIGDIR", str((output / "cache" / "matplotlib").resolve()))
    folder = output / "report" / str(plan.settings["name"])
    page = write_report(folder, result)
    console = _console()
    print_tables(result, console)
    if result.card is not None:
        print_card(result.card, console, whole=plan.settings["card"]["run"] == "all")
    if result.claims:
        from pdm_lightning.claims import print_claims  # SciPy, which planning need not wait for

        print_claims(result, console)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False, markup=False)
    for failed in outcome.failed.values():
        _say(
            f"pdml: {failed.node.kind} {failed.node.title} failed: {failed.error} (traceback: {failed.traceback_path})"
        )
    holes = sum(row.status in ("failed", "missing") for row in result.rows)
    if holes and not outcome.failed:
        _say(f"pdml: {holes} results are not there yet: 'pdml run' with the same words computes them")
    return result, int(bool(holes or outcome.failed))
