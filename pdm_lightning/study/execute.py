"""Running a plan: wave after wave, each node once, in this process."""

from __future__ import annotations

import json
import logging
import os
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdm_lightning.full_disk import one_line_when_full
from pdm_lightning.stages.builders import BUILDERS, source
from pdm_lightning.stages.context import Context
from pdm_lightning.store import StoreFull
from pdm_lightning.study.hardware import check_devices, hardware
from pdm_lightning.study.plan import Node, Plan, ancestry
from pdm_lightning.study.standing import due, status, statuses

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

    def cut_off(self, node: Node) -> bool:
        """Whether the node stands behind one that failed; it is noted as skipped then."""
        if not any(p.key in self.failed or p.key in self.skipped for p in node.parents.values()):
            return False
        self.skipped[node.key] = node
        return True


def preflight(plan: Plan, context: Context, launcher: Any = None) -> None:
    """Ask for the devices, and read every data set, that what is due needs: an error comes before anything is computed.

    Parameters
    ----------
    launcher : object, optional
        As `pdm_lightning.study.hardware.check_devices` takes it.

    Raises
    ------
    FileNotFoundError, ValueError
        As the data sources raise.
    """
    needed = due(plan, statuses(plan, context.store), context.store)
    check_devices((node for node in plan if node.key in needed), launcher)
    seen = set()
    for node in plan:
        if node.key not in needed or "data" not in node.runtime:
            continue
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
        if outcome.cut_off(node):
            continue
        place = f"[{number}/{len(nodes)}]"
        try:
            stale = status(context.store, node) == "stale"
            built = run_node(node, context, lambda text, place=place: say(f"{place} {text}"))  # type: ignore[misc]
        except (StoreFull, KeyboardInterrupt):
            raise
        except Exception as error:
            outcome.failed[node.key] = record(node, error)
            say(f"{place} {node.kind} {node.title} FAILED: {outcome.failed[node.key].error}")
            continue
        outcome.built += built
        outcome.reused += not built
        outcome.stale += stale and not built
    return outcome


def run_node(node: Node, context: Context, say: Callable[[str], None]) -> bool:
    """Have a node's artifact in the store; whether it was built here and now."""
    built = False

    def build(folder: Path) -> Mapping[str, Any] | None:
        nonlocal built
        built = True
        # the artifact is ours to build before a device is asked for: nobody waits for both the other way round
        with context.at_work(*hardware(node)):
            say(f"{node.kind} {node.title}")
            return BUILDERS[node.kind](node, folder, context)

    context.store.get(node.kind, node.spec, node.parent_keys, build, source=source(node))
    return built


def record(node: Node, error: Exception) -> Failed:
    """Keep the traceback in a file of the logs, if there is room; the line that people read names the error."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    path = _note(node)
    told = {"error": line, "full": str(error) if isinstance(error, StoreFull) else ""}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told), encoding="utf-8")
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return Failed(node, line, str(path.with_suffix(".txt")))


def recorded(node: Node) -> Failed | None:
    """What `record` noted of a node, in whichever process; None where there is nothing.

    Raises
    ------
    StoreFull
        Where the disk was full.
    """
    try:
        told = json.loads(_note(node).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if told["full"]:
        raise StoreFull(told["full"])
    return Failed(node, told["error"], str(_note(node).with_suffix(".txt")))


def look_again(nodes: Iterable[Node]) -> None:
    """Have a network file system forget that it saw no record of nodes: to list a folder asks the server anew."""
    for folder in {_note(node).parent for node in nodes}:
        with suppress(OSError):
            os.listdir(folder)


def check_room(node: Node, root: Path) -> None:
    """Try whether `record` could have noted anything of a node.

    Raises
    ------
    StoreFull
        Where the disk of the store at `root` is full.
    """
    with one_line_when_full(root):
        _note(node).parent.mkdir(parents=True, exist_ok=True)
        trial = _note(node).with_suffix(f".{uuid.uuid4().hex[:8]}")
        try:
            trial.write_text(node.title * 50, encoding="utf-8")
        finally:
            trial.unlink(missing_ok=True)


def forget(node: Node) -> None:
    """Remove what an earlier run noted of a node."""
    for suffix in (".json", ".txt"):
        _note(node).with_suffix(suffix).unlink(missing_ok=True)


def _note(node: Node) -> Path:
    output = next((n.runtime["paths"]["output"] for n in ancestry(node) if "paths" in n.runtime), "outputs")
    return Path(output) / "logs" / "failed" / f"{node.kind}-{node.key}.json"
