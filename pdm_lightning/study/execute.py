"""Running a plan: wave after wave, each node once, in this process."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdm_lightning.stages.builders import BUILDERS, source
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store, StoreFull
from pdm_lightning.study.plan import Node, Plan, ancestry

log = logging.getLogger(__name__)


@dataclass
class Failed:
    """Why a node has no artifact."""

    node: Node
    error: str
    traceback_path: str = ""


@dataclass
class Outcome:
    """What running a plan came to.

    Attributes
    ----------
    built, reused, stale : int
        Nodes whose artifact was made now, was there already, and, of these, by an older version of the code.
    failed : dict of str to Failed
        By key: nodes that raised.
    skipped : dict of str to Node
        By key: nodes behind a failed one.
    """

    built: int = 0
    reused: int = 0
    stale: int = 0
    failed: dict[str, Failed] = field(default_factory=dict)
    skipped: dict[str, Node] = field(default_factory=dict)


def status(store: Store, node: Node) -> str:
    """How a node stands: ``cached``, ``stale``, ``running``, ``partial``, ``missing`` or ``corrupt``."""
    return store.status(node.kind, node.key, source(node))


def preflight(plan: Plan, context: Context) -> None:
    """Read every data set that a missing node needs, so that a missing one is an error before anything is computed.

    Raises
    ------
    FileNotFoundError, ValueError
        As the data sources raise.
    """
    kept = ("cached", "stale") if context.store.on_stale == "warn" else ("cached",)
    needed = (node for node in plan if "data" in node.runtime and status(context.store, node) not in kept)
    seen = set()
    for node in needed:
        place = str(node.runtime["data"])
        if place not in seen:
            seen.add(place)
            context.data(node)


def execute(plan: Plan, context: Context, say: Callable[[str], None] = log.info) -> Outcome:
    """Build what is missing. A node that fails is recorded and the nodes that do not need it go on.

    Parameters
    ----------
    say : callable
        Gets one line a node that is built.

    Raises
    ------
    StoreFull
        On a full disk: no other node would fare better.
    """
    outcome = Outcome()
    nodes = plan.nodes
    for number, node in enumerate(nodes, start=1):
        gone = outcome.failed.keys() | outcome.skipped.keys()
        if any(parent.key in gone for parent in node.parents.values()):
            outcome.skipped[node.key] = node
            continue
        try:
            _run(node, context, outcome, lambda text, n=number: say(f"[{n}/{len(nodes)}] {text}"))  # type: ignore[misc]
        except (StoreFull, KeyboardInterrupt):
            raise
        except Exception as error:
            outcome.failed[node.key] = _record(node, error)
            say(f"[{number}/{len(nodes)}] {node.kind} {node.title} FAILED: {outcome.failed[node.key].error}")
    return outcome


def _run(node: Node, context: Context, outcome: Outcome, say: Callable[[str], None]) -> None:
    built = False
    stale = status(context.store, node) == "stale"

    def build(folder: Path) -> Mapping[str, Any] | None:
        nonlocal built
        built = True
        say(f"{node.kind} {node.title}")
        return BUILDERS[node.kind](node, folder, context)

    context.store.get(node.kind, node.spec, node.parent_keys, build, source=source(node))
    outcome.built += built
    outcome.stale += stale and not built
    outcome.reused += not built


def _record(node: Node, error: Exception) -> Failed:
    """Keep the traceback in a file of the logs; the line that people read names the error."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    output = next((n.runtime["paths"]["output"] for n in ancestry(node) if "paths" in n.runtime), "outputs")
    path = Path(output) / "logs" / "failed" / f"{node.kind}-{node.key}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return Failed(node, line, str(path))
