"""The verdicts on the page, in files and in a terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from pdm_lightning.claims import judge_claims, print_claims
from pdm_lightning.claims.render import ELSEWHERE, HOW, caveat, counted, latex, markdown
from pdm_lightning.report import Row, StudyResult, build_tables, write_report
from pdm_lightning.report.page import render_page
from tests.pdm_lightning.claims.worlds import narrow, right, study, wrong

HOSTILE = "<script>alert('x')</script>&_%|"
PAPER = study(right, narrow, ("mnist",))


def made(rows: list[Row], labels=None) -> StudyResult:
    return StudyResult(
        "s", "A study", rows=rows, labels=labels or {}, tables=[], claims=judge_claims(rows, labels)
    )


@pytest.fixture(scope="module")
def mixed() -> StudyResult:
    """Reproduced on MNIST, refuted on another data set, whose name is hostile; CIFAR-10 is not there."""
    other = [replace(row, data="other") for row in study(wrong, narrow, ("mnist",))]
    return made([*PAPER, *other], {"data": {"other": HOSTILE}})


def page(result: StudyResult) -> str:
    return render_page(result, build_tables(result))


def test_page_opens_with_the_claims(mixed: StudyResult) -> None:
    text = page(replace(mixed, notes=["A note."]))
    main = text[text.index("<main>") :]
    # after the notes, without which nobody should read numbers, and before all else
    assert main.index("A note.") < main.index('id="claims"') < main.index('id="made"')
    shown = re.findall(r'<li class="([a-z-]+)"><b>(\d+)</b><span>([a-z ]+)</span></li>', main)
    words = ["reproduced", "not reproduced", "undecided", "not measured"]
    assert [word for _, _, word in shown] == words * 2
    # the head counts the paper's own data alone; the others have a head of their own
    own, other = shown[:4], shown[4:]
    head = ", ".join(f"{number} {word}" for _, number, word in own)
    rest = ", ".join(f"{number} {word}" for _, number, word in other if number != "0")
    assert f"{head}; on other data: {rest}" == counted(mixed.claims)
    assert "0 not reproduced" in head and "0 reproduced" in ", ".join(f"{n} {w}" for _, n, w in other)
    assert main.index(ELSEWHERE) > main.rindex('<p class="place">mnist')
    # every claim stands there once, in words as in colour
    for (name, number, word), (_, more, _) in zip(own, other, strict=True):
        assert main.count(f'<span class="verdict {name}">{word}</span>') == int(number) + int(more)
    assert main.index("is no refutation of the paper" if "no refutation" in main else HOW[:30]) < main.index(
        "<h3>"
    )


def test_names_are_escaped_everywhere(mixed: StudyResult) -> None:
    assert HOSTILE in mixed.claims[0].as_json()["data"] + mixed.claims[1].as_json()["data"]
    assert "<script>alert" not in page(mixed) and "&lt;script&gt;alert" in page(mixed)
    assert "<script>alert" not in markdown(mixed)
    assert "\\&\\_\\%" in latex(mixed) and "&_%" not in latex(mixed)


def test_markdown_has_a_row_a_claim(mixed: StudyResult) -> None:
    lines = [
        line
        for line in markdown(mixed).splitlines()
        if line.startswith("| ") and not line.startswith("| Claim")
    ]
    assert len(lines) == len(mixed.claims)
    # a bar inside a cell is escaped: five cells each
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}


def test_latex_has_three_columns(mixed: StudyResult) -> None:
    body = latex(mixed).split("\\endhead")[1].split("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert len(rows) == len(mixed.claims)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {2}


def test_files(tmp_path, mixed: StudyResult) -> None:
    write_report(tmp_path, mixed)
    found = json.loads((tmp_path / "claims.json").read_text())
    assert [one["verdict"] for one in found] == [one.verdict for one in mixed.claims]
    assert (tmp_path / "claims.md").read_text() == markdown(mixed)
    assert (tmp_path / "claims.tex").read_text() == latex(mixed)


def test_a_study_without_claims_has_none(tmp_path) -> None:
    result = replace(made(PAPER), claims=[])
    write_report(tmp_path, result)
    assert not list(tmp_path.glob("claims*"))
    assert "claims" not in page(result)


def test_terminal_shows_counts_and_what_is_refuted(mixed: StudyResult) -> None:
    out = io.StringIO()
    print_claims(mixed, Console(file=out, width=200))
    shown = " ".join(out.getvalue().split())
    assert f"Claims of the paper: {counted(mixed.claims)}" in shown
    assert shown.count("which the paper did not try:") == counted_refuted(mixed)


def counted_refuted(result: StudyResult) -> int:
    return sum(one.verdict == "not reproduced" for one in result.claims)


def test_nothing_refuted_prints_one_line() -> None:
    out = io.StringIO()
    result = made(PAPER)
    print_claims(result, Console(file=out, width=200))
    assert out.getvalue() == f"Claims of the paper: {counted(result.claims)}; claims.md has them all\n"


def test_caveat_names_what_differs_from_the_paper() -> None:
    seeds = [replace(PAPER[0], seed=seed) for seed in (0, 1)]
    assert "refutation" not in caveat(seeds, {})
    other = [
        replace(row, model="resnet8", budget="cpu", note="capped: 9 of 10 test images; collapsed")
        for row in seeds
    ]
    text = caveat(other, {"model": {"resnet8": "ResNet-8"}})
    assert "no refutation of the paper at its full budget" in text
    assert "'reproduced' is no reproduction of the paper at its full budget" in text
    assert text.endswith(
        "Here: model ResNet-8 (the paper: ResNet-56); budget cpu (the paper: 80 epochs on MNIST, 400 on CIFAR-10); "
        "capped attacks; collapsed trainings."
    )
    assert "no refutation of the paper. Here: one seed" in caveat(PAPER[:1], {})
    assert "; one seed" not in text and "one seed" in caveat(other[:1], {})


def test_a_claim_on_several_data_sets_is_told_once(mixed: StudyResult) -> None:
    text = page(mixed)
    several = [one for one in mixed.claims if one.id == "black-box-best"]
    # once under each head
    assert len(several) == 2 and text.count("consistently and significantly better") == 2
    on_mnist = sum(one.data == "mnist" for one in mixed.claims)
    assert text.count('<p class="place">mnist, resnet56, budget paper</p>') == on_mnist
