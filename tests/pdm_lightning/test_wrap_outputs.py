"""What a wrapped network's outputs are: logits, probabilities or their logarithms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pdm_lightning.models import Classifier
from tests.pdm_lightning.wrapped_networks import As, Logarithm, Scaled, images, small


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ((), True),
        ((Scaled(2.0),), False),
        ((nn.ReLU(inplace=True),), False),
    ],
)
def test_the_embedding_is_what_goes_into_the_head_whatever_follows_it(after, same):
    net, x = small(*after), images()
    z, logits = Classifier.wrap(net).embed_and_logits(x)
    assert torch.equal(z, net[2](net[1](x.flatten(1))))
    assert torch.equal(logits, net(x))
    assert torch.equal(F.linear(z, net[3].weight, net[3].bias), logits) == same


@pytest.mark.parametrize(
    "after", [(nn.Softmax(dim=1),), (nn.LogSoftmax(dim=1),), (nn.Softmax(1), Logarithm())]
)
def test_of_a_network_that_ends_with_a_softmax_the_head_gives_the_logits(after):
    net, x = small(*after), images()
    bare, model = net[:4], Classifier.wrap(net)
    z, logits = model.embed_and_logits(x)
    assert torch.equal(z, bare[:3](x)) and torch.equal(logits, bare(x))
    torch.testing.assert_close(logits.log_softmax(dim=1), bare(x).log_softmax(dim=1))


@pytest.mark.parametrize(
    ("net", "embedding"),
    [
        (lambda: small(nn.Softmax(dim=1)), "2"),
        (lambda: small(Scaled(0.5), nn.Softmax(dim=1)), None),
        (lambda: small(Scaled(0.98), nn.Softmax(dim=1)), None),
        (lambda: small(nn.Softmax(dim=1)).double(), "2"),
    ],
    ids=["named", "temperature", "slight", "float64"],
)
def test_where_no_head_gives_them_the_logarithm_of_probabilities_does(net, embedding):
    net, x = net(), images()
    net[3].bias.data[0] = 500.0  # the others' probabilities are rounded to 0
    model = Classifier.wrap(net, embedding)
    x.requires_grad_()
    logits = model(x)
    assert torch.equal(model.predict(x), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(logits.softmax(dim=1), net(x.to(logits.dtype)))
    assert torch.isfinite(torch.autograd.grad(logits.sum(), x)[0]).all()


def test_outputs_that_sum_to_one_on_the_first_images_alone_are_no_probabilities():
    net = small(nn.Sigmoid())
    with torch.no_grad():
        net[3].weight.mul_(1e4)
        net[3].bias.copy_(torch.tensor([60.0, -60, -60]) - net[3].weight @ net[:3](images(1))[0])
    x = images(1)
    torch.testing.assert_close(net(x), torch.tensor([[1.0, 0, 0]]))
    assert torch.equal(Classifier.wrap(net)(x), net(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_few_digits_are_recognised(dtype):
    net = small(nn.Softmax(dim=1), As(dtype))
    assert torch.equal(Classifier.wrap(net)(images()), net[:4](images()))


def test_log_probabilities_without_a_head_stay_as_they_are():
    net, x = small(nn.LogSoftmax(dim=1)), images()
    assert torch.equal(Classifier.wrap(net, "2")(x), net(x))
