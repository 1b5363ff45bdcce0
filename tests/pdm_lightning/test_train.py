"""Training in a folder: results, resume after a kill, collapse, errors."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pdm_lightning.stages.folder as folder_module
import pdm_lightning.stages.train as train_module
from pdm_lightning.data import ImageData
from pdm_lightning.lit import TrainingDiverged
from pdm_lightning.stages.collapse import measure_collapse
from pdm_lightning.stages.train import Segments, fit, load_classifier

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_data() -> ImageData:
    """Three classes of noisy stripes, 8x8."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(n) % 3
        x = torch.randint(0, 120, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
        for i, label in enumerate(y.tolist()):
            x[i, :, label * 3 : label * 3 + 2] += 130
        return x, y

    return ImageData("stripes", split(50), split(15), split(15), ["a", "b", "c"])


def tiny_spec(**train) -> dict:
    term = {
        "rce": {"_target_": "pdm_lightning.losses.ReverseCrossEntropy", "weight": 1.0},
        "siamese": {"_target_": "pdm_lightning.losses.Siamese", "weight": 1.0, "norm": "l1"},
    }
    return {
        "data": {"name": "stripes"},
        "augment": {"crop": 1, "flip": True},
        "model": {"name": "tiny", "_target_": "pdm_lightning.models.ResNet", "depth": 8, "widths": [4, 4, 8]},
        "defense": {"use": ["rce", "siamese"], "readout": "reverse", "q": 0.5, "pairs": "auto", "term": term},
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": 0.01,
            "weight_decay": 0.01,
            "schedule": {"kind": "cosine"},
        },
        "train": {"steps": 22, "epochs": None, "batch_size": 16, "segment": 5, "log_every": 2} | train,
        "seed": 3,
    }


def run(folder: Path, spec: dict | None = None, **settings) -> dict:
    return fit(tiny_data(), spec or tiny_spec(), folder, device="cpu", progress=False, **settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def test_a_finished_folder_holds_weights_result_and_log_alone(undisturbed):
    assert sorted(p.name for p in undisturbed.iterdir()) == ["log.csv", "model.safetensors", "train.json"]
    result = json.loads((undisturbed / "train.json").read_text())
    assert result["steps"] == 22
    # 50 images in batches of 16: three steps an epoch; 22 steps of 16 pairs
    assert result["epochs"] == pytest.approx(22 / 3)
    assert result["images_seen"] == 22 * 32
    assert result["parameters"] == sum(p.numel() for p in weights_model(undisturbed).parameters())
    assert set(result["terms"]) == {"loss", "rce", "siamese", "accuracy", "rce_excess"}
    assert result["val_accuracy"] == result["terms"]["accuracy"] == result["history"][-1]["val/accuracy"]
    assert result["collapsed"] is False


def weights_model(folder: Path) -> torch.nn.Module:
    return load_classifier(tiny_spec(), folder, num_classes=3, in_channels=1)


def test_the_log_has_a_row_each_interval_and_validation_at_each_segment(undisturbed):
    rows = list(csv.DictReader((undisturbed / "log.csv").open()))
    train = [int(row["step"]) for row in rows if row["train/loss"]]
    validation = [int(row["step"]) for row in rows if row["val/loss"]]
    # the interval starts anew at each segment
    assert train == [2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22]
    assert validation == [5, 10, 15, 20, 22]
    assert all(float(row["lr"]) > 0 for row in rows if row["train/loss"])


def test_the_loaded_classifier_reaches_the_recorded_accuracy(undisturbed):
    model = weights_model(undisturbed)
    x, y = tiny_data().validation
    accuracy = (model.predict(x.float() / 255) == y).float().mean().item()
    assert accuracy == pytest.approx(json.loads((undisturbed / "train.json").read_text())["val_accuracy"])
    assert not model.training
    assert model.readout == "reverse"


def test_training_learns(undisturbed):
    result = json.loads((undisturbed / "train.json").read_text())
    assert result["history"][-1]["val/loss"] < result["history"][0]["val/loss"]
    assert result["val_accuracy"] > 0.6


def killed(folder: Path, step: int) -> None:
    """Train in a process of its own that is killed with SIGKILL in the middle of a step's end."""
    script = f"""
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("case", {str(__file__)!r})
case = importlib.util.module_from_spec(spec)
spec.loader.exec_module(case)
case.torch.set_num_threads(1)
def end(self, trainer, module, outputs, batch, batch_idx):
    if batch["step"] == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
case.Segments.on_train_batch_end = end
case.run(Path({str(folder)!r}))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, timeout=120, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_killed_process_resumes_to_exactly_the_same_weights(undisturbed, tmp_path, monkeypatch):
    killed(tmp_path, 13)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "log.csv"]
    steps: list[int] = []
    count = Segments.on_train_batch_end

    def counted(self, trainer, module, outputs, batch, batch_idx):
        steps.append(batch["step"])
        count(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Segments, "on_train_batch_end", counted)
    result = run(tmp_path)
    # steps 10 to 12 were lost with the process; those before lay in the checkpoint
    assert steps == list(range(10, 22))
    assert equal(weights(tmp_path), weights(undisturbed))
    assert (tmp_path / "log.csv").read_text() == (undisturbed / "log.csv").read_text()
    assert result["images_seen"] == 22 * 32
    assert not (tmp_path / "checkpoint").exists()


class Killed(BaseException):
    """Stands for a kill at one point."""


@pytest.mark.parametrize(
    "point", ["before a checkpoint is in place", "before any result", "before the clean-up"]
)
def test_a_stop_at_any_point_is_made_good(point, undisturbed, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        if point == "before a checkpoint is in place":
            places = iter(range(3))
            replace = os.replace

            def third(source, target):
                if Path(target).name == "last.ckpt" and next(places) == 2:
                    raise Killed
                replace(source, target)

            patch.setattr(train_module.os, "replace", third)
        elif point == "before any result":
            patch.setattr(folder_module, "save_file", stop)
        else:
            patch.setattr(folder_module.shutil, "rmtree", stop)
        with pytest.raises(Killed):
            run(tmp_path)
    result = run(tmp_path)
    assert equal(weights(tmp_path), weights(undisturbed))
    assert result["history"] == json.loads((undisturbed / "train.json").read_text())["history"]
    assert not (tmp_path / "checkpoint").exists()


def test_a_resume_keeps_to_the_segment_that_it_began_with(undisturbed, tmp_path):
    killed(tmp_path, 7)
    run(tmp_path, tiny_spec(segment=4))
    assert equal(weights(tmp_path), weights(undisturbed))


def test_the_segment_does_not_change_the_weights(undisturbed, tmp_path):
    run(tmp_path, tiny_spec(segment=22))
    assert equal(weights(tmp_path), weights(undisturbed))


def test_a_finished_folder_is_left_alone(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.iterdir()}
    again = run(undisturbed)
    assert again == json.loads((undisturbed / "train.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in undisturbed.iterdir()} == before


def test_a_folder_of_another_training_is_refused(undisturbed):
    with pytest.raises(ValueError, match="other settings of seed, train: use another folder"):
        run(undisturbed, tiny_spec(steps=9) | {"seed": 4})


def test_training_leaves_the_random_state_the_threads_and_the_signals_alone(tmp_path):
    torch.manual_seed(11)
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    level = logging.getLogger("pytorch_lightning").level
    run(tmp_path, tiny_spec(steps=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGINT) == handler
    assert logging.getLogger("pytorch_lightning").level == level


def test_an_interrupt_stays_one_and_can_be_resumed(undisturbed, tmp_path, monkeypatch):
    def interrupt(self, trainer, module, outputs, batch, batch_idx):
        if batch["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Segments, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert signal.getsignal(signal.SIGINT) == handler
    run(tmp_path)
    assert equal(weights(tmp_path), weights(undisturbed))


def test_epochs_are_turned_into_steps_and_a_seed_changes_the_weights(tmp_path):
    spec = tiny_spec(steps=None, epochs=1.5)
    result = run(tmp_path / "a", spec)
    # three steps an epoch; 4.5 rounds to even
    assert result["steps"] == 4
    run(tmp_path / "b", spec | {"seed": 4})
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_pairs_always_shows_every_defence_the_same_number_of_images(tmp_path):
    spec = tiny_spec(steps=2)
    spec["defense"] |= {"use": ["rce"], "pairs": "always"}
    assert run(tmp_path / "pairs", spec)["images_seen"] == 2 * 32
    spec["defense"] = spec["defense"] | {"pairs": "auto"}
    assert run(tmp_path / "single", spec)["images_seen"] == 2 * 16


def test_loggers_get_every_row(tmp_path):
    from pytorch_lightning.loggers import CSVLogger

    logger = CSVLogger(tmp_path / "logs")
    run(tmp_path / "run", tiny_spec(steps=5), loggers=[logger])
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    logged = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    own = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert logged == {int(row["step"]): float(row["train/loss"]) for row in own if row["train/loss"]}
    assert [row["val/accuracy"] for row in rows if row["val/accuracy"]]


def test_lightning_is_silent(tmp_path, capfd, caplog):
    run(tmp_path, tiny_spec(steps=2))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_divergence_ends_the_training_and_saves_no_result(tmp_path):
    spec = tiny_spec()
    spec["optimizer"] |= {"_target_": "torch.optim.SGD", "lr": 1e30}
    with pytest.raises(TrainingDiverged, match=r"became \S+ at step \d"):
        run(tmp_path, spec)
    assert not (tmp_path / "train.json").exists()


def test_a_collapse_warns_and_is_recorded(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(folder_module, "_embed", lambda model, images: torch.ones(len(images), 8))
    result = run(tmp_path, tiny_spec(steps=1))
    assert result["collapsed"] is True
    assert result["collapse"]["cosine"] == pytest.approx(1.0)
    assert "collapsed" in caplog.text


def test_collapse_numbers_by_hand():
    # class means (3,0) and (0,4); embeddings stand 1 from theirs
    z = torch.tensor([[2.0, 0], [4, 0], [0, 3], [0, 5]])
    found = measure_collapse(z, torch.tensor([1, 1, 4, 4]))
    assert found["cosine"] == pytest.approx(0)
    assert found["distance"] == found["distance_min"] == pytest.approx(5)
    assert found["spread"] == pytest.approx(1)
    assert found["collapsed"] is False
    near = measure_collapse(torch.tensor([[0.0, 0], [4, 0], [0, 1], [4, 1]]), torch.tensor([0, 0, 1, 1]))
    # means (2,0) and (2,1): 1 apart, spread 2
    assert (near["distance"], near["spread"], near["collapsed"]) == (1.0, 2.0, True)
    with pytest.raises(ValueError, match="two classes"):
        measure_collapse(z, torch.zeros(4).long())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"batch_size": 16}}, "train.steps or train.epochs"),
        ({"defense": {**tiny_spec()["defense"], "pairs": "never"}}, "auto or always"),
        ({"defense": {**tiny_spec()["defense"], "forward": "twice"}}, "concatenated or separate"),
    ],
)
def test_a_wrong_spec_is_a_value_error(change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(tmp_path, tiny_spec() | change)


def test_loading_from_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train the model first"):
        load_classifier(tiny_spec(), tmp_path, num_classes=3, in_channels=1)
