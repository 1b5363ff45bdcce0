"""Two runs side by side, image by image."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pdm_lightning.card.evidence import Evidence, Run

EXCEPTIONS = 0.01
"""Share of the images, strictly below which exceptions count for nothing."""
ROUNDING = 1e-5


def hits(run: Run) -> Tensor:
    """(N,) bool: successes; of an attack on classifier and detector, by its own joint criterion."""
    return run.success if "detector" in run.needs else run.fooled


def rate(run: Run) -> float:
    """Share of successes."""
    return float(hits(run).double().mean()) if len(run.index) else 0.0


def common(*runs: Run) -> list[Tensor]:
    """Successes of each run on the images that all of them attacked, in one order."""
    shared = runs[0].index
    for run in runs[1:]:
        shared = shared[torch.isin(shared, run.index)]
    return [hits(run)[_places(run.index, shared)] for run in runs]


def union(runs: Iterable[Run]) -> Tensor:
    """(n,) bool on the images that all attacked: did any succeed?"""
    return torch.stack(common(*runs)).any(dim=0)


def _places(index: Tensor, wanted: Tensor) -> Tensor:
    order = index.argsort()
    return order[torch.searchsorted(index[order], wanted)]


def share(mask: Tensor) -> float:
    """Share of True; 0 for none."""
    return float(mask.double().mean()) if len(mask) else 0.0


def several_steps(run: Run) -> bool:
    """Whether an attack takes more than one step."""
    return any(name in run.attack for name in ("iterations", "max_iterations", "queries", "steps"))


def without_gradient(run: Run) -> bool:
    """Whether an attack goes by logits and scores alone."""
    name = str(run.attack.get("_target_", "")).rpartition(".")[2]
    return name in ("Square", "ClassifierSquare", "HopSkipJump") or run.role == "gradient_free"


def places(evidence: Evidence) -> list[tuple[str, str]]:
    """(model, threat) of all runs, as first met."""
    return list(dict.fromkeys((run.model, run.threat) for run in evidence.runs))


def name_of(evidence: Evidence, run: Run) -> str:
    """A run in words."""
    model = evidence.models[run.model].title if run.model in evidence.models else run.model
    return f"{model}, {run.threat}, {run.name}"
