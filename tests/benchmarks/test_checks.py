"""Every fault is found on an attack that is broken in just that way, and none on a right one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.checks import Fault, coupling_faults
from benchmarks.entries import Claim
from benchmarks.families import FAMILIES
from benchmarks.judge import judge, lead
from benchmarks.measure import Options, Row, measure

SMALLEST = FAMILIES["l2"]
BALL = replace(FAMILIES["fgsm"], eps=0.2)
SURE = replace(FAMILIES["cw5"], confidence=3.0)


def row(toys: Any, name: str, family: Any = SMALLEST, **options: Any) -> Row:
    quick = Options(rounds=1, **options)
    (found,) = measure(family, [toys.entry(getattr(toys, name))], toys.subject(), quick, lambda text: None)
    return found


def kinds(found: Row) -> set[str]:
    return {fault.kind for fault in found.faults}


@pytest.mark.parametrize("family", [SMALLEST, BALL, FAMILIES["cw"]])
def test_a_right_attack_has_no_fault(toys: Any, family: Any) -> None:
    found = row(toys, "shift", family)
    assert found.faults == []
    assert found.error == ""
    assert found.verdict is not None
    assert found.verdict.won.all()
    # mean .6 after a shift by .2: logits .8 and -.8
    assert found.verdict.lead.tolist() == pytest.approx([1.6] * 4, abs=1e-5)
    assert found.verdict.l2.tolist() == pytest.approx([0.8] * 4, abs=1e-6)
    assert found.verdict.linf.tolist() == pytest.approx([0.2] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "family", "kind", "won"),
    [
        ("unchanged", SMALLEST, "unchanged", 0),
        ("too_little", SMALLEST, "claim", 0),
        ("white", SMALLEST, "blank", 0),
        ("black", FAMILIES["jsma"], "blank", 0),
        ("outside", SMALLEST, "box", 0),
        ("shift", replace(BALL, eps=0.1), "budget", 0),
        ("broken", SMALLEST, "finite", 3),
        ("backwards", SMALLEST, "worse", 0),
        ("shift", SURE, "confidence", 0),
        ("coupled", SMALLEST, "coupled", 4),
        ("float32_alone", SMALLEST, "coupled", 4),
        ("leaving_gradients", SMALLEST, "gradients", 4),
        ("in_training_mode", SMALLEST, "mode", 4),
        ("thawed", SMALLEST, "frozen", 4),
        ("counting_batches", SMALLEST, "weights", 4),
    ],
)
def test_a_broken_attack_has_its_fault(toys: Any, name: str, family: Any, kind: str, won: int) -> None:
    found = row(toys, name, family)
    assert kinds(found) == {kind}
    assert found.verdict is not None
    assert int(found.verdict.won.sum()) == won


def test_the_text_counts(toys: Any) -> None:
    (fault,) = row(toys, "broken").faults
    assert fault.text == "1 of 4 with NaN or infinity"
    (fault,) = row(toys, "white").faults
    assert fault.text == "4 of 4 come back blank, 4 of them claimed as successes"
    (fault,) = row(toys, "coupled").faults
    assert "among 4" in fault.text
    assert "L2 0.76" in fault.text  # .19 on each of 16 pixels
    assert "0.64 alone, a pixel by 0.03" in fault.text  # .16


def test_gradients_are_found_with_frozen_parameters_too(toys: Any) -> None:
    """What a timed run with frozen parameters cannot show, the small run with trainable ones does."""
    assert kinds(row(toys, "leaving_gradients", trainable=False)) == {"gradients"}
    assert kinds(row(toys, "leaving_gradients", trainable=True)) == {"gradients"}
    assert kinds(row(toys, "leaving_gradients", trainable=False, alone=0)) == set()


def test_wrong_results_and_side_effects() -> None:
    assert Fault("claim", "").wrong_result
    assert Fault("coupled", "").wrong_result
    assert Fault("weights", "").wrong_result
    assert not any(Fault(kind, "").wrong_result for kind in ("gradients", "mode", "frozen"))


def test_a_search_that_rounding_alone_moves_is_not_called_coupled() -> None:
    """Chaotic: the last digits of the images decide. Its batches differ, and so does a rounded image alone."""

    def chaotic(x: torch.Tensor, y: torch.Tensor, goal: torch.Tensor | None) -> Claim:
        digits = (x[:, 0, 0, 0] * 2**50) % 1
        return Claim(x + 0.1 * (digits + 0.01 * len(x)).view(-1, 1, 1, 1) % 0.1)

    x = torch.linspace(0.1, 0.2, 4, dtype=torch.float64).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    assert coupling_faults(chaotic, x, torch.zeros(4).long(), None) == []


def test_an_error_becomes_a_row_without_a_path(toys: Any) -> None:
    entries = [toys.entry(toys.raising, "bad"), toys.entry(toys.shift, "good")]
    bad, good = measure(SMALLEST, entries, toys.subject(), Options(rounds=2), lambda text: None)
    assert bad.error == "RuntimeError: no file weights.bin"
    assert bad.seconds == []
    assert len(good.seconds) == 2


def test_images_of_another_shape_are_an_error(toys: Any) -> None:
    cut = toys.entry(lambda model, x, y: Claim(x[:2]))
    (found,) = measure(SMALLEST, [cut], toys.subject(), Options(rounds=1), lambda text: None)
    assert found.error == "ValueError: returned images of shape (2, 1, 4, 4), not (4, 1, 4, 4)"


def test_lead() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5]])
    assert lead(logits, torch.tensor([1]), None).item() == -1.5
    assert lead(logits, torch.tensor([0]), None).item() == 3
    assert lead(logits, torch.tensor([1]), torch.tensor([2])).item() == -1.5
    assert lead(logits, torch.tensor([0]), torch.tensor([1])).item() == 1.5


def test_without_a_claim_every_misclassified_image_counts_as_one(toys: Any) -> None:
    held = toys.subject()
    made = held.x.clone()
    made[:2] += 0.2
    verdict = judge(held.model, SMALLEST, held.x, held.y, None, Claim(made))
    assert verdict.claimed.tolist() == [True, True, False, False]
    assert verdict.unchanged.tolist() == [False, False, True, True]
