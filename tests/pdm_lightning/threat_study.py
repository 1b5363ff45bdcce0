"""One small study under every threat model, for the tests of white boxes and surrogates; read with runpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdm_lightning.stages import features
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Artifact, Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.execute import Outcome, execute
from pdm_lightning.study.plan import Entry, Node, Plan, make_plan

#: 8x8 digits and a narrow ResNet-8: it learns them in seconds.
SMALL = (
    "data=digits",
    "data.size=8",
    "model=resnet8",
    "model.widths=[4,8,16]",
    "defense=ce",
    "optimizer.lr=0.02",
    "budget=smoke",
    "budget.train.steps=60",
    "budget.train.segment=60",
    "budget.train.batch_size=64",
    "budget.images.cheap=24",
    "budget.images.medium=24",
    "budget.images.heavy=24",
    "budget.iterations.cw_wb.stage1_iterations=12",
    "budget.iterations.cw_wb.stage2_iterations=12",
    "evaluate.bootstrap=20",
    "evaluate.min_n=3",
    "evaluate.fpr=[0.01,0.05,0.1]",
    "evaluate.worst_case=true",
    "trainer.device=cpu",
    "trainer.threads=1",
    "report.tables=[summary]",
)
PROXY = ("threat=black_box", "model@threat.proxy.model=resnet8", "threat.proxy.model.widths=[4,4,8]")
GRIDS = (
    ("threat=gray_box", "attack=fgsm_010,bim_010,cw_wb"),
    ("threat=white_box", "attack=fgsm_010,cw_wb"),
    (*PROXY, "attack=fgsm_010,cw_wb"),
    ("threat=transfer", "attack=fgsm_010"),
)


@dataclass(frozen=True)
class ThreatStudy:
    """A finished study: the artifacts of every threat model in one store."""

    plan: Plan
    context: Context
    output: Path

    @cached_property
    def entries(self) -> dict[tuple[str, str], Entry]:
        """By names of threat model and attack."""
        return {
            (entry.cell.config["threat"]["name"], entry.cell.config["attack"]["name"]): entry
            for entry in self.plan.entries
        }

    def node(self, threat: str, attack: str, kind: str = "craft") -> Node:
        return self.entries[threat, attack].nodes[kind]

    def artifact(self, node: Node) -> Artifact:
        return self.context.artifact(node)

    def sets(self, node: Node) -> dict[str, Any]:
        """Features of a ``features`` node."""
        return features.read(self.artifact(node))

    def fresh(self) -> Context:
        """A context that holds nothing in memory."""
        return Context(self.context.store, progress=False)


def run(output: Path) -> ThreatStudy:
    """Plan all grids as one study and compute it."""
    cells = [cell for grid in GRIDS for cell in ask("run", ["-m", f"paths.output={output}", *SMALL, *grid])]
    plan, context = make_plan(cells), Context(Store(output / "store"), progress=False)
    outcome = execute(plan, context, say=lambda line: None)
    assert not outcome.failed, outcome.failed
    return ThreatStudy(plan, context, output)


def finished() -> Outcome:
    return Outcome()


def reachable(thing: Any, *, seen: set[int] | None = None) -> Iterator[Any]:
    """Everything that hangs on an object: attributes, members, closures, and what hangs on those."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (type, str, bytes, int, float, Tensor)) or thing is None:
        return
    seen.add(id(thing))
    yield thing
    parts: list[Any] = []
    if isinstance(thing, dict):
        parts += thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset)):
        parts += thing
    elif not type(thing).__module__.startswith(("torch._", "builtins")):
        parts += vars(thing).values() if hasattr(thing, "__dict__") else ()
    parts += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    parts.append(getattr(thing, "__self__", None))
    for part in parts:
        yield from reachable(part, seen=seen)


def signature(tensor: Tensor) -> tuple[int, float, float]:
    """The same for every view and every copy of a tensor's values."""
    values = tensor.detach().double()
    return tensor.numel(), round(float(values.sum()), 5), round(float(values.square().sum()), 5)


class GraphSpy(torch.autograd.graph.saved_tensors_hooks):
    """Within it, looks for a module's parameters among all that autograd graphs keep for their backward passes.

    A frozen weight is no leaf of a graph, yet the graph keeps its values: the gradient to the input needs them.
    """

    def __init__(self, *modules: nn.Module) -> None:
        weights = [p for module in modules for p in module.parameters() if p.numel() >= 16]
        self.known = {signature(weight) for weight in weights}
        self.sizes = {numel for numel, *_ in self.known}
        self.saved, self.found = 0, 0
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self.saved += 1
        if tensor.numel() in self.sizes and tensor.is_floating_point():
            self.found += signature(tensor) in self.known
        return tensor
