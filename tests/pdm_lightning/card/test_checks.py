"""Each check on evidence made by hand: sound, broken in one respect, or not there."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pdm_lightning.card import CHECKS, card_table, judge, markdown, print_card
from pdm_lightning.card.claims import best_known
from pdm_lightning.card.compare import common, tolerable
from pdm_lightning.card.evidence import Evidence
from pdm_lightning.card.noise import auc

PARTS = runpy.run_path(str(Path(__file__).with_name("made_oddities.py")))
M, first, change, known_of, check, idle_white_box, BROKEN, SEEN_BY_OTHERS, HARMLESS, ABSENT = (
    PARTS[name]
    for name in (
        "M",
        "first",
        "change",
        "known_of",
        "check",
        "idle_white_box",
        "BROKEN",
        "SEEN_BY_OTHERS",
        "HARMLESS",
        "ABSENT",
    )
)


def test_sound_evidence_passes_all() -> None:
    card = judge(M.sound())
    assert {c.id: (c.verdict, c.says) for c in card.checks if c.verdict != "PASS"} == {}
    assert [c.id for c in card.checks] == list(CHECKS)
    assert [c.number for c in card.checks] == list(range(1, 13))
    assert card.failed == card.not_run == []


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    which, breaking, says = BROKEN[name]
    evidence = breaking(M.sound())
    found = check(evidence, which)
    assert found.verdict == "FAIL" and says in found.says and "\n" not in found.says
    failed = {c.id for c in judge(evidence).failed}
    assert which in failed and failed <= SEEN_BY_OTHERS.get(name, {which})


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_that_is_removed_finds_nothing(name: str) -> None:
    which, breaking, _ = BROKEN[name]
    left = {key: entry for key, entry in CHECKS.items() if key != which}
    card = judge(breaking(M.sound()), left)
    assert which not in {c.id for c in card.checks} and len(card.checks) == 11
    assert {c.id for c in card.failed} <= SEEN_BY_OTHERS.get(name, set()) - {which}
    assert [c.number for c in card.checks] == [n for n, key in enumerate(CHECKS, 1) if key != which]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str) -> None:
    which, changed = HARMLESS[name]
    found = check(changed(M.sound()), which)
    assert found.verdict == "PASS", found.says


@pytest.mark.parametrize("name", ABSENT)
def test_not_run(name: str) -> None:
    which, absent = ABSENT[name]
    found = check(absent(M.sound()), which)
    assert found.verdict == "NOT RUN" and found.says


@pytest.mark.parametrize("which", CHECKS)
def test_no_evidence_is_no_verdict(which: str) -> None:
    assert check(Evidence({}, [], []), which).verdict == "NOT RUN"


def test_what_pdml_check_does_not_help_is_said() -> None:
    evidence = M.without("bim wider")(M.sound())
    assert "pdml check runs what it needs" in check(evidence, "monotone").says
    assert "no attack of this study" in check(replace(evidence, probed=True), "monotone").says


def test_not_run_says_which() -> None:
    says = check(M.without("carried")(M.sound()), "threats").says
    assert "not compared: gray box >= black box;" in says


def test_a_fault_outweighs_what_is_missing() -> None:
    evidence = M.without("carried")(BROKEN["white box is weaker"][1](M.sound()))
    assert check(evidence, "threats").verdict == "FAIL"
    assert check(known_of(selftest={})(idle_white_box(M.sound())), "selftest").verdict == "FAIL"


def test_not_judged_is_told() -> None:
    card = {c.id: c for c in judge(M.sound()).checks}
    assert "fgsm: a single step may overshoot" in card["monotone"].not_judged
    assert "fgsm: no number of iterations to double" in card["converged"].not_judged
    assert "fgsm, hidden images: a single step" in card["selftest"].not_judged
    lean = change("bim", lean=True)(M.sound())
    assert "bim: declared lean" in check(lean, "converged").not_judged
    capped = change("bim", capped="5 of 40")(M.sound())
    assert "bim: capped (5 of 40)" in check(capped, "converged").not_judged
    assert any("KDE at 1 %: too few" in told for told in card["disjoint"].not_judged)


def test_an_iterated_attack_without_a_length_is_judged_but_not_doubled() -> None:
    evidence = M.add(M.run("apgd", M.APGD, 118, 110))(M.sound())
    assert "digits ce, gray_box, apgd against fgsm" in check(evidence, "iterated").says
    assert "apgd: no number of iterations to double" in check(evidence, "converged").not_judged


def test_hidden_images_that_say_nothing_are_told() -> None:
    none = PARTS["selftest"]("bim", "hidden", found=0, n=0)(M.sound())
    assert "bim, hidden images: none could be hidden" in check(none, "selftest").not_judged
    blind = PARTS["selftest"]("bim", "hidden", found=7, n=13)(M.sound())
    assert check(blind, "selftest").verdict == "FAIL"
    run = next(run for run in blind.study() if run.key == "bim")
    seeking = change("bim", attack=run.attack | {"_target_": "attacks.Mimicry"})(blind)
    found = check(seeking, "selftest")
    assert found.verdict == "PASS" and any("it seeks an embedding" in told for told in found.not_judged)


def test_a_white_box_that_is_lean_is_not_judged() -> None:
    evidence = change("selective", lean=True)(BROKEN["white box is weaker"][1](M.sound()))
    found = check(evidence, "threats")
    assert found.verdict == "NOT RUN" and "declared lean" in found.not_judged[0]


def test_the_same_attacks_under_two_names_compare_nothing() -> None:
    evidence = M.without("selective")(change("bim", also=frozenset({"white_box"}))(M.sound()))
    found = check(evidence, "threats")
    assert found.verdict == "NOT RUN" and "are those of who knows less" in found.not_judged[0]
    worst = check(evidence, "counts").numbers["worst case over all attacks"]["by_model_and_threat"]
    assert (worst["digits ce, white_box"], worst["digits ce, gray_box"]) == (0.9, 0.9)


def test_a_plain_attack_of_the_white_box_counts_there() -> None:
    """Without it the white box would be weaker than the gray one."""
    weak = BROKEN["white box is weaker"][1](M.sound())
    assert check(weak, "threats").verdict == "FAIL"
    assert check(change("bim", also=frozenset({"white_box"}))(weak), "threats").verdict == "PASS"


def test_numbers_of_the_threats() -> None:
    (white, black) = check(BROKEN["white box is weaker"][1](M.sound()), "threats").numbers.values()
    assert white == {"exceptions": 2, "n": 200, "more": 0.85, "less": 0.86, "more_with_all_attacks": 0.86}
    assert black["exceptions"] == 0 and black["less"] == 0.25


def test_numbers_of_the_noise() -> None:
    numbers = check(M.sound(), "noise").numbers["digits ce, gray_box, bim"]
    assert (numbers["noise"], numbers["attack"], numbers["n"]) == (0.02, 0.9, 200)
    assert numbers["auc"]["KDE"]["noise_against_clean"] == pytest.approx(0.5, abs=0.03)


def test_what_does_not_carry_over_is_not_held_against_noise() -> None:
    """One of 200 by a transferred attack, one of 200 by noise: the attack is weak there, not broken."""
    evidence = PARTS["facts"]("carried", noise={"fooled": 1, "n": 200})(
        change("carried", fooled=first(1))(M.sound())
    )
    found = check(evidence, "noise")
    assert found.verdict == "PASS" and "transfer, carried: it carries over to 1 of 200" in found.not_judged[0]
    assert found.says.startswith("3 comparisons") and len(found.numbers) == 4


def test_worst_case_image_by_image() -> None:
    other = M.run("other", M.FGSM | {"eps": 0.1}, 0, 0)
    other = replace(other, fooled=~first(190))
    numbers = check(M.add(other)(M.sound()), "counts").numbers
    worst = numbers["worst case over all attacks"]["by_model_and_threat"]
    assert worst["digits ce, gray_box"] == 0.95 and worst["digits ce, white_box"] == 0.85


def test_censored_distances_are_counted() -> None:
    assert check(M.sound(), "counts").numbers["distortions"] == {"told": 1, "censored": 1, "alone": 0}


def test_predictive_interval_is_exact() -> None:
    """The interval of the alarms covers sound thresholds as often as it says."""
    told = check(M.sound(), "disjoint").numbers["digits ce, KDE at 5 %"]
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4000, 2000, generator=generator)
    limit = scores[:, :1000].sort(dim=1).values[:, 1000 - 50 - 1]
    flagged = (scores[:, 1000:] > limit[:, None]).sum(dim=1)
    covered = float(((flagged >= told["low"]) & (flagged <= told["high"])).double().mean())
    assert 0.945 < covered < 0.97


def test_claim_counts_flagged_clean_images_as_lost() -> None:
    evidence = idle_white_box(M.sound())
    half = evidence.runs[2].watched["KDE"]
    half = replace(half, clean=torch.where(first(100), half.clean, half.clean + 2))
    numbers = check(change("selective", watched={"KDE": half})(evidence), "selftest").numbers
    (claim,) = [told for what, told in numbers.items() if "robust accuracy" in what]
    assert claim["claimed"] == 80 / 220 and claim["known"]["accuracy"] == 0.7528


def test_unknown_data_are_not_judged() -> None:
    found = check(known_of(data="digits")(idle_white_box(M.sound())), "selftest")
    assert found.verdict == "PASS" and "no robust accuracy is known" in " ".join(found.not_judged)
    # the claim stands among the numbers, and is no comparison
    assert any("robust accuracy" in what for what in found.numbers)
    assert found.says.startswith("2 comparisons, no fault")


def test_a_claim_that_cannot_be_judged_is_no_verdict() -> None:
    found = check(known_of(data="digits", selftest={})(idle_white_box(M.sound())), "selftest")
    assert found.verdict == "NOT RUN"
    alone = known_of(data="digits")(replace(M.sound(), runs=[M.run("bim", M.BIM, 180, 150)]))
    assert check(alone, "counts").numbers["worst case over all attacks"]


def test_best_known() -> None:
    assert best_known("cifar10", ("linf", 0.05)) is None
    for ball, accuracy in ((("linf", 16 / 255), 0.7528), (("l2", 1.0), 0.8728)):
        known = best_known("cifar10_jpeg", ball)
        assert known is not None and known["accuracy"] == accuracy and known["source"]


@pytest.mark.parametrize(
    ("exceptions", "n", "fine"),
    [
        (1, 60, True),
        (2, 60, False),
        (0, 0, True),
        (1, 100, False),
        (6, 700, True),
        (7, 700, False),
        (-5, 9, True),
    ],
)
def test_tolerance(exceptions: int, n: int, fine: bool) -> None:
    assert tolerable(exceptions, n) is fine


def test_images_are_matched_by_index() -> None:
    one, other = M.run("a", M.FGSM, 3, n=6), M.run("b", M.FGSM, 2, n=4)
    other = replace(other, index=torch.tensor([9, 5, 2, 0]))
    left, right = common(one, other)  # images 0, 2, 5
    assert left.tolist() == [True, True, False] and right.tolist() == [False, False, True]


def test_auc_counts_ties_half() -> None:
    assert auc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])) == 0.875
    assert auc(torch.tensor([0.0]), torch.tensor([])) is None
    assert auc(torch.tensor([0.0]), torch.tensor([float("nan")])) is None


def test_two_runs_of_one_name_are_both_told() -> None:
    again = replace(M.run("bim", M.BIM, 180, 150), key="again")
    numbers = check(M.add(again)(M.sound()), "noise").numbers
    assert {"digits ce, gray_box, bim", "digits ce, gray_box, bim (2)"} <= set(numbers)


def test_json() -> None:
    told = json.loads(json.dumps(judge(M.sound()).as_json(), allow_nan=False))
    keys = ["id", "number", "title", "verdict", "says", "numbers", "not_judged"]
    assert len(told) == 12 and all(list(entry) == keys for entry in told)


def test_a_further_check_is_numbered_after_the_others() -> None:
    title, look = CHECKS["noise"]
    (found,) = judge(M.sound(), {"mine": (title, look)}).checks
    assert found.number == 13


def test_rendering() -> None:
    card = judge(M.without("carried")(BROKEN["a failure"][1](M.sound())))
    console = Console(record=True, width=200)
    console.print(card_table(card))
    print_card(card, console, whole=False)
    shown = console.export_text()
    assert "1 computation failed: craft x" in shown and "NOT RUN" in shown
    assert "Evaluation card: 10 PASS, 1 FAIL, 1 NOT RUN; pdml check" in shown
    lines = markdown(card).splitlines()
    assert lines[0] == "10 PASS, 1 FAIL, 1 NOT RUN" and len(lines) == 16
    assert lines[14].startswith("| 11 | Every image is accounted for | **FAIL** | failures: 1 comp")
