"""Studies small enough for a test, each judged by its whole card."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pdm_lightning.card import CHECKS, Card, judge
from pdm_lightning.card.evidence import Evidence
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.evidence import gather
from pdm_lightning.study.execute import execute
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.results import collect
from pdm_lightning.study.validate import validate

HERE = Path(__file__).parent
SMALL = (
    "data=digits",
    "data.size=8",
    "model=resnet8",
    "model.widths=[4,8,16]",
    "defense=ce",
    "optimizer.lr=0.02",
    "budget=smoke",
    "budget.train.steps=150",
    "budget.train.segment=150",
    "budget.train.batch_size=64",
    "budget.images.cheap=80",
    "budget.images.medium=80",
    "evaluate.bootstrap=50",
    "evaluate.min_n=50",
    "trainer.device=cpu",
    "trainer.threads=1",
    "card.run=all",
    "card.images=60",
    "card.self_test=60",
)


@dataclass(frozen=True)
class Judged:
    """A study's evidence and its card."""

    evidence: Evidence
    card: Card

    @property
    def failed(self) -> set[str]:
        return {check.id for check in self.card.failed}

    def without(self, check: str) -> set[str]:
        """What fails once a check is removed."""
        left = {name: entry for name, entry in CHECKS.items() if name != check}
        return {found.id for found in judge(self.evidence, left).failed}

    def says(self, check: str) -> str:
        return next(found.says for found in self.card.checks if found.id == check)


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Judged]]:
    """Run grids of words as one study; trainings are shared between them."""
    output = tmp_path_factory.mktemp("cards")
    sys.path.insert(0, str(HERE))

    def run(*grids: tuple[str, ...], fresh: bool = False) -> Judged:
        place = tmp_path_factory.mktemp("card") if fresh else output
        cells = [
            cell
            for grid in grids
            for cell in ask("run", ["-m", f"paths.output={place}", *SMALL, *(w for w in grid)])
        ]
        validate(cells)
        plan, context = make_plan(cells), Context(Store(place / "store"), progress=False)
        outcome = execute(plan, context, say=lambda line: None)
        assert not outcome.failed, [failed.error for failed in outcome.failed.values()]
        result = collect(plan, context, outcome, "test", "0")
        evidence = gather(plan, lambda node: context.artifact(node), result.rows, [])
        assert evidence is not None and result.card is not None
        return Judged(evidence, result.card)

    yield run
    sys.path.remove(str(HERE))
    sys.modules.pop("broken_parts", None)
