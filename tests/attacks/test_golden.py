"""Images that foolbox and ART made of a small network once: our exact path makes the same.

``python -m benchmarks.golden`` writes the file anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attacks import BIM, FGSM, Attack, CarliniWagner

FILE = Path(__file__).with_name("golden") / "conv.safetensors"
ATTACKS: dict[str, Attack] = {"fgsm": FGSM(eps=0.1), "bim": BIM(eps=0.1, iterations=10)}


@pytest.fixture(scope="module")
def held() -> dict[str, Tensor]:
    return load_file(FILE)


@pytest.fixture(scope="module")
def model(held: dict[str, Tensor]) -> nn.Module:
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.1)]
    convolutions += [nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256, 10))
    weights = {name.removeprefix("weights."): v for name, v in held.items() if name.startswith("weights.")}
    network.load_state_dict(weights)
    return network.eval()


def test_the_file_is_small_and_its_images_are_classified_correctly(
    held: dict[str, Tensor], model: nn.Module
) -> None:
    assert FILE.stat().st_size < 200_000
    assert len(held["x"]) == 16
    assert torch.equal(model(held["x"]).argmax(1), held["y"])


@pytest.mark.parametrize("library", ["foolbox", "art"])
@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_the_same_images(name: str, library: str, held: dict[str, Tensor], model: nn.Module) -> None:
    result = ATTACKS[name](model, held["x"], held["y"])
    expected = held[f"{library}.{name}"]
    assert (expected - held["x"]).abs().amax() == pytest.approx(0.1, abs=1e-6)
    assert (result.x_adv - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("stop", ["whole", "early"])
def test_carlini_and_wagner_no_further_than_foolbox(
    stop: str, held: dict[str, Tensor], model: nn.Module
) -> None:
    """Every step of every search, and with the early stop, which foolbox was given one image at a time for."""
    attack = CarliniWagner(
        max_iterations=50, binary_search_steps=9, lr=0.1, initial_const=1e-2, abort_early=stop == "early"
    )
    result = attack(model, held["x"], held["y"])
    theirs = held[f"foolbox.cw.{stop}.success"]
    assert theirs.sum() >= 14
    assert result.success[theirs].all()
    assert result.l2[theirs].mean() <= 1.01 * held[f"foolbox.cw.{stop}.l2"][theirs].mean()
