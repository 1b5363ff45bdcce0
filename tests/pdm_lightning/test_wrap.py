"""Any network as a classifier: where its embedding is found, and what stays as it was."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import prepare
from attacks.engine import Setup
from detection.features import tapped
from pdm_lightning.models import Classifier
from pdm_lightning.models.head import find_head
from tests.pdm_lightning.wrapped_networks import Functional, Heads, HuggingFaceLike, Scaled, images, small


def test_a_temperature_may_follow_the_head():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3), Scaled(0.01)).eval()
    assert find_head(net, images()) == "3"


def test_of_two_heads_the_one_that_leads_to_the_logits_counts():
    net = Heads(lambda main, aux: main).eval()
    model = Classifier.wrap(net)
    x = images()
    z, logits = model.embed_and_logits(x)
    assert model.found == "main"  # although the other one runs last
    assert torch.equal(F.linear(z, net.main.weight, net.main.bias), logits)
    assert find_head(Heads(lambda main, aux: aux).eval(), x) == "aux"


def test_two_heads_side_by_side_are_an_error_that_names_them():
    net = Heads(lambda main, aux: (main + aux) / 2).eval()
    with pytest.raises(
        ValueError, match=r"2 linear layers .*\(main, aux\): name .*embedding='NAME'.*body\.4"
    ):
        Classifier.wrap(net)(images())
    assert Classifier.wrap(net, "body").embed_and_logits(images())[0].shape == (4, 4)


def test_the_number_of_classes_is_the_output_of_the_last_layer_unless_a_pass_shows_another():
    assert Classifier.wrap(small()).num_classes == 3
    net = Heads(lambda main, aux: main, second=7).eval()
    with pytest.raises(ValueError, match="give num_classes=3"):
        Classifier.wrap(net)(images())
    assert Classifier.wrap(net, num_classes=3)(images()).shape == (4, 3)


def test_an_output_with_logits_is_taken():
    net, x = HuggingFaceLike().eval(), images()
    z, logits = Classifier.wrap(net).embed_and_logits(x)
    assert torch.equal(logits, net(x).logits)
    assert torch.equal(z, net.vit(x.flatten(1)).tanh())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Classifier.wrap(
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), num_classes=3
        ),
        lambda: Classifier.wrap(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten())),
        lambda: Classifier.wrap(Functional())(images()),
        lambda: Classifier.wrap(Functional(classes=2))(images(1)),
        lambda: Classifier.wrap(Heads(lambda main, aux: main * aux.sigmoid()))(images()),
        lambda: Classifier.wrap(small(), "4"),
        lambda: Classifier.wrap(small().half()),
        lambda: Classifier.wrap(small().bfloat16()),
        lambda: Classifier.wrap(small(), mean=[0.5, 0.5, 0.5])(images()),
        lambda: Classifier.wrap(Heads(lambda main, aux: (main, aux)))(images()),
        lambda: Classifier.wrap(Heads(lambda main, aux: main[:, :, None]))(images()),
    ],
)
def test_what_cannot_be_wrapped_is_a_value_error_of_one_line(wrong):
    with pytest.raises(ValueError, match=":") as error:
        wrong()
    assert "\n" not in str(error.value)


def test_finding_the_head_changes_nothing():
    net = Heads(lambda main, aux: main)
    net.body[1].eval()
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    assert find_head(net, images()) == "main"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [part.training for part in net.modules()] == modes
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_is_found_with_and_without_gradients_and_frozen_weights(mode):
    net = small(nn.LogSoftmax(dim=1)).requires_grad_(False)
    with mode():
        z, _ = Classifier.wrap(net).embed_and_logits(images())
    assert z.shape == (4, 8)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    classes=st.integers(2, 6),
    mean=st.floats(-1, 1),
    std=st.floats(0.1, 3),
    reverse=st.booleans(),
)
def test_logits_are_the_network_s_own_and_linear_in_the_embedding(widths, classes, mean, std, reverse):
    sizes = [16, *widths]
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
    net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes)).double()
    model = Classifier.wrap(net, readout="reverse" if reverse else "direct", mean=mean, std=std).double()
    x = images(3, side=4, dtype=torch.float64).requires_grad_()
    z, logits = model.embed_and_logits(x)
    sign = -1 if reverse else 1
    torch.testing.assert_close(logits, sign * net((x - mean) / std), rtol=1e-6, atol=1e-6)  # mean is float32
    torch.testing.assert_close(logits, sign * (z @ net[-1].weight.T + net[-1].bias))
    (gradient,) = torch.autograd.grad(z.sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("embedding", [None, "2"])
def test_a_network_in_float64_takes_images_in_float32(embedding):
    net, x = small().double(), images().requires_grad_()
    z, logits = Classifier.wrap(net, embedding, mean=0.5, std=0.5).embed_and_logits(x)
    torch.testing.assert_close(logits, net((x.double() - 0.5) / 0.5))
    assert z.dtype == logits.dtype == torch.float64
    assert torch.autograd.grad(logits.sum(), x)[0].dtype == torch.float32


def test_the_input_gradient_agrees_with_finite_differences():
    model = Classifier.wrap(small(), mean=0.4, std=0.3).double()
    x = images(1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(model.embed_and_logits, (x,))


def test_a_copy_before_and_after_the_first_pass_uses_its_own_weights():
    model = Classifier.wrap(small())
    early, x = copy.deepcopy(model), images()
    model(x)
    for twin in (early, copy.deepcopy(model)):
        with torch.no_grad():
            twin.module[1].weight.zero_()
            twin.module[1].bias.fill_(2.0)
        assert torch.equal(twin.embed_and_logits(x)[0], torch.full((4, 8), 2.0))


@pytest.mark.parametrize(
    "head",
    [nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)), nn.Identity()],
    ids=["deeper", "moved"],
)
def test_another_head_after_the_first_pass_is_found(head):
    net, x = small(), images()
    model = Classifier.wrap(net)
    model(x)
    net[3] = head
    if isinstance(head, nn.Identity):
        net.append(nn.Linear(8, 3))
    z, logits = model.embed_and_logits(x)
    last = net.get_submodule(model.found)
    assert isinstance(last, nn.Linear) and torch.equal(last(z), logits) and torch.equal(logits, net(x))


def test_its_state_is_the_network_s_and_goes_through_safetensors():
    torch.manual_seed(1)
    model, other = (
        Classifier.wrap(Heads(lambda main, aux: main)),
        Classifier.wrap(Heads(lambda main, aux: main)),
    )
    other.load_state_dict(
        load(save({name: value.contiguous() for name, value in model.state_dict().items()}))
    )
    assert set(model.state_dict()) == {f"module.{name}" for name in model.module.state_dict()}
    assert torch.equal(model.eval()(images()), other.eval()(images()))


def test_the_gradient_engine_folds_it_and_keeps_embeddings():
    torch.manual_seed(0)
    model = Classifier.wrap(Heads(lambda main, aux: main).eval()).eval()
    with torch.no_grad():
        model.module.body[1].running_mean.uniform_(-1, 1)
        model.module.body[1].running_var.uniform_(0.5, 2)
    x = images()
    ready = prepare(model, x, Setup(fold=True), keep=model.tapped)
    assert ready.setup.fold
    assert not any(isinstance(part, nn.BatchNorm2d) for part in ready.module.modules())
    for found, expected in zip(ready.module.embed_and_logits(x), model.embed_and_logits(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_its_layers_can_be_looked_at_by_name():
    model, x = Classifier.wrap(small()), images()
    with tapped(model, ["module.2"]) as caught:
        z, _ = model.embed_and_logits(x)
    assert torch.equal(caught["module.2"], z)


def test_dropout_works_in_training_alone():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    model, x = Classifier.wrap(net), images()
    z, logits = model.train().embed_and_logits(x)
    assert (z == 0).any()
    torch.testing.assert_close(net[3](z), logits)
    assert torch.equal(model.eval()(x), model(x))
    assert not (model.embed_and_logits(x)[0] == 0).any()


def test_a_named_layer_is_seen_before_an_activation_in_place_overwrites_it():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)).eval()
    z, _ = Classifier.wrap(net, "1").embed_and_logits(images())
    assert torch.equal(z, net[1](images().flatten(1)))


def test_negated_for_a_reverse_readout_the_network_s_own_output_is_the_readout():
    from pdm_lightning.models import WrappedClassifier

    net, x = small(), images()
    model = WrappedClassifier(net, readout="reverse", negate=True)
    raw = model.embed_and_raw(x)[1]
    assert torch.equal(model(x), net(x)) and torch.equal(raw, -net(x))
    assert torch.equal(model.predict(x), net(x).argmax(dim=1))
    assert model.speaks == "direct"
    assert WrappedClassifier(net, readout="reverse").speaks == "reverse"


def test_a_layer_over_positions_is_averaged_as_its_logits_are():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x[:, 0]).tanh()).mean(dim=1)  # rows of the image are tokens

    net, x = Tokens().eval(), images()
    z, logits = Classifier.wrap(net).embed_and_logits(x)
    assert z.shape == (4, 6)
    torch.testing.assert_close(net.head(z), logits)
