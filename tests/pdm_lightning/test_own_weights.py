"""torchvision's own weights make torchvision's own predictions; nothing is downloaded here."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from pdm_lightning.guard import Guard
from pdm_lightning.models import Classifier, library
from pdm_lightning.stages.build import build_classifier, load_classifier
from pdm_lightning.stages.start import start
from pdm_lightning.study.ask import ask
from pdm_lightning.study.specs import model_spec

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIDES = {"googlenet": 64, "inception_v3": 96, "densenet121": 32, "mnasnet0_5": 32}


@pytest.fixture
def published(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network whose weights torchvision is made to find, by the names that its files have."""
    arch = str(request.param)
    torch.manual_seed(0)
    more = {"init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    network = models.get_model(arch, weights=None, **more)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    held = network.state_dict()
    if arch.startswith("densenet"):
        kept = {name: value for name, value in held.items() if not name.endswith("num_batches_tracked")}
        held = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", n): v for n, v in kept.items()}
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda _self, **_more: copy.copy(held))
    return arch


def spec_of(arch: str, weights: str, **more: Any) -> dict[str, Any]:
    model = {"name": "torchvision", "_target_": "pdm_lightning.models.torchvision_network", "arch": arch}
    model |= {"embedding": None, "weights": weights, "mean": MEAN, "std": STD, **more}
    return {"model": model, "defense": {"use": [], "readout": "direct"}, "start": "DEFAULT"}


def started(arch: str, side: int, weights: str = "torchvision:IMAGENET1K_V1", **more: Any) -> Classifier:
    spec = spec_of(arch, weights, **more)
    classifier = build_classifier(spec, 1000, 3)
    start(classifier, spec, (3, side, side))
    return classifier.eval()


def centred(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize("published", SIDES, indirect=True)
def test_logits_are_torchvision_s(published: str) -> None:
    side = SIDES[published]
    x = torch.rand(2, 3, side, side)
    classifier = started(published, side)
    with torch.no_grad():
        expected = models.get_model(published, weights="DEFAULT").eval()(centred(x))
        torch.testing.assert_close(classifier(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("published", ["googlenet"], indirect=True)
def test_arguments_of_the_user_s_own_come_first(published: str) -> None:
    module = started(published, 64, "DEFAULT", transform_input=False).get_submodule("module")
    assert not module.transform_input
    with pytest.raises(ValueError, match=r"^arch googlenet with its weights .*num_blocks"):
        library.download("torchvision", {"arch": "googlenet", "num_blocks": 3}, "IMAGENET1K_V1", 3)


@pytest.mark.parametrize("published", ["mnasnet0_5"], indirect=True)
def test_files_of_layers_with_versions_are_read(published: str, tmp_path: Path) -> None:
    classifier = started(published, 32)
    save_file(classifier.state_dict(), tmp_path / "model.safetensors")
    again = load_classifier(spec_of(published, "torchvision:IMAGENET1K_V1"), tmp_path, 1000, 3)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x), classifier(x))
    images = torch.rand(200, 3, 32, 32)
    guard = Guard.fit(again, images, validation=torch.rand(60, 3, 32, 32), fpr=0.5, detector="msp")
    assert guard.network.name == published
    loaded = Guard.load(guard.save(tmp_path / "guard.safetensors"))
    assert torch.equal(loaded.score(images[:4]).score, guard.score(images[:4]).score)


def test_pixels_are_those_of_the_weights() -> None:
    imagenet = (MEAN, STD, (224, 224))
    assert library.pixels("torchvision", "resnet18") == imagenet
    assert library.pixels("torchvision", "efficientnet_v2_l") == ([0.5] * 3, [0.5] * 3, (480, 480))
    assert library.pixels("torchvision", "inception_v3").size == (299, 299)
    assert library.pixels("torchvision", "vit_b_16", "IMAGENET1K_SWAG_E2E_V1").size == (384, 384)
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        library.pixels("torchvision", "resnt18")


def test_timm_s_pixels_are_those_of_the_weights() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'pdm-lightning[timm]'")
    assert library.pixels("timm", "resnet18") == (MEAN, STD, (224, 224))
    assert library.pixels("timm", "inception_v3") == ([0.5] * 3, [0.5] * 3, (299, 299))


@pytest.mark.parametrize(
    ("words", "mean", "std"),
    [
        ("model.arch=resnet18", MEAN, STD),
        ("model.arch=efficientnet_v2_l", [0.5] * 3, [0.5] * 3),
        ("model.arch=efficientnet_v2_l model.mean=[0.1,0.2,0.3]", [0.1, 0.2, 0.3], [0.5] * 3),
    ],
)
def test_a_training_is_centred_so(words: str, mean: list[float], std: list[float]) -> None:
    (cell,) = ask("plan", ["model=torchvision", "attack=none", "data.channels=3", *words.split()])
    spec = model_spec(cell.config["model"])
    assert (spec["mean"], spec["std"]) == (mean, std)


def test_a_vision_transformer_has_the_size_of_its_weights() -> None:
    assert library.own_arguments("vit_h_14", "IMAGENET1K_SWAG_E2E_V1") == {"image_size": 518}
    assert library.own_arguments("vit_b_16", "IMAGENET1K_V1") == {"image_size": 224}
    assert library.own_arguments("resnet18", "IMAGENET1K_V1") == {}
