"""Which attacks a card adds to a study, and what the attacks' classes declare for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pdm_lightning.study.probes import variants
from pdm_lightning.threat import lengths, single_step

CONF = Path(__file__).parents[3] / "conf" / "attack"


def option(name: str) -> dict[str, Any]:
    found = dict(yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")))
    for other in found.pop("defaults", []):
        found = found if other == "_self_" else option(other) | found
    return found


def probes(attack: dict[str, Any], role: str, **more: Any) -> list[dict[str, Any]]:
    told: dict[str, Any] = {"option": {}, "capped": "", "watched": False} | more
    return [changed for name, changed in variants(attack, **told) if name == role]


#: What each attack's class declares: a single step, and its length.
DECLARED: dict[str, tuple[bool, dict[str, int]]] = {
    "fgsm_010": (True, {}),
    "none": (True, {}),
    "bim_010": (False, {"iterations": 10}),
    "cw_converged": (False, {"max_iterations": 1000}),
    "cw_wb": (False, {"stage1_iterations": 5000, "stage2_iterations": 10000}),
    "min_norm_l2": (False, {}),
    "min_norm_linf": (False, {}),
    "min_norm_wb": (False, {"iterations": 120}),
    "jsma": (False, {}),
    "selective_pgd": (False, {"iterations": 100}),
    "square": (False, {"queries": 1000}),
    "square_logits": (False, {"queries": 1000}),
    "apgd": (False, {"budget": 900, "options.max_iter": 100}),
    "hopskipjump": (False, {"budget": 5000, "options.max_iter": 50}),
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_an_attack_declares(name: str) -> None:
    pytest.importorskip("art") if name in ("apgd", "hopskipjump") else None
    attack = option(name)
    told, length = DECLARED[name]
    assert single_step(attack) is told
    assert set(lengths(attack)) == set(length)
    if name not in ("square", "square_logits"):
        assert lengths(attack) == length


def test_every_attack_of_the_project_is_iterated_or_says_that_it_is_not() -> None:
    single = {path.stem for path in CONF.glob("*.yaml") if single_step(option(path.stem))}
    assert single == {"fgsm", "fgsm_005", "fgsm_010", "none"}


class Steps:
    """An attack of somebody's own, which declares nothing; its length has a name of its own."""


def test_an_unknown_attack_counts_as_iterated() -> None:
    attack = {"_target_": f"{__name__}.Steps", "num_steps": 40, "eps": 0.1}
    assert not single_step(attack) and lengths(attack) == {}
    assert [changed["eps"] for changed in probes(attack, "wider")] == [0.05, 0.2]
    assert probes(attack, "doubled") == []


def test_one_iteration_is_a_single_step() -> None:
    assert single_step(option("bim") | {"iterations": 1}) and not single_step(option("bim"))


def test_all_of_a_length_is_doubled() -> None:
    (longer,) = probes(option("cw_wb"), "doubled")
    assert (longer["stage1_iterations"], longer["stage2_iterations"]) == (10000, 20000)
    attack = option("apgd")
    (longer,) = probes(attack, "doubled")
    assert (longer["budget"], longer["options"]["max_iter"]) == (1800, 200)
    assert attack["options"]["max_iter"] == 100


def test_an_attack_that_ends_by_a_default_is_not_doubled() -> None:
    """Without ``options.max_iter`` a larger budget alone would change nothing."""
    assert probes(option("apgd") | {"options": {}}, "doubled") == []


def test_restarts_are_doubled_on_their_own() -> None:
    attack = option("selective_pgd")
    longer, again = probes(attack, "doubled")
    assert longer == attack | {"iterations": 200} and again == attack | {"restarts": 6}


def test_what_is_lean_or_capped_is_not_doubled() -> None:
    for more in ({"option": {"lean": True}}, {"capped": "5 of 10 iterations"}):
        assert probes(option("bim"), "doubled", **more) == []
