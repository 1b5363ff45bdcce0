"""Weight decay's reach, the schedules' closed forms, and the optimizer configs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pdm_lightning.models import Classifier, ResNet
from pdm_lightning.optimization import lr_factor, make_optimizer, parameter_groups

FILES = sorted((Path(__file__).parents[2] / "conf" / "optimizer").glob("*.yaml"))


def test_decay_reaches_convolution_and_linear_weights_only():
    model = Classifier(ResNet(8, 1), 64, 10)
    model.head.bias.requires_grad_(False)
    decayed, others = parameter_groups(model, 0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.3
    assert others["weight_decay"] == 0.0
    assert all(
        ("conv" in n or n in ("head.weight", "backbone.stem.0.weight"))
        for n in map(names.get, map(id, decayed["params"]))
    )
    assert len(decayed["params"]) == 8
    # two of each of the 7 batch norms; the frozen bias is left out
    assert len(others["params"]) == 14


def test_decay_pulls_the_weight_and_not_the_bias():
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    spec = {"_target_": "torch.optim.SGD", "lr": 0.5, "weight_decay": 0.2, "momentum": 0.0, "schedule": {}}
    optimizer = make_optimizer(layer, spec)
    (0 * (layer.weight.sum() + layer.bias.sum())).backward()
    optimizer.step()
    assert layer.weight.item() == pytest.approx(1 - 0.5 * 0.2)
    assert layer.bias.item() == 1.0


def test_constant_with_warm_up():
    factor = lr_factor({"kind": "constant", "warmup": 0.2}, 20)
    assert [factor(s) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_multistep_drops_at_fractions_of_the_training():
    factor = lr_factor({"kind": "multistep", "milestones": [0.5, 0.75], "gamma": 0.1}, 8)
    assert [factor(s) for s in range(8)] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_falls_from_one_towards_zero():
    factor = lr_factor({"kind": "cosine", "warmup": 0.0, "milestones": [0.5]}, 100)
    assert factor(0) == 1.0
    assert factor(50) == pytest.approx(0.5)
    assert factor(99) == pytest.approx((1 + math.cos(0.99 * math.pi)) / 2)


@pytest.mark.parametrize(
    "schedule",
    [{"kind": "step"}, {"kind": "cosine", "warmup": 2}, {"kind": "multistep", "milestones": [300]}],
)
def test_wrong_schedules_are_refused(schedule):
    with pytest.raises(ValueError, match=r"optimizer\.schedule"):
        lr_factor(schedule, 10)


@pytest.mark.parametrize(
    "spec", [{"_target_": "torch.optim.Nothing"}, {}, {"_target_": "torch.optim.SGD", "lr": 0.1, "betas": 3}]
)
def test_wrong_optimizers_are_refused(spec):
    with pytest.raises(ValueError, match="optim"):
        make_optimizer(nn.Linear(1, 1), spec)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_config_builds_and_descends(path):
    spec = yaml.safe_load(path.read_text())
    assert spec["name"] == path.stem
    assert spec["schedule"].pop("milestones") == "${oc.select:data.milestones,[0.5,0.75]}"
    lr_factor(spec["schedule"] | {"milestones": [0.5]}, 10)
    layer = nn.Linear(3, 1)
    optimizer = make_optimizer(layer, spec)
    x, losses = torch.ones(4, 3), []
    for _ in range(5):
        loss = (layer(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize(
    ("asked", "fused"),
    [
        ({}, True),
        ({"fused": False}, False),
        ({"foreach": False}, True),
        ({"foreach": True}, None),
        ({"foreach": True, "fused": False}, False),
        ({"differentiable": True}, None),
    ],
)
def test_one_kernel_over_all_weights_unless_another_way_is_asked_for(name, asked, fused):
    layer = nn.Linear(2, 1)
    optimizer = make_optimizer(layer, {"_target_": f"torch.optim.{name}", "lr": 0.1, **asked})
    assert optimizer.defaults["fused"] is fused
    if not asked.get("differentiable"):
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()


def test_both_ways_at_once_are_refused_by_pytorch():
    spec = {"_target_": "torch.optim.SGD", "lr": 0.1, "foreach": True, "fused": True}
    with pytest.raises(RuntimeError, match="fused"):
        make_optimizer(nn.Linear(1, 1), spec)
