"""What training and crafting will cost: counted by hand, measured once a model, and said before it is computed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pdm_lightning.cli import main
from pdm_lightning.data import load_data
from pdm_lightning.stages import engine, speed
from pdm_lightning.stages.build import build_classifier
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.cost import Cost, costs, steps_of, total
from pdm_lightning.study.plan import Plan, make_plan
from pdm_lightning.study.sizes import TORCHVISION, Sizes, sizes

SMALL = ("data=digits", "model=resnet8", "budget=smoke", "trainer=cpu", "trainer.threads=1")


def plan(folder: Path, *words: str) -> tuple[Plan, Context]:
    return make_plan(ask("plan", [*SMALL, f"paths.output={folder}", *words])), Context(
        Store(folder / "store")
    )


def crafting(found: dict[str, Cost]) -> list[Cost]:
    return [cost for cost in found.values() if cost.work == "crafting"]


def training(found: dict[str, Cost]) -> list[Cost]:
    return [cost for cost in found.values() if cost.work == "training"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is measured, and on how many images: 0.04 s a pass, 0.08 s a step."""
    calls: list[tuple[str, int]] = []

    def of_pass(ready: Any, x: torch.Tensor) -> float:
        calls.append(("pass", len(x)))
        return 0.04

    def of_step(classifier: Any, x: torch.Tensor) -> float:
        calls.append(("step", len(x)))
        return 0.08

    monkeypatch.setattr(speed, "pass_seconds", of_pass)
    monkeypatch.setattr(speed, "_step_seconds", of_step)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    return calls


def test_passes_by_hand(tmp_path: Path, measured: list) -> None:
    """Digits have 540 test images: fgsm is cheap and takes all 540, bim 20 steps on 30 of them."""
    made, context = plan(tmp_path, "attack=fgsm", "budget.images.cheap=null")
    (found,) = crafting(costs(made, context))
    assert found.passes == 540
    made, context = plan(tmp_path, "attack=bim", "attack.iterations=20", "budget.images.cheap=30")
    assert [c.passes for c in crafting(costs(made, context))] == [600]
    made, context = plan(tmp_path, "attack=cw_hc_matched", "budget.images.medium=7", "budget.images.heavy=7")
    (found,) = crafting(costs(made, context))
    iterations = next(n for n in made if n.kind == "craft").spec["attack"]["max_iterations"]
    assert found.passes == 7 * 9 * iterations
    assert [path.name for path in tmp_path.iterdir()] == ["passes"]  # what was measured, and nothing else


def test_images_of_a_training_by_hand(tmp_path: Path, measured: list) -> None:
    """Digits leave 1,000 training images: 7 batches of 128 are an epoch; pairs are two images each."""
    words = ["attack=none", "budget.train.batch_size=128", "budget.train.steps=null", "budget.train.epochs=3"]
    made, context = plan(tmp_path, *words, "defense=ce")
    assert [(c.passes, c.seconds) for c in training(costs(made, context))] == [
        (21 * 128, 21 * 128 * 0.08 / 64)
    ]
    made, context = plan(tmp_path, *words, "defense=pdm")
    assert [c.passes for c in training(costs(made, context))] == [21 * 256]
    made, context = plan(tmp_path, "attack=none", "budget.train.steps=5", "budget.train.batch_size=5000")
    assert [c.passes for c in training(costs(made, context))] == [5 * 2 * 1000]


@pytest.mark.parametrize("defense", ["ce", "pdm"])
@pytest.mark.parametrize(
    "train", [{"steps": 7}, {"steps": None, "epochs": 1.5}, {"steps": None, "epochs": 0.01}]
)
def test_steps_are_those_of_a_training(defense: str, train: dict, tmp_path: Path) -> None:
    """The count that is told is the one that the training makes."""
    from pdm_lightning.stages.begun import batches

    made, context = plan(tmp_path, "attack=none", f"defense={defense}")
    node = next(node for node in made if node.kind == "train")
    spec = node.spec | {"train": {"epochs": None, "batch_size": 96, **train}}
    data = context.data(node)
    module = batches(data, spec)
    steps, images = steps_of(spec, len(data.train[1]))
    assert steps == module.total_steps
    assert images == 96 * (2 if defense == "pdm" else 1)


def test_one_measurement_a_model_and_it_is_kept(tmp_path: Path, measured: list) -> None:
    """Seconds are passes times the measured time of a batch over its size."""
    words = ["-m", "defense=ce,rce", "attack=fgsm,bim", "budget.images.cheap=100", "craft.batch_size=50"]
    made, context = plan(tmp_path, *words)
    found = costs(made, context)
    assert sorted(measured) == [("pass", 50), ("step", 64)]
    told = sorted((c.passes, round(c.seconds, 9)) for c in crafting(found))
    assert told == [(100, 100 * 0.04 / 50)] * 2 + [(1000, 1000 * 0.04 / 50)] * 2
    assert all(c.seconds == pytest.approx(c.passes * 0.08 / 64) for c in training(found))
    again = costs(*plan(tmp_path, *words))
    assert again == found
    assert len(measured) == 2
    costs(*plan(tmp_path, "attack=fgsm", "budget.images.cheap=20", "craft.batch_size=50"))
    assert measured[2:] == [("pass", 20)]
    (tmp_path / "passes").rename(tmp_path / "elsewhere")
    costs(*plan(tmp_path, *words))
    assert len(measured) == 5


def test_what_crafting_has_measured_counts(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's choice is faster than the simplest way, and known: nothing is measured for passes any more."""
    monkeypatch.setattr(engine, "fastest", lambda classifier, x, tried, keep: (tried[-1], 0.0001))
    made, context = plan(tmp_path, "attack=fgsm", "budget.images.cheap=20")
    node = next(node for node in made if node.kind == "craft")
    classifier = build_classifier(node.parents["train"].spec, 10, 1)
    model, example = node.parents["train"].spec["model"], torch.rand(20, 1, 16, 16)
    engine.choose(tmp_path, classifier, model, example, node.runtime)
    (found,) = crafting(costs(made, context))
    assert found == Cost(20, pytest.approx(20 * 0.0001))
    assert [what for what, _ in measured] == ["step"]


def test_the_measured_passes_take_time_and_leave_no_trace(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    made, context = plan(tmp_path, "attack=fgsm", "budget.images.cheap=8")
    found = costs(made, context)
    assert [c.passes for c in crafting(found)] == [8]
    for cost in found.values():
        assert cost.seconds is not None
        assert math.isfinite(cost.seconds) and cost.seconds > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_damaged_measurement_is_made_anew(tmp_path: Path, measured: list) -> None:
    words = ["attack=none"]
    costs(*plan(tmp_path, *words))
    (path,) = (tmp_path / "passes").iterdir()
    path.write_text("{")
    costs(*plan(tmp_path, *words))
    assert len(measured) == 2
    assert json.loads(path.read_text())["seconds"] == 0.08 / 64


def test_sizes_are_those_of_the_data() -> None:
    """What is told without reading is what reading finds."""
    for changes in ({}, {"size": None, "channels": 3}, {"size": [8, 12], "val_size": 0.1}, {"val_size": 300}):
        config = ask("plan", ["data=digits"])[0].config["data"] | changes
        data = load_data(config)
        found = sizes(config, lambda _: pytest.fail("read"))
        assert found == Sizes(len(data.train[1]), len(data.test[1]), data.num_classes, data.shape)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_every_set_of_torchvision_has_sizes(name: str) -> None:
    config = ask("plan", [f"data={name}"])[0].config["data"]
    found = sizes(config, lambda _: pytest.fail("read"))
    assert found is not None
    assert found.train == TORCHVISION[name][0] - config["val_size"]


def test_unknown_without_data_and_never_a_download(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set whose sizes nobody knows before it is there."""
    import torchvision.datasets

    def download(self: Any) -> None:
        raise AssertionError("downloads")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    words = ["data=mnist", f"data.root={tmp_path}", "data.download=true", "attack=fgsm"]
    assert all(cost.seconds for cost in costs(*plan(tmp_path, *words)).values())
    monkeypatch.setattr("pdm_lightning.study.sizes.TORCHVISION", {})
    found = costs(*plan(tmp_path, *words))
    assert sorted(found.values(), key=str) == [Cost(None, None), Cost(None, None, "training")]


def test_an_attack_that_does_not_say(tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks import FGSM, Attack

    monkeypatch.delattr(FGSM, "max_passes")
    made, context = plan(tmp_path, "attack=fgsm")
    assert FGSM.max_passes is Attack.max_passes
    assert crafting(costs(made, context)) == [Cost(None, None)]
    made, context = plan(tmp_path, "attack=fgsm", "attack.loss=nonsense")
    assert crafting(costs(made, context)) == [Cost(None, None)]  # crafting says what is wrong


def test_words() -> None:
    assert total([]) == ""
    known = [Cost(1_000_000, 30.0), Cost(234, 60.0)]
    speed = "at the speed of the classifier alone as measured on this machine"
    expected = f"crafting: at most 1,000,234 passes of the classifier, 1.5 min {speed}"
    assert total(known) == expected
    assert total([*known, Cost()]) == f"{expected}, 1 of 3 unknown"
    assert total([Cost()]) == "crafting: 1 of 1 unknown"
    steps = [Cost(1000, 90.0, "training"), Cost(500, 90.0, "training")]
    passes = f"at most 1,500 images forward and backward, 3.0 min {speed}"
    assert total([*known, *steps]) == f"training: {passes}\n{expected}"


def test_plan_and_run_say_it(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where something is to be trained or crafted, and nothing where all of it is there."""
    monkeypatch.setattr(engine, "fastest", lambda classifier, x, tried, keep: (tried[0], 8.0 / len(x)))
    words = [*SMALL, f"paths.output={tmp_path}", "attack=bim_010", "budget.images.cheap=8"]
    words += ["budget.train.steps=4", "budget.train.segment=4", "evaluate.min_n=1", "evaluate.bootstrap=20"]
    alone = "at the speed of the classifier alone as measured on this machine"
    trained = f"training: at most 1,024 images forward and backward, 1.3 s {alone}"
    crafted = f"crafting: at most 80 passes of the classifier, 0.4 s {alone}"
    assert main(["plan", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert {trained, crafted} <= set(printed)
    craft, by_stage = [text for text in printed if text.split()[:1] == ["craft"]]
    assert craft.split()[2:6] == ["missing", "80", "0.4", "s"]
    assert by_stage.split() == ["craft", "1", "1", "80", "0.4", "s"]
    main(["run", *words])
    err = capsys.readouterr().err
    assert trained in err
    assert crafted in err
    assert main(["plan", *words]) == 0
    after = capsys.readouterr().out
    assert not {"crafting", "training", "passes", "time"} & set(after.replace(":", " ").split())
    main(["run", *words])
    assert "crafting" not in capsys.readouterr().err
