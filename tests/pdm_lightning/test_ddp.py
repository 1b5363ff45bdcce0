"""Two devices train what one does: the same images, the same loss, the same weights up to rounding."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pdm_lightning.crew import Crew
from pdm_lightning.replicas import meeting_point
from pdm_lightning.seeding import derive
from pdm_lightning.stages.build import build_classifier
from pdm_lightning.stages.train import load_classifier

NAMES = [
    "norms",
    "norms separate",
    "norms sgd",
    "grouped",
    "grouped separate",
    "norms layers",
    "grouped layers separate",
    "distilled",
]


@pytest.fixture(scope="module")
def parts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("ddp_parts")


@pytest.fixture(scope="module")
def trained(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of all trainings, with one process and with two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    names = [*parts.SPECS, "resumed", "handed over", "again"]
    stores = {name: meeting_point() for name in names}
    with Crew("train") as crew:
        for rank in range(2):
            crew.start(parts.together, rank, {name: store.port for name, store in stores.items()}, two)
        for name in parts.SPECS:
            parts.train(name, one / name)
        list(crew)
    return one, two


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.mark.parametrize("name", NAMES)
def test_two_devices_reach_the_weights_of_one(name: str, trained: tuple[Path, Path], parts: Any) -> None:
    one, two = (weights(folder / name) for folder in trained)
    assert all(value.dtype == torch.float64 for key, value in one.items() if value.is_floating_point())
    assert furthest(one, two) < 1e-11
    begin = weights_before(parts, name)
    assert furthest(one, begin) > 1e-3
    if name.startswith("grouped"):
        assert torch.equal(two["module.unused.weight"], begin["module.unused.weight"])


def weights_before(parts: Any, name: str) -> dict[str, torch.Tensor]:
    spec = parts.SPECS[name]()
    with torch.random.fork_rng():
        torch.manual_seed(derive(spec["seed"], "init"))
        return build_classifier(spec, 3, 1).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_logged_is_that_of_the_whole_batch(name: str, trained: tuple[Path, Path]) -> None:
    """Losses without the factor, accuracies, validation: of six batches, the last of which is uneven."""
    logs = [list(csv.DictReader((folder / name / "log.csv").open())) for folder in trained]
    assert [list(row) for row in logs[0]] == [list(row) for row in logs[1]]
    assert len(logs[0]) == 6
    for mine, theirs in zip(*logs, strict=True):
        for key in mine:
            assert (mine[key] == "") == (theirs[key] == "")
            if mine[key]:
                assert float(theirs[key]) == pytest.approx(float(mine[key]), abs=1e-7)
    one, two = (json.loads((folder / name / "train.json").read_text()) for folder in trained)
    shared = ("steps", "epochs", "images_seen", "batch_size", "lr", "parameters", "spec", "collapsed")
    assert {key: one[key] for key in shared} == {key: two[key] for key in shared}
    assert one["val_accuracy"] == pytest.approx(two["val_accuracy"])
    told = ("devices", "batch_size", "batch_size_per_device", "lr")
    assert [one[key] for key in told] == [1, 8, 8, 0.01]
    assert [two[key] for key in told] == [2, 8, 4, 0.01]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_files_of_a_training_are_left(name: str, trained: tuple[Path, Path]) -> None:
    for folder in trained:
        assert sorted(path.name for path in (folder / name).iterdir()) == [
            "log.csv",
            "model.safetensors",
            "train.json",
        ]


def test_a_stopped_training_goes_on_to_the_very_weights_of_an_undisturbed_one(
    trained: tuple[Path, Path],
) -> None:
    whole, resumed = (weights(trained[1] / name) for name in ("norms", "resumed"))
    assert furthest(whole, resumed) == 0
    logs = [(trained[1] / name / "log.csv").read_text() for name in ("norms", "resumed")]
    assert logs[0] == logs[1]


def test_one_device_goes_on_where_two_stopped(trained: tuple[Path, Path], parts: Any) -> None:
    folder = trained[1] / "handed over"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "log.csv"]
    saved = torch.load(folder / "checkpoint" / "last.ckpt", weights_only=True)
    assert saved["pdm_fit"]["step"] == 3
    assert {name.removeprefix("classifier.") for name in saved["state_dict"]} == set(
        weights(trained[0] / "norms")
    )
    parts.train("norms", folder)
    assert furthest(weights(folder), weights(trained[0] / "norms")) < 1e-11
    assert json.loads((folder / "train.json").read_text())["devices"] == 1


def test_the_model_opens_without_any_process_group(trained: tuple[Path, Path], parts: Any) -> None:
    model = load_classifier(parts.SPECS["norms"](), trained[1] / "norms", num_classes=3, in_channels=1)
    assert {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__} == {"BatchNorm2d"}
    images, labels = parts.stripes().validation
    accuracy = (model.predict(images.float() / 255) == labels).double().mean().item()
    told = json.loads((trained[1] / "norms" / "train.json").read_text())["val_accuracy"]
    assert accuracy == pytest.approx(told)
