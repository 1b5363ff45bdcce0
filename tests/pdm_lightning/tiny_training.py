"""A training of a few steps, for the tests of training and of resuming; read with runpy."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from pdm_lightning.data import ImageData
from pdm_lightning.stages.train import fit


def tiny_data() -> ImageData:
    """Three classes of noisy stripes, 8x8."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(n) % 3
        x = torch.randint(0, 120, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
        for i, label in enumerate(y.tolist()):
            x[i, :, label * 3 : label * 3 + 2] += 130
        return x, y

    return ImageData("stripes", split(50), split(15), split(15), ["a", "b", "c"])


def tiny_spec(**train) -> dict:
    term = {
        "rce": {"_target_": "pdm_lightning.losses.ReverseCrossEntropy", "weight": 1.0},
        "siamese": {"_target_": "pdm_lightning.losses.Siamese", "weight": 1.0, "norm": "l1"},
    }
    return {
        "data": {"name": "stripes"},
        "augment": {"crop": 1, "flip": True},
        "model": {"name": "tiny", "_target_": "pdm_lightning.models.ResNet", "depth": 8, "widths": [4, 4, 8]},
        "defense": {"use": ["rce", "siamese"], "readout": "reverse", "q": 0.5, "pairs": "auto", "term": term},
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": 0.01,
            "weight_decay": 0.01,
            "schedule": {"kind": "cosine"},
        },
        "train": {"steps": 22, "epochs": None, "batch_size": 16, "segment": 5, "log_every": 2} | train,
        "seed": 3,
    }


def run(folder: Path, spec: dict | None = None, **settings) -> dict:
    return fit(tiny_data(), spec or tiny_spec(), folder, device="cpu", progress=False, **settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
