"""Networks as torchvision builds them with its own weights: a guard's file tells how to build them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from pdm_lightning.cli import main
from pdm_lightning.guard import Architecture, Guard, GuardFileError


def pretrained(arch: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """What torchvision gives for weights of its own, which are random ones here."""
    torch.manual_seed(0)
    network = models.get_model(arch, weights=None, init_weights=False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    held = network.state_dict()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda _self, **_more: held)
    return models.get_model(arch, weights="DEFAULT")


@pytest.mark.parametrize("given", [None, "torchvision/googlenet"])
def test_googlenet_is_built_again(given: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = pretrained("googlenet", monkeypatch)
    images = torch.rand(80, 3, 32, 32)
    guard = Guard.fit(network, images[:40], images[40:], fpr=0.5, detector="msp", architecture=given)
    arguments = {"num_classes": 1000, "transform_input": True, "aux_logits": False}
    assert guard.network == Architecture("torchvision", "googlenet", arguments)
    loaded = Guard.load(guard.save(tmp_path / "guard.safetensors"))
    torch.testing.assert_close(loaded.score(images[:4]).score, guard.score(images[:4]).score)


def test_a_vision_transformer_of_another_size_is_found() -> None:
    found = Architecture.named("torchvision/vit_b_16", 5, 3, models.vit_b_16(num_classes=5, image_size=32))
    assert found.arguments == {"num_classes": 5, "image_size": 32}
    found.check(models.vit_b_16(num_classes=5, image_size=32))


@pytest.mark.parametrize("arguments", [{"image_size": 2000}, {"transform_input": 1}, {"progress": True}])
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(GuardFileError, match=next(iter(arguments))):
        Architecture("torchvision", "vit_b_16", {"num_classes": 5, **arguments})
    with pytest.raises(GuardFileError, match="cannot be built"):
        Architecture("torchvision", "resnet18", {"num_classes": 5, "image_size": 32}).build()


def test_what_no_file_could_rebuild_is_told_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pdm_lightning.study import guard_models

    def otherwise(*_: Any) -> nn.Module:
        return models.shufflenet_v2_x0_5(weights=None, num_classes=3)

    monkeypatch.setattr(guard_models, "_pretrained", otherwise)
    monkeypatch.setattr(Guard, "fit", None)
    assert main(["fit", "--torchvision", "shufflenet_v2_x1_0", "images", "--size", "32"]) == 2
    assert "torchvision/shufflenet_v2_x1_0 does not rebuild this network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "side", "mean"),
    [
        (["--torchvision", "swin_v2_t"], 256, 0.485),
        (["--torchvision", "efficientnet_v2_l"], 480, 0.5),
        (["--timm", "vit_tiny_patch16_384"], 384, 0.5),
        (["--torchvision", "efficientnet_v2_l", "--size", "32", "--mean", "0.1"], 32, 0.1),
    ],
)
def test_size_and_centring_are_those_of_the_library(words: list[str], side: int, mean: float) -> None:
    from pdm_lightning.study.guard_models import open_model
    from pdm_lightning.study.guard_words import parse

    if "--timm" in words:
        pytest.importorskip("timm")
    given = parse("fit", [*words, "images", "--weights", "random"])
    assert given is not None
    found = open_model(given, "", None, 3)
    assert (found.size, found.resize) == ((side, side), "crop")
    assert found.classifier.mean.flatten()[0].item() == pytest.approx(mean)
