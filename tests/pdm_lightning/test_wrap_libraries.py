"""Networks of torchvision and timm: the embedding that is found is the documented layer before the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from attacks import prepare
from attacks.engine import Setup
from pdm_lightning.models import Classifier, timm_network, torchvision_network
from pdm_lightning.models.library import default_weights


def pooled(net: nn.Module, x: Tensor) -> Tensor:
    return net.avgpool(net.features(x)).flatten(1)


# what each network's own `forward` does up to its last layer
PENULTIMATE = {
    "resnet18": lambda net, x: nn.Sequential(*list(net.children())[:-1])(x).flatten(1),
    "mobilenet_v3_small": lambda net, x: net.classifier[:3](pooled(net, x)),
    "vgg11": lambda net, x: net.classifier[:6](pooled(net, x)),
    "densenet121": lambda net, x: net.features(x).relu().mean(dim=(2, 3)),
    "convnext_tiny": lambda net, x: net.classifier[:2](net.avgpool(net.features(x))).flatten(1),
    "squeezenet1_1": lambda net, x: net.features(x).mean(dim=(2, 3)),
    "shufflenet_v2_x0_5": lambda net, x: nn.Sequential(*list(net.children())[:-1])(x).mean(dim=(2, 3)),
    "googlenet": None,
}
HEAD = {"resnet18": "fc", "squeezenet1_1": "classifier.1", "googlenet": "fc", "shufflenet_v2_x0_5": "fc"}
HEAD |= {"mobilenet_v3_small": "classifier.3", "vgg11": "classifier.6", "densenet121": "classifier"}
HEAD |= {"convnext_tiny": "classifier.2"}


@pytest.mark.parametrize("arch", PENULTIMATE)
def test_torchvision_s_penultimate_layer_is_found(arch):
    torch.manual_seed(0)
    more = {"init_weights": False} if arch == "googlenet" else {}
    net = torchvision_network(arch, num_classes=5, **more).eval()
    model, x = Classifier.wrap(net), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        z, logits = model.embed_and_logits(x)
        assert (model.found, model.num_classes) == (HEAD[arch], 5)
        torch.testing.assert_close(logits, net(x), rtol=0, atol=0)
        if PENULTIMATE[arch] is not None:
            torch.testing.assert_close(z, PENULTIMATE[arch](net, x))
        if arch != "squeezenet1_1":  # a ReLU stands between its head and its logits
            torch.testing.assert_close(net.get_submodule(HEAD[arch])(z), logits)


def test_a_vision_transformer_gives_its_class_token():
    torch.manual_seed(0)
    net = models.VisionTransformer(
        16, 8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24, num_classes=4
    ).eval()
    nn.init.normal_(net.heads.head.weight)  # they begin as zeros
    seen: list[Tensor] = []
    net.encoder.register_forward_hook(lambda _m, _i, out: seen.append(out[:, 0]))
    x = torch.rand(3, 3, 16, 16)
    z, logits = Classifier.wrap(net).embed_and_logits(x)
    assert torch.equal(z, seen[-1])
    torch.testing.assert_close(net.heads.head(z), logits)


def test_outputs_of_a_training_network_with_auxiliary_heads_are_its_logits():
    net = torchvision_network("googlenet", num_classes=5, aux_logits=True, init_weights=False)
    z, raw = Classifier.wrap(net).train().embed_and_raw(torch.rand(2, 3, 64, 64))
    assert (z.shape, raw.shape) == ((2, 1024), (2, 5))


def test_the_engine_folds_a_resnet_within_the_tolerance():
    torch.manual_seed(0)
    model, x = (
        Classifier.wrap(torchvision_network("resnet18", num_classes=5)).eval(),
        torch.rand(2, 3, 32, 32),
    )
    with torch.no_grad():
        ready = prepare(model, x, Setup(fold=True, channels_last=True), keep=model.tapped)
    assert ready.setup.fold and not any(isinstance(part, nn.BatchNorm2d) for part in ready.module.modules())
    torch.testing.assert_close(
        ready.module.embed_and_logits(x)[0], model.embed_and_logits(x)[0], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: torchvision_network("resnt18", 5),
            "torchvision has no arch 'resnt18': did you mean 'resnet18'",
        ),
        (lambda: torchvision_network("fasterrcnn_resnet50_fpn", 5), "torchvision has no arch"),
        (lambda: torchvision_network("resnet18", 5, in_channels=1), "data.channels=3"),
        (lambda: torchvision_network("resnet18", 5, depth=3), "does not take these settings"),
        (lambda: default_weights("torchvision", "resnt18"), "did you mean"),
    ],
)
def test_wrong_words_are_named_in_one_line(call, told):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        call()
    assert told in str(error.value)


def test_torchvision_s_best_weights_are_named_without_a_download(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    assert default_weights("torchvision", "resnet18") == models.ResNet18_Weights.DEFAULT.name


def test_without_timm_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install 'pdm-lightning\[timm\]'"):
        timm_network("resnet18", 5)


@pytest.mark.parametrize(
    "arch", ["resnet10t", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv4_conv_small"]
)
def test_timm_s_pre_logits_are_the_embedding(arch):
    pytest.importorskip("timm", reason="timm is not installed: pip install 'pdm-lightning[timm]'")
    torch.manual_seed(0)
    more = {"img_size": 32} if arch.startswith("vit") else {}
    net = timm_network(arch, 5, in_channels=1, **more).eval()
    model, x = Classifier.wrap(net), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        z, logits = model.embed_and_logits(x)
        torch.testing.assert_close(z, net.forward_head(net.forward_features(x), pre_logits=True).flatten(1))
        torch.testing.assert_close(net.get_classifier()(z), logits)


def test_timm_s_words_are_checked():
    pytest.importorskip("timm", reason="timm is not installed: pip install 'pdm-lightning[timm]'")
    with pytest.raises(ValueError, match="timm has no arch 'resnet18x'"):
        timm_network("resnet18x", 5)
    assert default_weights("timm", "resnet18")
