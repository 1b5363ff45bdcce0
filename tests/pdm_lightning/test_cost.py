"""What crafting will cost: counted by hand, measured once a model, and said before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attacks import Setup
from pdm_lightning.cli import main
from pdm_lightning.stages import engine
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cost import Cost, costs, duration, total
from pdm_lightning.study.plan import Plan, make_plan

SMALL = ("data=digits", "model=resnet8", "budget=smoke", "trainer=cpu", "trainer.threads=1")


def plan(folder: Path, *words: str) -> tuple[Plan, Context]:
    return make_plan(ask("plan", [*SMALL, f"paths.output={folder}", *words])), Context(
        Store(folder / "store")
    )


def test_passes_by_hand(tmp_path: Path) -> None:
    """Digits have 540 test images: fgsm is cheap and takes all 540, bim 20 steps on 30 of them."""
    made, context = plan(tmp_path, "attack=fgsm", "budget.images.cheap=null")
    (found,) = costs(made, context).values()
    assert found.passes == 540
    made, context = plan(tmp_path, "attack=bim", "attack.iterations=20", "budget.images.cheap=30")
    assert [c.passes for c in costs(made, context).values()] == [600]
    made, context = plan(tmp_path, "attack=cw_hc_matched", "budget.images.medium=7", "budget.images.heavy=7")
    (found,) = costs(made, context).values()
    iterations = next(n for n in made if n.kind == "craft").spec["attack"]["max_iterations"]
    assert found.passes == 7 * 9 * iterations
    assert list(tmp_path.iterdir()) == []


def test_one_measurement_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are passes times the measured time of a batch over its size."""
    measured: list[tuple[int, ...]] = []

    def measure(classifier: torch.nn.Module, x: torch.Tensor, candidates: list[Setup], keep: tuple) -> Any:
        measured.append(tuple(x.shape))
        assert all(setup.fold for setup in candidates)
        return candidates[0], 0.04

    monkeypatch.setattr(engine, "fastest", measure)
    words = ["-m", "defense=ce,rce", "attack=fgsm,bim", "budget.images.cheap=100", "craft.batch_size=50"]
    made, context = plan(tmp_path, *words)
    found = costs(made, context)
    assert measured == [(50, 1, 16, 16)]
    assert sorted((c.passes, c.seconds) for c in found.values()) == [(100, 4.0)] * 2 + [(1000, 40.0)] * 2
    made, context = plan(tmp_path, "attack=fgsm", "budget.images.cheap=20", "craft.batch_size=50")
    costs(made, context)
    assert measured[1:] == [(20, 1, 16, 16)]


def test_the_measured_pass_takes_time_and_leaves_no_trace(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    made, context = plan(tmp_path, "attack=fgsm", "budget.images.cheap=8")
    (found,) = costs(made, context).values()
    assert found.passes == 8
    assert found.seconds is not None
    assert 0 < found.seconds < 60
    assert torch.equal(torch.get_rng_state(), state)


def test_unknown_without_data_and_never_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def download(self: Any) -> None:
        raise AssertionError("downloads")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    made, context = plan(tmp_path, "data=mnist", f"data.root={tmp_path}", "data.download=true", "attack=fgsm")
    assert list(costs(made, context).values()) == [Cost(None, None)]


def test_an_attack_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks import FGSM, Attack

    monkeypatch.delattr(FGSM, "max_passes")
    made, context = plan(tmp_path, "attack=fgsm")
    assert FGSM.max_passes is Attack.max_passes
    assert list(costs(made, context).values()) == [Cost(None, None)]
    made, context = plan(tmp_path, "attack=fgsm", "attack.loss=nonsense")
    assert list(costs(made, context).values()) == [Cost(None, None)]  # crafting says what is wrong


def test_words() -> None:
    assert [duration(s) for s in (0.04, 9.9, 12.4, 90, 5400)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "1.5 min",
        "1.5 h",
    ]
    assert total([]) == ""
    known = [Cost(1_000_000, 30.0), Cost(234, 60.0)]
    speed = "1.5 min at the measured speed of the classifier alone"
    expected = f"crafting: at most 1,000,234 passes of the classifier, {speed}"
    assert total(known) == expected
    assert total([*known, Cost()]) == f"{expected}, 1 of 3 unknown"
    assert total([Cost()]) == "crafting: 1 of 1 unknown"


def test_plan_and_run_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where something is to be crafted, and nothing where all of it is there."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(engine, "fastest", lambda classifier, x, tried, keep: (tried[0], 8.0 / len(x)))
    words = [*SMALL, f"paths.output={tmp_path}", "attack=bim_010", "budget.images.cheap=8"]
    words += ["budget.train.steps=4", "budget.train.segment=4", "evaluate.min_n=1", "evaluate.bootstrap=20"]
    line = (
        "crafting: at most 80 passes of the classifier, 1.3 min at the measured speed of the classifier alone"
    )
    assert main(["plan", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert line in [text.strip() for text in printed]
    (craft,) = [text for text in printed if text.split()[:1] == ["craft"]]
    assert craft.split()[-3:] == ["80", "1.3", "min"]
    main(["run", *words])
    assert line in capsys.readouterr().err
    assert main(["plan", *words]) == 0
    after = capsys.readouterr().out
    assert "crafting" not in after
    assert "passes" not in after
    main(["run", *words])
    assert "crafting" not in capsys.readouterr().err
