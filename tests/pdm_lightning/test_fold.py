"""The folded copy of a classifier computes what the classifier computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks import fold
from pdm_lightning.models import Classifier, ResNet


def trained_like(preact: bool, depth: int = 14) -> Classifier:
    """A classifier whose batch norms are far from the identity."""
    torch.manual_seed(0)
    classifier = Classifier(ResNet(depth, 3, preact=preact), 64, 10, readout="reverse")
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return classifier.double().eval()


@pytest.mark.parametrize("preact", [False, True])
def test_same_logits_and_gradients(preact: bool) -> None:
    classifier = trained_like(preact)
    folded = fold(classifier)
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    gradients, logits = [], []
    for model in (classifier, folded):
        images = x.clone().requires_grad_()
        logits.append(model(images))
        gradients.append(torch.autograd.grad(logits[-1].square().sum(), images)[0])
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


def test_the_original_stays_as_it_was() -> None:
    classifier = trained_like(False)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    folded = fold(classifier)
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_how_much_is_folded() -> None:
    norms = [
        sum(isinstance(m, nn.BatchNorm2d) for m in fold(trained_like(p)).modules()) for p in (False, True)
    ]
    # pre-activation: the norm before each block's first convolution, and the last one, have none before them
    assert norms == [0, 7]


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval mode"):
        fold(trained_like(False).train())
