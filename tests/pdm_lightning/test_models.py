"""Networks: size, shape, initialisation; the classifier's readout; wrapped networks."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pdm_lightning.models import Classifier, ResNet
from pdm_lightning.stages.build import build_classifier

CONF = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(CONF.glob("resnet*.yaml"))


@pytest.mark.parametrize("preact", [False, True])
def test_resnet56_has_the_published_number_of_parameters(preact):
    model = Classifier(ResNet(56, 3, preact=preact), 64, 10)
    assert sum(p.numel() for p in model.parameters()) == 853_018
    assert model.embed_and_raw(torch.rand(2, 3, 32, 32))[0].shape == (2, 64)


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (2, 28, 28)])
def test_any_size_and_channel_count(preact, shape):
    z = ResNet(8, shape[0], preact=preact)(torch.rand(2, *shape))
    assert z.shape == (2, 64)


@pytest.mark.parametrize("preact", [False, True])
def test_depth_counts_the_layers_with_weights(preact):
    model = Classifier(ResNet(20, 1, preact=preact), 64, 10)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == 20


def test_stages_are_named_and_halve_the_image():
    net = ResNet(8, 3).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for name in net.stage_names:
        hook = lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape)})  # noqa: E731
        net.get_submodule(name).register_forward_hook(hook)
    net(torch.rand(1, 3, 32, 32))
    assert shapes == {
        "stem": (1, 16, 32, 32),
        "stage1": (1, 16, 32, 32),
        "stage2": (1, 32, 16, 16),
        "stage3": (1, 64, 8, 8),
    }


@pytest.mark.parametrize("preact", [False, True])
def test_a_block_of_zero_weights_is_its_parameter_free_shortcut(preact):
    net = ResNet(8, 4, widths=(4, 8, 8), preact=preact).eval()
    block = net.stage2[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 4, 8, 8)
    expected = torch.zeros(1, 8, 4, 4)
    expected[:, 2:6] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_the_shortcut_takes_every_second_pixel_and_keeps_the_layout_both_ways(size):
    block = ResNet(8, 3, (4, 8, 16)).stage2[0]
    x = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = block.shortcut(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 6:].any()
    assert out.is_contiguous(memory_format=torch.channels_last)
    up = torch.randn(out.shape).contiguous(memory_format=torch.channels_last)
    (slope,) = torch.autograd.grad(out, x, up)
    expected = torch.zeros_like(x)
    expected[:, :, ::2, ::2] = up[:, 2:6]
    assert torch.equal(slope, expected)
    assert slope.is_contiguous(memory_format=torch.channels_last)


def test_post_activation_ends_in_leaky_relu():
    block = ResNet(8, 4, widths=(4, 4, 4), leak=0.1).eval().stage1[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 4, 8, 8)
    assert torch.allclose(block(x), torch.where(x > 0, x, 0.1 * x))


def test_initial_weights_have_he_variance_for_the_leak():
    torch.manual_seed(0)
    weight = ResNet(8, 3, leak=0.1).stage3[0].conv2.weight
    assert weight.var().item() == pytest.approx(2 / (1 + 0.1**2) / (64 * 9), rel=0.03)


def test_the_input_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    model = Classifier(ResNet(8, 1, widths=(2, 2, 3)), 3, 2).double().eval()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,), fast_mode=True)


def test_reverse_readout_is_minus_the_raw_logits_everywhere():
    model = Classifier(ResNet(8, 1), 64, 5, readout="reverse").eval()
    x = torch.rand(4, 1, 8, 8)
    z, raw = model.embed_and_raw(x)
    z_again, logits = model.embed_and_logits(x)
    assert torch.equal(model(x), -raw)
    assert torch.equal(logits, -raw)
    assert torch.equal(z, z_again)
    assert torch.equal(model.predict(x), raw.argmin(dim=1))


def test_direct_readout_is_the_raw_logits():
    model = Classifier(ResNet(8, 1), 64, 5).eval()
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(model(x), model.embed_and_raw(x)[1])


def test_centring_stands_inside_and_outside_the_state():
    model = Classifier(nn.Flatten(), 8, 2, mean=[0.5, 0.0], std=[0.25, 2.0])
    x = torch.ones(1, 2, 2, 2)
    assert model.embed_and_raw(x)[0].tolist() == [[2.0] * 4 + [0.5] * 4]
    assert set(model.state_dict()) == {"head.weight", "head.bias"}


def foreign() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(16, 3))


def test_wrap_gives_the_named_layer_and_the_network_output():
    net = foreign()
    model = Classifier.wrap(net, "0.2", num_classes=3, readout="reverse")
    x = torch.rand(5, 1, 8, 8)
    z, logits = model.embed_and_logits(x)
    assert torch.equal(z, net[0](x).flatten(1))
    assert torch.equal(logits, -net(x))
    assert not net[0][2]._forward_hooks


def test_a_copy_of_a_wrapped_network_uses_its_own_weights():
    model = Classifier.wrap(foreign(), "0.2", num_classes=3)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(twin.embed_and_logits(torch.rand(2, 1, 8, 8))[0], torch.zeros(2, 16))


def test_wrapped_embeddings_carry_gradients_and_errors_leave_no_hook():
    model = Classifier.wrap(foreign(), "0.2", num_classes=3)
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    z, _ = model.embed_and_logits(x)
    assert torch.autograd.grad(z.sum(), x)[0].abs().sum() > 0
    with pytest.raises(RuntimeError):
        model(torch.rand(2, 7, 8, 8))
    assert not model.module[0][2]._forward_hooks


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ResNet(10, 1),
        lambda: ResNet(2, 1),
        lambda: ResNet(8, 1, widths=(16, 8, 64)),
        lambda: ResNet(8, 1, widths=(16, 32)),
        lambda: ResNet(8, 1)(torch.rand(1, 3, 8, 8)),
        lambda: ResNet(8, 1)(torch.rand(1, 1, 7, 8)),
        lambda: Classifier(nn.Flatten(), 4, 2, readout="raw"),
        lambda: Classifier(nn.Flatten(), 4, 1),
        lambda: Classifier(nn.Flatten(), 4, 2, std=0.0),
        lambda: Classifier.wrap(foreign(), "fc", num_classes=3),
        lambda: Classifier.wrap(foreign(), "2", num_classes=4)(torch.rand(1, 1, 8, 8)),
    ],
)
def test_wrong_input_is_a_value_error_of_one_line(wrong):
    with pytest.raises(ValueError, match=":") as error:
        wrong()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_config_builds_what_its_name_says(path):
    spec = yaml.safe_load(path.read_text())
    assert spec["name"] == path.stem
    model = build_classifier({"model": spec, "defense": {"readout": "reverse"}}, num_classes=7, in_channels=2)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) + 1 == spec["depth"]
    assert (model.num_classes, model.readout) == (7, "reverse")


def test_configs_share_their_keys():
    assert len({frozenset(yaml.safe_load(path.read_text())) for path in FILES}) == 1


def test_any_network_takes_the_place_of_a_resnet_by_config():
    model = {"_target_": "torchvision.models.resnet18", "embedding": "avgpool", "mean": 0.5, "std": 0.25}
    built = build_classifier({"model": model, "defense": {}}, num_classes=4, in_channels=3).eval()
    z, logits = built.embed_and_logits(torch.rand(2, 3, 32, 32))
    assert (z.shape, logits.shape) == ((2, 512), (2, 4))
    assert torch.allclose(built.module.fc(z), logits)


def test_a_backbone_without_an_embedding_is_refused():
    with pytest.raises(ValueError, match=r"model\.embedding"):
        build_classifier({"model": {"_target_": "torch.nn.Flatten"}, "defense": {}}, 4, 3)
