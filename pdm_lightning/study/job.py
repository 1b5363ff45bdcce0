"""What runs in a process that a launcher started: some nodes of a study, one after the other."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store, StoreFull
from pdm_lightning.study.execute import forget, record, run_node
from pdm_lightning.study.plan import Node
from pdm_lightning.study.saved import load_nodes


@dataclass(frozen=True)
class Jobs:
    """A wave as a file.

    Attributes
    ----------
    nodes : str
        File of `pdm_lightning.study.saved.save_nodes`.
    folder : str
        Where the command was typed: relative places are looked for from there.
    store, on_stale : str
        Place of the store, and ``store.on_stale``.
    keys : list of list of str
        Keys of the nodes of each job.
    """

    nodes: str
    folder: str
    store: str
    on_stale: str
    keys: list[list[str]]

    def save(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def words(path: Path, number: int) -> list[str]:
    """The overrides that tell `run_job` what to do; the path is encoded, as each launcher quotes by its own rules."""
    return [f"wave='{quote(str(path))}'", f"job={number}"]


def run_job(config: Any) -> list[str]:
    """Build the nodes of one job of a wave; the function that a Hydra launcher is given.

    A node that fails is recorded (`pdm_lightning.study.execute.record`), and those that do not need it go on. What
    was built is told by the store, not by what is returned: a job may be killed.

    Parameters
    ----------
    config : mapping
        ``wave``: file of `Jobs`, as in `words`; ``job``: which of them.

    Returns
    -------
    list of str
        Keys of the nodes that failed.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    jobs = Jobs(**json.loads(Path(unquote(str(config["wave"]))).read_text(encoding="utf-8")))
    os.chdir(jobs.folder)
    if jobs.folder not in sys.path:  # modules of the user's own; last, so that none hides an installed one
        sys.path.append(jobs.folder)
    nodes = _nodes(jobs.nodes)
    return run_nodes(
        [nodes[key] for key in jobs.keys[int(config["job"])]], _context(jobs.store, jobs.on_stale)
    )


def run_nodes(nodes: Sequence[Node], context: Context) -> list[str]:
    """Build nodes in their order; the keys of those that failed, or stand behind one that did."""
    gone: list[str] = []
    for node in nodes:
        if any(parent.key in gone for parent in node.parents.values()):
            gone.append(node.key)
            continue
        forget(node)
        try:
            run_node(node, context, _say)
        except StoreFull as error:
            record(node, error)
            raise
        except Exception as error:
            record(node, error)
            gone.append(node.key)
    return gone


def _say(line: str) -> None:
    if os.environ.get("PDM_QUIET_JOBS") != "1":
        print(line, file=sys.stderr, flush=True)


@cache
def _nodes(path: str) -> dict[str, Node]:
    return load_nodes(Path(path))


@cache
def _context(store: str, on_stale: str) -> Context:
    """One a process: a worker that runs several jobs opens the same data once."""
    return Context(Store(store, on_stale=on_stale), progress=False)
