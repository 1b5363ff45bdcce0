"""A small network on images of bars, and every detector of conf/detector fitted on it; read with runpy."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

import detection
from detection import Detector, Features, View

torch.set_num_threads(1)

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "detector").glob("*.yaml"))
STAGES = ("backbone.stage1", "backbone.stage2", "backbone.stage3")
CLASSES = 4


class Network(nn.Module):
    """Three convolutions whose names are those of a ResNet's stages."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        for stage, (before, after) in enumerate([(1, 6), (6, 8), (8, 8)], start=1):
            self.backbone.add_module(f"stage{stage}", nn.Conv2d(before, after, 3, padding=1))
        self.flat, self.head = nn.Linear(8 * 16, 6), nn.Linear(6, CLASSES)

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for stage in ("stage1", "stage2", "stage3"):
            x = nn.functional.softplus(self.backbone.get_submodule(stage)(x), beta=5)
        z = self.flat(nn.functional.avg_pool2d(x, 2).flatten(1))
        return z, self.head(z)


def bars(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright bar in the row of the class, on noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = 0.25 * torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    for c in range(CLASSES):
        images[labels == c, :, 2 * c : 2 * c + 2] += 0.7
    return images, labels


def mixed(images: Tensor, labels: Tensor) -> Tensor:
    """The attack: less than half of an image, and more of one of the next class."""
    other = torch.cat([images[labels == (c + 1) % CLASSES] for c in range(CLASSES)])
    own = torch.cat([images[labels == c] for c in range(CLASSES)])
    order = torch.cat([(labels == c).nonzero().flatten() for c in range(CLASSES)])
    return (0.4 * own + 0.6 * other)[order.argsort()]


@cache
def network() -> Network:
    torch.manual_seed(0)
    model, (images, labels) = Network().double(), bars(160, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.embed_and_logits(images)[1], labels, label_smoothing=0.1).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def features(images: Tensor, labels: Tensor) -> Features:
    model = network()
    with torch.no_grad():
        view = View.from_model(model, images, STAGES)
        layers = {name: view.layer(name) for name in STAGES}
        return Features(view.embeddings, view.logits, labels, layers, images, model)


@cache
def sets() -> dict[str, Features]:
    found = {
        name: features(*bars(n, s))
        for name, n, s in [("train", 240, 1), ("validation", 80, 2), ("test", 60, 3)]
    }
    attacked = {}
    for name, source in found.items():
        attacked[f"{name}_adversarial"] = features(mixed(source.images, source.labels), source.labels)
    return found | attacked


@cache
def config(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base=None):
        return OmegaConf.to_container(compose(f"detector/{name}"), resolve=True)["detector"]


def new(name: str) -> Detector:
    options = {k: v for k, v in config(name).items() if k not in ("name", "label", "attack", "_target_")}
    return getattr(detection, config(name)["_target_"].removeprefix("detection."))(**options)


def fit(detector: Detector, **changed: Features) -> Detector:
    known = sets() | changed
    return detector.fit(
        known["train"], known["validation"], known["train_adversarial"] if detector.needs_attack else None
    )


@lru_cache
def fitted(name: str) -> Detector:
    return fit(new(name))


def images_view(detector: Detector, x: Tensor) -> View:
    return View.from_model(network(), x, detector.reads)


every = pytest.mark.parametrize("name", NAMES)


def of(condition: Any) -> Any:
    return pytest.mark.parametrize("name", [name for name in NAMES if condition(new(name))])


def _tensors(found: Features) -> list[Tensor]:
    return [found.embeddings, found.logits, found.labels, found.images, *found.layers.values()]


def _by_name(found: Features) -> dict[str, Tensor]:
    return {"embedding": found.embeddings, "logits": found.logits, **found.layers}


def _joined(a: Features, b: Features) -> Features:
    layers = {n: torch.cat([a.layers[n], b.layers[n]]) for n in a.layers}
    parts = [torch.cat([getattr(a, n), getattr(b, n)]) for n in ("embeddings", "logits", "labels")]
    return Features(*parts, layers)
