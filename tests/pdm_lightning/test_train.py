"""Training in a folder: results, log, loggers, silence, errors."""

from __future__ import annotations

import csv
import json
import logging
import runpy
import signal
from pathlib import Path

import pytest
import torch

from pdm_lightning.data import load_data
from pdm_lightning.lit import TrainingDiverged
from pdm_lightning.stages.train import fit, load_classifier

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
tiny_data, tiny_spec, run, weights, equal = (
    TINY[name] for name in ("tiny_data", "tiny_spec", "run", "weights", "equal")
)


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


def test_digits_are_learned_through_the_reverse_readout(tmp_path):
    spec = tiny_spec(steps=60, batch_size=64, segment=60)
    spec["model"] |= {"widths": [8, 16, 32]}
    spec["defense"] |= {"use": ["rce"]}
    digits = load_data({"_target_": "pdm_lightning.data.sources.digits"})
    result = fit(digits, spec | {"augment": None}, tmp_path, device="cpu", progress=False)
    assert result["val_accuracy"] > 0.8


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
