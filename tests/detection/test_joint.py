"""Classifier and detector judged together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detection import (
    MIN_ALARMS,
    Interval,
    detected,
    frozen_threshold,
    joint_hits,
    joint_success,
    proportion,
    robust_accuracy,
    threshold,
    tpr_at_fpr,
    worst_case,
)

FOOLED = torch.tensor([True, True, True, False])
SCORES = torch.tensor([1.0, 2.0, 3.0, 9.0])
CLEAN = torch.tensor([0.0, 3.0, 1.0, 2.0])


@dataclass(frozen=True)
class Attacked:
    """What an attack did to N images."""

    clean: Tensor
    fooled: Tensor
    scores: Tensor


@st.composite
def attacked(draw: st.DrawFn, min_size: int = 1) -> Attacked:
    """Draw scores with many ties, on either side of any threshold."""
    row = st.tuples(st.integers(-3, 3), st.booleans(), st.integers(-3, 3))
    clean, fooled, scores = zip(*draw(st.lists(row, min_size=min_size, max_size=40)), strict=True)
    return Attacked(
        torch.tensor(clean, dtype=torch.float64),
        torch.tensor(fooled),
        torch.tensor(scores, dtype=torch.float64),
    )


CUTS = st.integers(-4, 4).map(float)


def test_by_hand() -> None:
    # a score on the threshold raises no alarm
    assert joint_hits(FOOLED, SCORES, 2.0).tolist() == [True, True, False, False]
    assert joint_success(FOOLED, SCORES, 2.0) == proportion(2, 4)
    assert detected(FOOLED, SCORES, 2.0) == proportion(1, 3)
    # of five images tried: one misclassified when clean, one hit, one flagged when clean; two are left
    assert robust_accuracy(CLEAN, FOOLED, SCORES, 2.0, candidates=5) == proportion(2, 5)


def test_without_a_threshold_there_is_no_value() -> None:
    assert joint_success(FOOLED, SCORES, None) == Interval(None, None, None, 4)
    assert detected(FOOLED, SCORES, None) == Interval(None, None, None, 3)
    assert robust_accuracy(CLEAN, FOOLED, SCORES, None, 5) == Interval(None, None, None, 5)


def test_without_an_image_there_is_no_value() -> None:
    none = FOOLED[:0]
    assert joint_success(none, SCORES[:0], 2.0) == Interval(None, None, None, 0)
    assert detected(~FOOLED[:3], SCORES[:3], 2.0) == Interval(None, None, None, 0)
    assert robust_accuracy(CLEAN[:0], none, SCORES[:0], 2.0, 3) == proportion(0, 3)


def test_infinite_scores_are_compared() -> None:
    scores = torch.tensor([math.inf, -math.inf])
    assert joint_hits(torch.tensor([True, True]), scores, 0.0).tolist() == [False, True]


@given(attacked(), CUTS)
def test_joint_success_never_exceeds_either_part(rows: Attacked, cut: float) -> None:
    joint = joint_success(rows.fooled, rows.scores, cut)
    misclassified, unflagged = rows.fooled.double().mean(), (rows.scores <= cut).double().mean()
    assert joint.value <= misclassified + 1e-12 and joint.value <= unflagged + 1e-12
    # a detector that never speaks leaves the misclassified
    assert joint_success(rows.fooled, rows.scores, math.inf).value == pytest.approx(float(misclassified))


@given(attacked(), CUTS)
def test_fooled_images_are_hits_or_detected(rows: Attacked, cut: float) -> None:
    joint, found = joint_success(rows.fooled, rows.scores, cut), detected(rows.fooled, rows.scores, cut)
    caught = 0.0 if found.value is None else found.value
    assert joint.value * joint.n == pytest.approx((1 - caught) * found.n)


@given(attacked(), attacked(), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_higher_false_positive_rate_helps_the_detector(
    rows: Attacked, clean: Attacked, one: float, other: float
) -> None:
    strict, lax = (threshold(clean.scores, fpr) for fpr in sorted((one, other)))
    assert not (
        joint_hits(rows.fooled, rows.scores, lax) & ~joint_hits(rows.fooled, rows.scores, strict)
    ).any()
    if rows.fooled.any():
        assert (
            detected(rows.fooled, rows.scores, strict).value <= detected(rows.fooled, rows.scores, lax).value
        )


@given(attacked(), st.integers(0, 10), CUTS)
def test_robust_accuracy_never_exceeds_its_parts(rows: Attacked, misclassified: int, cut: float) -> None:
    n, candidates = len(rows.fooled), len(rows.fooled) + misclassified
    robust = robust_accuracy(rows.clean, rows.fooled, rows.scores, cut, candidates)
    accepted, joint = int((rows.clean <= cut).sum()), joint_success(rows.fooled, rows.scores, cut)
    survived = n * (1 - joint.value)
    assert robust.n == candidates
    assert robust.value * candidates <= min(accepted, survived) + 1e-9
    # an image is lost to the alarm or to the attack, and to both at most once
    assert robust.value * candidates >= accepted + survived - n - 1e-9
    plain = robust_accuracy(rows.clean, rows.fooled, rows.scores, math.inf, candidates)
    assert plain == proportion(int((~rows.fooled).sum()), candidates)


def test_detected_is_the_true_positive_rate_of_frozen_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, adv = torch.randn(300, generator=generator), torch.randn(80, generator=generator) + 1
    cut = frozen_threshold(clean, 0.05)
    assert detected(torch.ones(80, dtype=torch.bool), adv, cut).value == tpr_at_fpr(clean, adv, 0.05)


@pytest.mark.parametrize(("fpr", "needed"), [(0.01, 1000), (0.05, 200), (0.07, 143), (0.1, 100), (0.29, 35)])
def test_a_threshold_needs_ten_false_alarms(fpr: float, needed: int) -> None:
    scores = torch.arange(float(needed))
    assert frozen_threshold(scores[1:], fpr) is None
    cut = frozen_threshold(scores, fpr)
    assert cut == threshold(scores, fpr)
    assert int((scores > cut).sum()) == MIN_ALARMS == 10


@given(st.integers(1, 999), st.integers(0, 4000))
def test_a_threshold_is_refused_exactly_below_ten_false_alarms(per_mille: int, n: int) -> None:
    known = frozen_threshold(torch.zeros(n), per_mille / 1000)
    assert (known is None) == (n * Fraction(per_mille, 1000) < 10)


def test_rounding_costs_no_threshold() -> None:
    assert 77 * (10 / 77) < 10  # what plain arithmetic makes of it
    assert frozen_threshold(torch.zeros(77), 10 / 77) == 0


def test_no_alarm_at_all_cannot_be_known() -> None:
    assert frozen_threshold(torch.zeros(10_000), 0.0) is None


@st.composite
def campaigns(draw: st.DrawFn) -> list[dict[int, bool]]:
    """Draw up to four attacks, each a map from image to success."""
    return draw(st.lists(st.dictionaries(st.integers(0, 12), st.booleans()), min_size=1, max_size=4))


def columns(attack: dict[int, bool]) -> tuple[Tensor, Tensor]:
    return torch.tensor(list(attack), dtype=torch.int64), torch.tensor(
        list(attack.values()), dtype=torch.bool
    )


@given(campaigns())
def test_worst_case_is_the_union_on_common_images(attacks: list[dict[int, bool]]) -> None:
    index, hit = worst_case(*zip(*map(columns, attacks), strict=True))
    common = sorted(set.intersection(*(set(a) for a in attacks)))
    assert index.tolist() == common
    assert hit.tolist() == [any(a[i] for a in attacks) for i in common]
    for attack in attacks:
        assert int(hit.sum()) >= sum(attack[i] for i in common)  # no attack does more harm than all of them


@given(campaigns(), st.randoms())
def test_worst_case_knows_no_order(attacks: list[dict[int, bool]], random: Random) -> None:
    first = worst_case(*zip(*map(columns, attacks), strict=True))
    shuffled = [dict(random.sample(list(a.items()), len(a))) for a in random.sample(attacks, len(attacks))]
    second = worst_case(*zip(*map(columns, shuffled), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@given(attacked(), st.integers(0, 2**31), CUTS)
def test_worst_case_is_no_better_for_the_defence_than_any_attack(
    rows: Attacked, seed: int, cut: float
) -> None:
    n, generator = len(rows.fooled), torch.Generator().manual_seed(seed)
    second = torch.rand(n, generator=generator) < 0.5
    index = torch.arange(n)
    _, hit = worst_case([index, index], [joint_hits(f, rows.scores, cut) for f in (rows.fooled, second)])
    # a hit raised no alarm, whatever its score was
    silent = torch.full_like(rows.scores, -math.inf)
    worst = robust_accuracy(rows.clean, hit, silent, cut, n).value
    for fooled in (rows.fooled, second):
        assert worst <= robust_accuracy(rows.clean, fooled, rows.scores, cut, n).value
        assert joint_success(hit, silent, cut).value >= joint_success(fooled, rows.scores, cut).value


def test_misuse_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="bool mask"):
        joint_success(FOOLED.long(), SCORES, 2.0)
    with pytest.raises(ValueError, match=r"one value per image, got \(3,\) and \(4,\)"):
        detected(FOOLED, SCORES[1:], None)
    with pytest.raises(ValueError, match=r"one value per image, got \(2,\) and \(4,\)"):
        robust_accuracy(CLEAN[2:], FOOLED, SCORES, 2.0, 5)
    with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
        joint_hits(FOOLED, torch.tensor([1.0, math.nan, 0.0, 0.0]), 2.0)
    with pytest.raises(ValueError, match="4 images were attacked out of 3 candidates"):
        robust_accuracy(CLEAN, FOOLED, SCORES, 2.0, 3)
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match="false-positive rate"):
            frozen_threshold(SCORES, wrong)
    with pytest.raises(ValueError, match="finite ones only"):
        frozen_threshold(torch.full((200,), math.nan), 0.05)


def test_worst_case_refuses_what_does_not_belong_together() -> None:
    index, hit = torch.arange(4), FOOLED
    with pytest.raises(ValueError, match="per attack, got 0 and 0"):
        worst_case([], [])
    with pytest.raises(ValueError, match="per attack, got 2 and 1"):
        worst_case([index, index], [hit])
    with pytest.raises(ValueError, match="same image twice"):
        worst_case([torch.tensor([0, 1, 1, 2])], [hit])
    with pytest.raises(ValueError, match="one value per image"):
        worst_case([index[1:]], [hit])
    with pytest.raises(ValueError, match="bool mask"):
        worst_case([index], [hit.long()])
