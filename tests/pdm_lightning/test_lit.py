"""The Lightning module: what it logs, how it steps, when it stops."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pdm_lightning.lit import PDMModule, TrainingDiverged
from pdm_lightning.losses import CombinedLoss, CrossEntropy, Outputs, ReverseCrossEntropy, Siamese
from pdm_lightning.models import Classifier, ResNet

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.0, "schedule": {"kind": "constant"}}


class Recorder:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict]] = []

    def log_metrics(self, row: dict, step: int) -> None:
        self.rows.append((step, row))


def linear(readout: str = "direct") -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Flatten(), 4, 3, readout=readout)


def module(classifier: Classifier, loss: CombinedLoss, **settings) -> PDMModule:
    made = PDMModule(classifier, loss, settings.pop("optimizer", SGD), 100, **settings)
    made._trainer = SimpleNamespace(loggers=[Recorder()], barebones=False, _fabric=None)
    made.log_dict = lambda *args, **kwargs: None
    made.configure_optimizers()
    return made


def batch(step: int, n: int = 4, pairs: bool = False) -> dict:
    rows = 2 * n if pairs else n
    torch.manual_seed(step)
    made = {"x": torch.rand(rows, 1, 2, 2), "y": torch.randint(0, 3, (rows,)), "step": step}
    return made | ({"same": torch.rand(n) < 0.5} if pairs else {})


def ce() -> CombinedLoss:
    return CombinedLoss({"ce": CrossEntropy()}, {"ce": 2.0})


def test_a_row_holds_the_means_of_its_steps():
    lit = module(linear(), ce(), log_every=3)
    losses = [lit.training_step(batch(step), step) for step in range(3)]
    (row,) = lit.history
    mean = torch.stack(losses).mean().item()
    assert (row["step"], row["images"], row["lr"]) == (3, 12, 0.1)
    assert row["train/loss"] == pytest.approx(mean, rel=1e-6)
    assert row["train/ce"] == pytest.approx(mean / 2, rel=1e-6)
    hits = [(lit.classifier.predict(batch(s)["x"]) == batch(s)["y"]).float().mean().item() for s in range(3)]
    assert row["train/accuracy"] == pytest.approx(sum(hits) / 3)
    assert lit.trainer.loggers[0].rows == [(3, row)]


def test_nothing_is_logged_between_rows_and_flush_closes_the_last():
    lit = module(linear(), ce(), log_every=10)
    lit.training_step(batch(0), 0)
    assert lit.history == []
    lit.flush()
    lit.flush()
    assert [row["step"] for row in lit.history] == [1]


def test_the_accuracy_follows_the_readout():
    lit = module(linear("reverse"), CombinedLoss({"rce": ReverseCrossEntropy()}, {"rce": 1.0}), log_every=1)
    lit.training_step(batch(0), 0)
    raw = lit.classifier.embed_and_raw(batch(0)["x"])[1]
    expected = (raw.argmin(dim=1) == batch(0)["y"]).float().mean().item()
    assert lit.history[0]["train/accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [False, True])
def test_the_excess_is_over_the_floor_of_every_branch(pairs):
    lit = module(linear("reverse"), CombinedLoss({"rce": ReverseCrossEntropy()}, {"rce": 1.0}), log_every=1)
    lit.training_step(batch(0, pairs=pairs), 0)
    row = lit.history[0]
    floor = math.log(2) * (2 if pairs else 1)
    assert row["train/rce_excess"] == pytest.approx(row["train/rce"] - floor)
    assert row["train/rce_excess"] > 0


def test_validation_weighs_batches_by_their_images_and_counts_anchors_alone():
    lit = module(linear(), ce())
    parts = [batch(0, 5, pairs=True), batch(1, 1, pairs=True)]
    for part in parts:
        lit.validation_step(part, 0)
    lit.on_validation_epoch_end()
    (row,) = lit.history
    values = []
    hits = 0
    for part in parts:
        n = len(part["same"])
        z, o = lit.classifier.embed_and_raw(part["x"])
        values.append(CrossEntropy()(Outputs(z, o, part["y"], part["same"])).item() * n)
        hits += (o[:n].argmax(1) == part["y"][:n]).sum().item()
    assert row["val/ce"] == pytest.approx(sum(values) / 6)
    assert row["val/accuracy"] == pytest.approx(hits / 6)
    lit.validation_step(parts[0], 0)
    lit.on_validation_epoch_end()
    assert lit.history[1]["val/ce"] == pytest.approx(values[0] / 5)


def test_the_learning_rate_is_a_function_of_the_step():
    spec = SGD | {"schedule": {"kind": "multistep", "milestones": [0.5], "gamma": 0.1}}
    lit = module(linear(), ce(), optimizer=spec, log_every=1)
    for step in (70, 10):
        lit.training_step(batch(step), 0)
    assert [row["lr"] for row in lit.history] == pytest.approx([0.01, 0.1])


def test_separate_and_concatenated_agree_but_for_batch_norm():
    loss = CombinedLoss({"ce": CrossEntropy(), "siamese": Siamese()}, {"ce": 1.0, "siamese": 1.0})
    whole, halves = (module(linear(), loss, forward=f) for f in ("concatenated", "separate"))
    one, two = (lit.training_step(batch(3, pairs=True), 0).item() for lit in (whole, halves))
    assert one == pytest.approx(two, rel=1e-6)
    torch.manual_seed(0)
    net = Classifier(ResNet(8, 1, widths=(2, 2, 4)), 4, 3)
    x = {"x": torch.rand(8, 1, 8, 8), "y": torch.arange(8) % 3, "same": torch.ones(4).bool(), "step": 0}
    one, two = (module(net, loss, forward=f).training_step(x, 0).item() for f in ("concatenated", "separate"))
    assert one != pytest.approx(two, rel=1e-4)


def test_dropout_depends_on_the_seed_and_the_step_alone():
    def step(seed: int, number: int) -> float:
        net = Classifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), 4, 3)
        nn.init.eye_(net.head.weight)
        lit = module(net, ce(), seed=seed)
        torch.rand(number + 1)
        return lit.training_step(batch(0) | {"step": number}, 0).item()

    assert step(0, 5) == step(0, 5)
    assert step(0, 5) != step(0, 6)
    assert step(0, 5) != step(1, 5)


def test_divergence_names_the_term_and_the_step():
    lit = module(linear(), ce(), log_every=4)
    for step in range(3):
        lit.training_step(batch(step), step)
    bad = batch(3)
    bad["x"][0] = math.nan
    with pytest.raises(TrainingDiverged, match=r"ce became nan at step 3: lower optimizer\.lr") as error:
        lit.training_step(bad, 3)
    assert "\n" not in str(error.value)


def test_divergence_inside_a_row_is_found_before_validation():
    lit = module(linear(), ce(), log_every=50)
    for step in range(3):
        made = batch(step)
        if step == 1:
            made["x"].fill_(math.inf)
        lit.training_step(made, step)
    with pytest.raises(TrainingDiverged, match="at step 1"):
        lit.on_validation_start()


def test_the_history_travels_in_the_checkpoint_as_plain_values():
    lit, other = (module(linear(), ce(), log_every=1) for _ in range(2))
    lit.training_step(batch(0), 0)
    checkpoint: dict = {}
    lit.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    assert other.history == lit.history
    assert other.images_seen == 4
    assert all(type(value) in (int, float) for value in lit.history[0].values())


@pytest.mark.parametrize("settings", [{"forward": "both"}, {"log_every": 0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=":"):
        PDMModule(linear(), ce(), SGD, 10, **settings)
