"""Alarms of several thresholds: each of them, and those of a model together."""

from __future__ import annotations

import pytest
import torch

from pdm_lightning.card.alarms import FAMILY, Trial, holm, judge_alarms
from pdm_lightning.card.card import Finding


def trial(flagged: int, name: str = "KDE", group: str = "ce at 5 %", tied: float = 0.0) -> Trial:
    told = {"flagged": flagged, "n": 1000, "allowed": 50, "m": 1000, "tied": tied}
    return Trial(f"ce, {name}", group, told)


def judged(*flagged: int) -> Finding:
    found = Finding()
    judge_alarms([trial(count, str(number)) for number, count in enumerate(flagged)], found)
    return found


def test_one_threshold_is_held_against_the_whole_family() -> None:
    assert judged(72).faults and not judged(70).faults  # p .049 and .073


def test_among_several_chance_has_more_room() -> None:
    """One of three that would fail alone, p .033, is no surprise; one at .0006 is."""
    assert judged(74).faults and not judged(74, 50, 52).faults
    (fault,) = judged(90, 50, 52).faults
    assert fault.startswith("ce, 0: 90 of 1000 clean test images are flagged, 2.")
    assert "2.8% to 7.9% (28 to 79) expected: freeze it" in fault


def test_what_is_accepted_is_told_as_a_rate() -> None:
    numbers = judged(52).numbers["ce, 0"]
    assert numbers["accepted"] == [numbers["low"] / 1000, numbers["high"] / 1000]
    assert numbers["rate"] == 0.052 and 0.5 < numbers["p"] <= 1


def test_after_the_worst_the_next_has_less_room_to_hide() -> None:
    """p .0006 and .0105 of three: the second is above a third of the level, not above half of it."""
    assert len(judged(90, 79, 52).faults) == 2 and not judged(79, 51, 52).faults


def test_all_detectors_of_a_model_a_little_off() -> None:
    """Ten at p .0051: none of them alone at .0025, all of them together; five in each direction as well."""
    found = judged(*[82] * 10)
    (fault,) = found.faults
    assert fault.startswith("ce at 5 %: 8.2% of the clean test images are flagged on average")
    assert found.numbers["ce at 5 %"]["p"] == pytest.approx(0.0101, abs=1e-4)
    assert not judged(*[82] * 3, *[52] * 7).faults
    apart = Finding()
    judge_alarms([trial(82, str(number), f"model {number}") for number in range(10)], apart)
    assert not apart.faults  # one detector a model is no group


def test_ties_count_for_either_side() -> None:
    assert trial(10).p < 1e-6 and trial(10, tied=0.1).p == 1.0
    assert trial(90, tied=0.1).p == trial(90).p


@pytest.mark.parametrize("detectors", [1, 3, 12])
def test_sound_studies_fail_as_seldom_as_promised(detectors: int) -> None:
    """Detectors whose scores have much in common, thresholds frozen on validation images: 5 of 100 at most."""
    generator, bad = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        common = torch.randn(1, 800, generator=generator)
        scores = common + 0.7 * torch.randn(detectors, 800, generator=generator)
        limits = scores[:, :400].sort(dim=1).values[:, 400 - 20 - 1]
        found = Finding()
        judge_alarms(
            [
                Trial(str(k), "m", {"flagged": int(count), "n": 400, "allowed": 20, "m": 400, "tied": 0.0})
                for k, count in enumerate((scores[:, 400:] > limits[:, None]).sum(dim=1))
            ],
            found,
        )
        bad += bool(found.faults)
    assert bad / 300 <= 0.05 + 0.02


def test_interval_and_p_value_agree() -> None:
    for flagged in range(20, 95):
        low, high = trial(flagged).accepted(FAMILY)
        assert (trial(flagged).p > FAMILY) == (low <= flagged <= high), flagged


def test_holm() -> None:
    told = holm([0.04, 0.001, 0.02], 0.05)
    assert [bad for bad, _ in told] == [True, True, True]
    assert [level for _, level in told] == pytest.approx([0.05, 0.05 / 3, 0.025])
    told = holm([0.03, 0.001, 0.026], 0.05)
    assert told == [(False, 0.025), (True, 0.05 / 3), (False, 0.025)] and holm([], 0.05) == []
