"""A small study that asks for every measurement of trained models; read with runpy."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact, Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.execute import execute
from pdm_lightning.study.plan import Node, Plan, make_plan

SMALL = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))["SMALL"]
DEFENSES = "defense=ce,rce,pdm"
GRIDS = (
    ("attack=none", "report.tables=[accuracy,ablation,gradients]", "report.figures=[gradients]"),
    ("attack=bim_010", "report.tables=[detection]", "report.figures=[walk,bandwidths]"),
    (
        "attack=fgsm",
        "attack.eps=0.0,0.1,0.2",
        "report.tables=[summary]",
        "report.figures=[curves,auc_eps,auc_success]",
    ),
    (
        *("attack=cw_converged", "attack.max_iterations=2,8", "attack.lr=0.1"),
        *("report.tables=[summary]", "report.figures=[convergence]"),
    ),
    ("attack=min_norm_l2", "report.tables=[bound]", "report.figures=[bound]"),
)


@dataclass(frozen=True)
class MeasuredStudy:
    """A finished study."""

    plan: Plan
    context: Context

    def nodes(self, kind: str) -> dict[str, Node]:
        """Of a kind, by defence."""
        return {
            one.entry.cell.name("defense"): one.node for one in self.plan.measured if one.node.kind == kind
        }

    def artifact(self, node: Node) -> Artifact:
        return self.context.artifact(node)


def run(output: Path) -> MeasuredStudy:
    """Plan all grids as one study and compute it."""
    words = [word for word in SMALL if not word.startswith(("defense=", "report.", "evaluate.worst_case"))]
    words += [DEFENSES, "measure.images=24", "measure.bandwidths=[0.5,1,2]", "card.run=none"]
    cells: list[Any] = []
    for grid in GRIDS:
        cells += ask("run", ["-m", f"paths.output={output}", *words, *grid])
    plan, context = make_plan(cells), Context(Store(output / "store"), progress=False)
    outcome = execute(plan, context, say=lambda line: None)
    assert not outcome.failed, outcome.failed
    return MeasuredStudy(plan, context)
