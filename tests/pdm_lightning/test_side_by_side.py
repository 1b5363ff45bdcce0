"""``pdml compare`` from the command line: real studies, committed results, and words that are wrong."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pdm_lightning import load
from pdm_lightning.cli import main
from pdm_lightning.completion import candidates
from pdm_lightning.report import read_csv
from pdm_lightning.study.sides import read_filter

ROOT = Path(__file__).parents[2]
MNIST = ROOT / "results" / "mnist_table2"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def output(tiny_study: Any, tmp_path: Path) -> Path:
    """A folder with the reports of the tiny study, whose store stays where it is."""
    shutil.copytree(tiny_study.output / "report", tmp_path / "outputs" / "report")
    (tmp_path / "outputs" / "store").symlink_to(tiny_study.output / "store")
    return tmp_path / "outputs"


def lines(output: Path, name: str) -> list[dict[str, str]]:
    with (output / "compare" / name / "compare.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys: Capture, *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("pdml: ") and told.err.count("\n") == 1
    return told.err


def test_two_defences_of_a_real_study(output: Path, capsys: Capture) -> None:
    assert main(["compare", "tiny:ce", "tiny:pdm", f"paths.output={output}"]) == 0
    printed = capsys.readouterr().out
    assert (
        "Accuracy, %" in printed
        and "by image" in printed
        and "Compared: defense ce (A) with pdm (B)." in printed
    )
    assert printed.splitlines()[-1] == f"Report: {output}/compare/tiny-ce-vs-tiny-pdm/index.html"
    found = lines(output, "tiny-ce-vs-tiny-pdm")
    rows = {
        (row.defense, row.attack, row.metric): row
        for row in read_csv(output / "report" / "tiny" / "results.csv")
    }
    assert {line["cell"] for line in found} == {"both"} and len(found) == len(rows) / 2
    by_name = {(line["attack"], line["metric"]): line for line in found}
    fooled = by_name["fgsm_010", "misclassified_rate"]
    a, b = (rows[defense, "fgsm_010", "misclassified_rate"] for defense in ("ce", "pdm"))
    assert (float(fooled["a"]), float(fooled["b"])) == (a.value, b.value)
    assert fooled["paired"] == "images"
    loaded = [load(row.artifact, str(output)) for row in (a, b)]
    hits = [dict(zip(one["index"].tolist(), one["fooled"].tolist(), strict=True)) for one in loaded]
    both = sorted(set(hits[0]) & set(hits[1]))
    gap = torch.tensor([float(hits[0][i]) - float(hits[1][i]) for i in both]).double().mean()
    assert int(fooled["n"]) == len(both) and float(fooled["difference"]) == pytest.approx(float(gap))
    assert {by_name["none", "accuracy"]["paired"], by_name["none", "dbi"]["paired"]} == {"images", "unpaired"}


def test_the_same_as_the_study_s_own_table_of_differences(tiny_study: Any, tmp_path: Path) -> None:
    output = tmp_path / "outputs"
    shutil.copytree(tiny_study.output, output)
    own = ("paths.output=", "report.tables=", "report.figures=")
    words = [word for word in tiny_study.words if not word.startswith(own)]
    words += [f"paths.output={output}", "report.tables=[differences]", "report.figures=[]"]
    assert main(["run", *words]) == 0
    assert main(["compare", "tiny:pdm", "tiny:ce", "--output", str(output)]) == 0
    told = {(row.attack, row.metric): row for row in read_csv(output / "report" / "tiny" / "results.csv")}
    found = {(line["attack"], line["metric"]): line for line in lines(output, "tiny-pdm-vs-tiny-ce")}
    for attack in ("fgsm_010", "bim_010"):
        line, row = found[attack, "joint_success@0.05"], told[attack, "joint_success_minus:ce@0.05"]
        assert [float(line[key]) for key in ("difference", "low", "high")] == [
            row.value,
            row.ci_low,
            row.ci_high,
        ]
        assert float(line["p"]) == told[attack, "p_joint_success_minus:ce@0.05"].value
        assert int(line["n"]) == row.n
    assert not any("minus" in metric for _, metric in found)


def test_chosen_attacks_and_metrics(output: Path, capsys: Capture) -> None:
    words = ["attack=bim_010", "metric=auc_all,misclassified_rate", "--output", str(output)]
    assert main(["compare", "tiny:pdm", "tiny:ce", *words]) == 0
    assert "Images fooled, %" in capsys.readouterr().out
    found = lines(output, "tiny-pdm-vs-tiny-ce")
    assert {(line["attack"], line["metric"]) for line in found} == {
        ("bim_010", "auc_all"),
        ("bim_010", "misclassified_rate"),
    }


def rewritten(source: Path, target: Path, change: Any) -> None:
    """A results.csv whose cells are changed, as another study would have them."""
    with source.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [change(dict(row)) for row in reader]
    target.parent.mkdir(parents=True)
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(reader.fieldnames or ()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row)


def test_two_studies_are_matched_by_defence_and_what_is_left_is_listed(output: Path, capsys: Capture) -> None:
    def other(row: dict[str, str]) -> dict[str, str]:
        if row["attack"] == "bim_010" and row["defense"] == "ce":
            return {}
        return row | {"budget": "cpu", "artifact": "0" * 16}

    rewritten(output / "report/tiny/results.csv", output / "report/later/results.csv", other)
    assert main(["compare", "tiny", "later", f"--output={output}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Compared: budget smoke[" in printed and "(A) with cpu (B)." in printed
    assert "unpaired: the artifact is not in the store, or damaged" in printed
    found = lines(output, "tiny-vs-later")
    alone = [line for line in found if line["cell"] == "only a"]
    assert {(line["attack"], line["defense"]) for line in alone} == {("bim_010", "ce")}
    assert f"{len(alone)} only in tiny" in printed
    both = [line for line in found if line["cell"] == "both"]
    assert {line["budget"].partition(" | ")[2] for line in both} == {"cpu"} and {
        line["defense"] for line in both
    } == {
        "ce",
        "pdm",
    }
    assert {float(line["difference"]) for line in both if line["difference"]} == {0.0}


def test_several_seeds_are_paired_seed_by_seed(output: Path) -> None:
    """Three seeds, of which B is lower by .1, .2 and .3."""
    source = output / "report" / "tiny" / "results.csv"
    for name, drop in (("a", 0.0), ("b", 0.1)):
        for seed in range(3):

            def seeded(
                row: dict[str, str], seed: int = seed, drop: float = drop, name: str = name
            ) -> dict[str, str]:
                if row["metric"] != "accuracy" or row["defense"] != "ce":
                    return {}
                value = f"{0.9 - drop * (seed + 1)}"
                return row | {"seed": str(seed), "artifact": "", "value": value, "budget": name}

            rewritten(source, output / f"part{name}{seed}/results.csv", seeded)
    for name in "ab":
        parts = [(output / f"part{name}{seed}/results.csv").read_text().splitlines() for seed in range(3)]
        (output / "report" / name).mkdir()
        text = [*parts[0], *parts[1][1:], *parts[2][1:]]
        (output / "report" / name / "results.csv").write_text("\n".join(text) + "\n")
    assert main(["compare", "a", "b", "--output", str(output)]) == 0
    (line,) = lines(output, "a-vs-b")
    # mean .2, sd .1: t = .2 / (.1 / sqrt 3) = 3.4641 with 2 degrees of freedom: p = .0742; 4.30265 x .057735 = .2484
    assert (line["paired"], line["n"], line["a_seeds"]) == ("seeds", "3", "3")
    assert float(line["difference"]) == pytest.approx(0.2) and float(line["p"]) == pytest.approx(
        0.0742, abs=1e-4
    )
    assert float(line["low"]) == pytest.approx(0.2 - 0.2484, abs=1e-4)


def test_committed_results_are_unpaired_and_say_so(tmp_path: Path, capsys: Capture) -> None:
    assert main(["compare", f"{MNIST}:ce", f"{MNIST}:pdm", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "unpaired: there is no store" in printed or "unpaired: the artifact is not in the store" in printed
    found = lines(tmp_path, "mnist_table2-ce-vs-mnist_table2-pdm")
    assert {line["paired"] for line in found} == {"unpaired"}
    (accuracy,) = [line for line in found if line["metric"] == "accuracy"]
    # .9914 [.98939, .99303] minus .9939 [.99217, .99525], each interval by itself
    assert float(accuracy["difference"]) == pytest.approx(0.9914 - 0.9939)
    assert float(accuracy["low"]) == pytest.approx(-0.0025 - (0.00201**2 + 0.00135**2) ** 0.5, abs=5e-5)
    page = (tmp_path / "compare" / "mnist_table2-ce-vs-mnist_table2-pdm" / "index.html").read_text()
    assert "unpaired" in page and "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_a_defence_that_was_changed_has_an_equals_sign(output: Path, capsys: Capture) -> None:
    changed = "pdm[term.rce.weight=9]"
    rewritten(
        output / "report/tiny/results.csv",
        output / "report/other/results.csv",
        lambda row: row | {"defense": row["defense"].replace("pdm", changed)},
    )
    words = ["other:ce", f"other:{changed}", f"defense={changed}", f"paths.output={output}"]
    assert "'other:ce' has nothing that passes defense=" in refused(capsys, *words)
    assert main(["compare", *words[:2], words[3]]) == 0
    assert f"Compared: defense ce (A) with {changed} (B)." in capsys.readouterr().out


def test_words_that_are_wrong(output: Path, capsys: Capture) -> None:
    here = f"paths.output={output}"
    assert "takes two studies, A and B, got 1" in refused(capsys, "tiny")
    assert "no study 'tinny': did you mean 'tiny'? (there are: " in refused(capsys, "tinny", "tiny", here)
    assert "no study 'x' (there are: none in" in refused(capsys, "x", "y", "--output", output / "nowhere")
    near = refused(capsys, "tiny", ROOT / "results" / "mnist_tabel2", here)
    assert f"did you mean '{MNIST}'?" in near
    assert "no defence 'pmd': did you mean 'pdm'? (it has ce, pdm)" in refused(
        capsys, "tiny:ce", "tiny:pmd", here
    )
    assert "names no defence after the colon" in refused(capsys, "tiny:", "tiny:pdm", here)
    assert "are the same" in refused(capsys, "tiny:ce", output / "report/tiny:ce", here)
    assert "hold the same results in all they have in common" in refused(capsys, "tiny", "tiny:ce", here)
    assert "unknown column 'atack': did you mean 'attack'?" in refused(
        capsys, "tiny:ce", "tiny:pdm", "atack=x", here
    )
    told = refused(capsys, "tiny:ce", "tiny:pdm", "attack=bim_01", here)
    assert "neither side has it: did you mean 'bim_010'?" in told
    assert "'tiny:pdm' has nothing that passes defense=ce" in refused(
        capsys, "tiny:ce", "tiny:pdm", "defense=ce", here
    )
    assert "names nothing" in refused(capsys, "tiny:ce", "tiny:pdm", "metric=", here)
    assert "--bogus; pdml compare --help explains" in refused(capsys, "tiny:ce", "tiny:pdm", "--bogus")
    assert "did you mean 'compare'?" in (main(["comapre"]), capsys.readouterr().err)[1]


def test_nothing_in_common(output: Path, capsys: Capture) -> None:
    rewritten(
        output / "report/tiny/results.csv",
        output / "report/other/results.csv",
        lambda row: row | {"defense": row["defense"] + "_2"},
    )
    told = refused(capsys, "tiny", "other", f"paths.output={output}")
    assert (
        "no cell in common: defense is ce, pdm in A and ce_2, pdm_2 in B: name cells that both have" in told
    )


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace(",ce,0,", ",ce,zero,", 1), "line 2: invalid literal"),
        (lambda text: text[: len(text) // 2].rsplit(",", 4)[0], "it has not 18 fields"),
        (lambda text: "a,b\n1,2\n", "has other columns than a results.csv"),
        (lambda text: text.splitlines()[0] + "\n", "holds no results"),
        (lambda text: text + text.splitlines()[1] + "\n", "holds a cell twice (digits resnet8"),
        (lambda text: text.replace(",ok,", ",fine,", 1), "status 'fine' is unknown"),
    ],
)
def test_damaged_results(output: Path, damage: Any, told: str, capsys: Capture) -> None:
    path = output / "report" / "tiny" / "results.csv"
    path.write_text(damage(path.read_text()))
    error = refused(capsys, "tiny:ce", "tiny:pdm", f"paths.output={output}")
    assert told in error and "results.csv" in error


def test_results_that_are_no_text_or_not_written_yet(output: Path, capsys: Capture) -> None:
    (output / "report" / "tiny" / "results.csv").write_bytes(b"\xff\xfe\x00")
    assert "is no text" in refused(capsys, "tiny:ce", "tiny:pdm", f"paths.output={output}")
    (output / "report" / "tiny" / "results.csv").unlink()
    assert "holds no results.csv: 'pdml run'" in refused(capsys, "tiny", "x", f"paths.output={output}")


def test_a_filter_s_list_keeps_brackets_together() -> None:
    assert read_filter("attack=fgsm[eps=0.1,steps=2],cw") == ("attack", ["fgsm[eps=0.1,steps=2]", "cw"])


def test_help(capsys: Capture) -> None:
    assert main(["compare", "--help"]) == 0
    assert "pdml compare quickstart:ce quickstart:pdm" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "pdml compare A B" in capsys.readouterr().out


def test_completion(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output.parent)
    assert candidates("pdml comp") == ["compare", "completion"]
    assert candidates("pdml compare t") == ["tiny"]
    assert candidates("pdml compare tiny:") == ["tiny:ce", "tiny:pdm"]
    assert candidates("pdml compare tiny:ce tiny:p") == ["tiny:pdm"]
    assert candidates("pdml compare tiny:ce tiny:pdm at") == ["attack="]
    assert candidates("pdml compare tiny:ce tiny:pdm attack=fgsm_010,") == [
        "attack=fgsm_010,none",
        "attack=fgsm_010,bim_010",
    ]
    assert candidates("pdml compare tiny:ce tiny:pdm metric=auc") == ["metric=auc", "metric=auc_all"]
    assert candidates("pdml compare out") == ["outputs/"]
    assert candidates("pdml compare --output out") == ["outputs/"]
    assert candidates("pdml compare --output elsewhere t") == []
    assert candidates("pdml compare nonsense:x tiny nonsense=") == []
    assert candidates("pdml compare --o") == ["--output"]
