"""Running a plan through a Hydra launcher: wave after wave, each job in a process of its own somewhere."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import open_dict

from pdm_lightning.full_disk import one_line_when_full
from pdm_lightning.stages.context import Context
from pdm_lightning.study.execute import Failed, Outcome, check_room, forget, look_again, recorded
from pdm_lightning.study.job import Jobs, run_job, words
from pdm_lightning.study.plan import Node, Plan
from pdm_lightning.study.saved import save_nodes
from pdm_lightning.study.standing import due, kept, statuses
from pdm_lightning.study.watch import stamp, watching
from pdm_lightning.study.waves import Wave, waves
from pdm_lightning.study.words import config_loader

Say = Callable[[str], None]

HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""Hydra's own launcher, its default: everything in this process."""
SHARED_BY = 8
"""Jobs that the short nodes of a wave are put into, for a launcher that does not say."""
PATIENCE = 75.0
"""Seconds that what a job wrote may take to be seen over a network, for a launcher that does not say.

NFS keeps for up to 60 s that a file was not there (``acdirmax``).
"""
LOOK = 0.5
"""Seconds between two looks for it."""


class LauncherFailed(RuntimeError):
    """A launcher could not run any job."""


def make_launcher(config: Mapping[str, Any]) -> Launcher:
    """Make the Hydra launcher of a configuration node ``hydra.launcher``, any plugin that is installed.

    Raises
    ------
    ValueError
        Where there is no such launcher, or it does not take one of the values.
    """
    loader = config_loader()
    # what the jobs of a launcher that composes their configuration compose: two words, and no group
    master = loader.load_configuration("_job", [], run_mode=RunMode.MULTIRUN)
    with open_dict(master):
        master.hydra.launcher = dict(config)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    try:
        return Plugins.instance().instantiate_launcher(context, run_job, master)
    except Exception as error:
        first = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"hydra/launcher ({config.get('_target_')}): {first}") from error


def launch(plan: Plan, context: Context, launcher: Launcher, say: Say) -> Outcome:
    """Build what is missing through a launcher. A node that fails, or whose job is killed, is recorded.

    What a job came to is read from the store and from `pdm_lightning.study.execute.recorded`: a launcher's own answer
    tells nothing of a job that was killed, and some raise where one job fails.

    Raises
    ------
    StoreFull
        On a full disk.
    LauncherFailed
        Where the launcher cannot run any job.
    """
    outcome = Outcome()
    try:
        with one_line_when_full(context.store.root):
            _launch(plan, context, launcher, say, outcome)
    finally:
        with suppress(AttributeError):
            launcher.close()  # type: ignore[attr-defined]  # ours keep their processes from wave to wave
    return outcome


def _launch(plan: Plan, context: Context, launcher: Launcher, say: Say, outcome: Outcome) -> None:
    folder, number, anew = _folder(plan), 0, set[str]()
    save_nodes(plan.nodes, folder / "nodes.json")
    for place, wave in enumerate(waves(plan.nodes)):
        todo = _todo(wave, context, outcome, anew)
        if not todo.jobs:
            continue
        todo = todo.shared_by(getattr(launcher, "shared_by", SHARED_BY))
        file = folder / f"wave-{place}-{wave.kinds[0]}.json"
        before = {node.key: stamp(node, context.store) for node in todo.nodes}
        _run(todo, file, context, launcher, number, say)
        number += len(todo.jobs)
        until = time.monotonic() + getattr(launcher, "patience", PATIENCE)
        anew |= _settle(todo.nodes, before, context, outcome, until)


def _folder(plan: Plan) -> Path:
    when = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder = Path(plan.settings["paths"]["output"]) / "logs" / "launched" / f"{plan.settings['name']}-{when}"
    folder.mkdir(parents=True)
    return folder.resolve()


def _todo(wave: Wave, context: Context, outcome: Outcome, anew: set[str]) -> Wave:
    """What of a wave is not there yet, or stands behind what was, or will be, built anew; the rest is counted."""
    states, jobs = statuses(wave.nodes, context.store), []
    ahead = due(wave.nodes, states, context.store, anew)
    for job in wave.jobs:
        mine = []
        for node in job:
            if outcome.cut_off(node):
                continue
            if node.key in ahead:
                forget(node)
                mine.append(node)
            else:
                outcome.reused += 1
                outcome.stale += states[node.key] == "stale"
        jobs += [mine] if mine else []
    return Wave(wave.kinds, jobs)


def _run(wave: Wave, file: Path, context: Context, launcher: Launcher, first: int, say: Say) -> None:
    nodes, store = wave.nodes, context.store
    keys = [[node.key for node in job] for job in wave.jobs]
    root = str(store.root.resolve())
    Jobs(str(file.parent / "nodes.json"), os.getcwd(), root, store.on_stale, keys).save(file)
    say(f"{', '.join(dict.fromkeys(node.kind for node in nodes))}: {len(nodes)} in {len(wave.jobs)} jobs")
    trouble: Exception | None = None
    with watching(nodes, store, say):
        try:
            launcher.launch([words(file, number) for number in range(len(wave.jobs))], first)
        except Exception as error:  # of some job, perhaps: the store tells what came of the others
            trouble = error
    if trouble is not None:
        if not _anything(nodes, context):
            raise LauncherFailed(f"hydra/launcher ran nothing: {_first_line(trouble)}") from trouble
        say(f"the launcher says: {_first_line(trouble)}")


def _anything(nodes: Iterable[Node], context: Context) -> bool:
    fine, states = kept(context.store), statuses(nodes, context.store)
    return any(recorded(node) or states[node.key] in fine for node in nodes)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _settle(
    nodes: Sequence[Node], before: Mapping[str, int], context: Context, outcome: Outcome, until: float
) -> set[str]:
    """Count the nodes of jobs that are over; the keys of those that were built.

    What a job left may be seen only later, but not after `until`. Where it was published `before`, it was kept.
    """
    fine, waiting, built = kept(context.store), list(nodes), set[str]()
    while waiting:
        late = time.monotonic() >= until
        look_again(waiting)
        states, later = statuses(waiting, context.store), []
        for node in waiting:
            if outcome.cut_off(node):
                continue
            if states[node.key] in fine:
                if stamp(node, context.store) != before[node.key]:
                    built.add(node.key)
                    continue
                outcome.reused += 1
                outcome.stale += states[node.key] == "stale"
                continue
            failed = recorded(node)
            if failed is None and not late:
                later.append(node)
                continue
            if failed is None:
                check_room(node, context.store.root)
            ended = "its job ended before it was built (killed?): the same command goes on from here"
            outcome.failed[node.key] = failed or Failed(node, ended)
        waiting = later
        if waiting:
            time.sleep(LOOK)
    outcome.built += len(built)
    return built
