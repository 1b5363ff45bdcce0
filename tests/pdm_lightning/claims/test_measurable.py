"""What a claim needs is what the experiment that it names has: no claim waits for rows that nothing makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from pdm_lightning.claims import CLAIMS
from pdm_lightning.claims.curves import Above, Monotone
from pdm_lightning.claims.found import Of
from pdm_lightning.report import published
from pdm_lightning.study.ask import ask

CLEAN = "none"


def wanted(kind: object) -> Iterator[Of]:
    """Every measure that a kind looks up; of a curve, at one radius."""
    if isinstance(kind, Monotone):
        yield from (Of("robust_accuracy", model, f"{kind.attack}[eps=0.1]") for model in kind.models)
    elif isinstance(kind, Above):
        yield from (Of("robust_accuracy", m, f"{kind.attack}[eps=0.1]") for m in (kind.model, *kind.others))
    elif isinstance(kind, Of):
        yield kind
    elif isinstance(kind, tuple):
        yield from (of for one in kind for of in wanted(one))
    elif is_dataclass(kind):
        for field in fields(kind):
            yield from wanted(getattr(kind, field.name))


@pytest.mark.parametrize("needs", sorted({claim.needs for claim in CLAIMS} | {"experiment=paper"}))
def test_experiment_has_the_cells_of_its_claims(needs: str) -> None:
    cells = [cell.names() for cell in ask("plan", [needs, "data=mnist"])]
    have = {(defense, threat, attack) for _, _, defense, _, threat, attack, _, _ in cells}
    models = {defense for defense, _, _ in have}
    defense = {role: name for name, role in reversed(published()["defenses"].items())}
    for claim in CLAIMS:
        if needs not in (claim.needs, "experiment=paper"):
            continue
        for of in (of for kind in claim.kinds for of in wanted(kind)):
            there = (
                defense[of.model] in models
                if of.attack == CLEAN
                else (defense[of.model], of.threat, of.attack) in have
            )
            assert there, f"{claim.id}: {needs} has no {of}"


def test_curves_and_orders_are_walked() -> None:
    """The walk above finds what claims are made of."""
    assert all(any(True for kind in claim.kinds for _ in wanted(kind)) for claim in CLAIMS)
