"""Parts of the measurements, without a study: a loss of pairs, a network's layers, which attacks have steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks import BIM
from pdm_lightning.losses import CombinedLoss, Siamese
from pdm_lightning.models import Classifier
from pdm_lightning.stages import layer_gradients, walk
from pdm_lightning.stages.measured import outputs_of, stages_of


def test_a_loss_of_pairs_counts_once_an_anchor() -> None:
    """|cos(a, b) - 0| of two images: its gradient at a is (b/|b| - cos a/|a|) / |a|, with the sign of cos."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Identity(), nn.Linear(3, 2))
    model = Classifier.wrap(network, "2", num_classes=2).eval()
    x = torch.rand(4, 1, 2, 2)
    loss = CombinedLoss({"siamese": Siamese()}, {"siamese": 1.0})
    found = layer_gradients._measure(model, loss, x, torch.tensor([0, 1, 1, 0]), torch.tensor([False, False]))
    z = (x.flatten(1) @ network[1].weight.T).detach().double()
    a, b = z[:2], z[2:]
    cos = F.cosine_similarity(a, b, dim=1)[:, None]
    slope = cos.sign() * (F.normalize(b, dim=1) - cos * F.normalize(a, dim=1)) / a.norm(dim=1, keepdim=True)
    assert found["train"]["embedding"].tolist() == pytest.approx(slope.norm(dim=1).tolist(), rel=1e-5)
    assert len(found["attack"]["input"]) == 2


def test_layers_of_any_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model = Classifier.wrap(network, "1", num_classes=2)
    assert stages_of(model) == {"0": "module.0", "1": "module.1", "2": "module.2", "3": "module.3"}
    shared = nn.ReLU()
    twice = nn.Sequential(shared, nn.Flatten(), shared)
    with outputs_of(twice, {"relu": "0", "flat": "1"}) as caught:
        twice(torch.rand(2, 1, 2, 2))
    assert list(caught) == ["flat"]  # which of its two outputs would be meant?


def test_only_an_attack_of_whole_batches_is_followed() -> None:
    """An attack that drops images on its way has no step of all of them."""

    class Dropping(BIM):
        def craft(self, task: Any) -> Any:
            task.logits(task.x[:1])
            return super().craft(task)

    model = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "0", num_classes=2)
    x, y, index = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), torch.arange(3)
    with pytest.raises(ValueError, match="Dropping does not take one gradient of all images a step"):
        walk._steps(Dropping(), model, x, y, index, 0)
    assert len(walk._steps(BIM(iterations=4), model, x, y, index, 0)) == 5
