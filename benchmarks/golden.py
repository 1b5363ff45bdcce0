"""``python -m benchmarks.golden``: images that foolbox and ART make of a small network, kept for the tests.

The file holds the network's weights, clean images and labels, so that a test needs neither library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.families import FAMILIES
from benchmarks.machine import threads, version
from pdm_lightning.data import digits, to_unit

PLACE = Path("tests/attacks/golden/conv.safetensors")
#: Which families of which libraries are kept as images; of foolbox's C&W the distances are.
KEPT = (("fgsm", "foolbox"), ("fgsm", "art"), ("bim", "foolbox"), ("bim", "art"))
COUNT = 16


def network() -> nn.Sequential:
    """An untrained network of two convolutions for 8x8 images, without anything that a mode changes."""
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.1)]
    convolutions += [nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256, 10))


def trained(seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The network after 200 steps on scikit-learn's digits, with test images that it classifies correctly."""
    data = digits(size=None)
    x, y = to_unit(data.train[0]), data.train[1]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(200):
        rows = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    order = data.test_order(100)
    x, y = to_unit(data.test[0][order]), data.test[1][order]
    right = (model(x).argmax(dim=1) == y).nonzero().squeeze(1)[:COUNT]
    return model, x[right], y[right]


def golden(seed: int) -> dict[str, Tensor]:
    """Everything that the file holds, by name.

    Raises
    ------
    ImportError
        If one of the two libraries is missing.
    """
    absent = peers.missing(("foolbox", "art"))
    if absent:
        raise ImportError(f"golden images need {' and '.join(absent)}: pip install -e '.[benchmark]'")
    model, x, y = trained(seed)
    held = {f"weights.{name}": value for name, value in model.state_dict().items()} | {"x": x, "y": y}
    for key, library in KEPT:
        (entry,) = peers.adapter(library).entries(FAMILIES[key])
        held[f"{library}.{key}"] = entry.build(model, x).run(x, y, None).x_adv.float()
    for name, abort_early in (("whole", False), ("early", True)):
        held |= {
            f"foolbox.cw.{name}.{part}": value for part, value in _carlini_wagner(model, x, y, abort_early)
        }
    return {name: value.contiguous().clone() for name, value in held.items()}


def _carlini_wagner(
    model: nn.Module, x: Tensor, y: Tensor, abort_early: bool
) -> Iterator[tuple[str, Tensor]]:
    """Distances (n,) and success (n,), image by image: foolbox's early stop looks at the sum over a batch."""
    from foolbox import PyTorchModel
    from foolbox.attacks import L2CarliniWagnerAttack

    settings: dict[str, Any] = {"binary_search_steps": 9, "steps": 50, "stepsize": 0.1, "initial_const": 1e-2}
    attack = L2CarliniWagnerAttack(**settings, abort_early=abort_early)
    bounded = PyTorchModel(model, bounds=(0, 1), device="cpu")
    found = [attack(bounded, x[i : i + 1], y[i : i + 1], epsilons=None) for i in range(len(x))]
    yield "l2", torch.cat([clipped - x[i] for i, (_, clipped, _) in enumerate(found)]).flatten(1).norm(dim=1)
    yield "success", torch.cat([success for _, _, success in found])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; 2 where a library is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the network and its training (default 0)")
    parser.add_argument("--out", type=Path, default=PLACE, help=f"default {PLACE}")
    options = parser.parse_args(arguments)
    try:
        with threads(1):
            held = golden(options.seed)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    made_by = {name: version(name) for name in ("foolbox", "adversarial-robustness-toolbox", "torch")}
    save_file(held, options.out, metadata=made_by)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
