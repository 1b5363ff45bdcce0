"""The parts of ``benchmarks.kernels``: each runs alone in a process with a limit on its memory."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detection import KDE, Features, View, mapped


@dataclass(frozen=True)
class Sizes:
    """How large; all numbers of rows but `dim`, `threads` and `seed`."""

    classes: int
    kernels: int
    dim: int
    n: int
    held: int
    checked: int
    threads: int
    seed: int


Part = Callable[[Sizes, Path, str], dict[str, Any]]


def alone(part: Part) -> Callable[[Sizes, Path, str, float], dict[str, Any]]:
    """A part under a limit of so many GiB, with its seconds and memory."""

    def run(sizes: Sizes, folder: Path, rule: str, limit: float) -> dict[str, Any]:
        torch.set_num_threads(sizes.threads)
        most = int(limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        # unnamed files of `mapped.empty` belong where there is room
        import tempfile

        tempfile.tempdir = str(folder)
        wall, cpu = time.perf_counter(), time.process_time()
        found = part(sizes, folder, rule)
        times = {"seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - cpu}
        return times | _memory() | found

    return run


def _memory() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    held = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {
        f"{what} GiB": int(held[key][0]) / 2**20
        for what, key in (("resident", "VmHWM"), ("private", "RssAnon"))
    }


def draw(sizes: Sizes, label: int, split: int, count: int) -> Tensor:
    """Embeddings (count, d) of a class, around a centre of its own, as float32."""
    centre = torch.randn(sizes.dim, generator=torch.Generator().manual_seed(sizes.seed * 10**7 + label))
    generator = torch.Generator().manual_seed((split + 1) * 10**12 + sizes.seed * 10**7 + label)
    return torch.randn(count, sizes.dim, generator=generator).add_(centre)


def features(sizes: Sizes, folder: Path, rule: str) -> dict[str, Any]:
    """Write the embeddings of training, validation and test images, and the test images' classes."""
    each = math.ceil(sizes.n / sizes.classes)
    counts = {"train": sizes.kernels, "validation": sizes.held, "test": each}
    tensors = {}
    for split, (name, count) in enumerate(counts.items()):
        held = mapped.empty((sizes.classes * count, sizes.dim), torch.float32)
        for label in range(sizes.classes):
            mapped.release(held[label * count : (label + 1) * count].copy_(draw(sizes, label, split, count)))
        tensors[f"{name}.embeddings"] = held
        tensors[f"{name}.labels"] = torch.arange(sizes.classes).repeat_interleave(count)
    # as they come: in no order of classes
    order = torch.randperm(len(tensors["test.labels"]), generator=torch.Generator().manual_seed(0))[: sizes.n]
    tensors["test.embeddings"] = tensors["test.embeddings"][order]
    tensors["test.labels"] = tensors["test.labels"][order]
    path = folder / "features.safetensors"
    mapped.save(tensors, path)
    return {"file GB": path.stat().st_size / 1e9}


def _read(folder: Path, split: str, classes: int) -> Features:
    tensors = mapped.load(folder / "features.safetensors")
    labels = tensors[f"{split}.labels"]
    # fit reads no logits; a table of zeros that are one and the same takes no memory
    return Features(tensors[f"{split}.embeddings"], torch.zeros(1, 1).expand(len(labels), classes), labels)


def fit(sizes: Sizes, folder: Path, rule: str) -> dict[str, Any]:
    """Draw the kernels, choose the bandwidth, save the state."""
    train, validation = (_read(folder, split, sizes.classes) for split in ("train", "validation"))
    detector = KDE(_bandwidth(rule), kernels_per_class=sizes.kernels).fit(train, validation)
    path = folder / "state.safetensors"
    mapped.save(detector.state_dict(), path)
    return {"file GB": path.stat().st_size / 1e9, "bandwidth": detector.bandwidth_}


def _bandwidth(rule: str) -> str | float:
    try:
        return float(rule)
    except ValueError:
        return rule


def _loaded(folder: Path) -> KDE:
    return KDE().load_state_dict(mapped.load(folder / "state.safetensors"))


def score(sizes: Sizes, folder: Path, rule: str) -> dict[str, Any]:
    """Score all test embeddings, and take the gradient of some."""
    detector, test = _loaded(folder), _read(folder, "test", sizes.classes)
    logits = torch.nn.functional.one_hot(test.labels, sizes.classes).float()
    started = time.perf_counter()
    scores = detector.score(View.from_features(test.embeddings, logits))
    seconds = time.perf_counter() - started
    some = test.embeddings[:100].clone().requires_grad_()
    (slopes,) = torch.autograd.grad(detector.score(View.from_features(some, logits[:100])).sum(), some)
    if not bool((slopes.abs().amax(dim=1) > 0).all()) or not bool(torch.isfinite(slopes).all()):
        raise ValueError("the gradient is gone")
    mapped.save({"scores": scores}, folder / "scores.safetensors")
    return {"scoring seconds": seconds, "lowest log density": float(-scores.max())}


def check(sizes: Sizes, folder: Path, rule: str) -> dict[str, Any]:
    """Compare scores with the definition."""
    state, test = mapped.load(folder / "state.safetensors"), _read(folder, "test", sizes.classes)
    got = -mapped.load(folder / "scores.safetensors")["scores"][: sizes.checked]
    h, wanted = float(state["bandwidth"]), torch.empty_like(got)
    for row, label in enumerate(test.labels[: sizes.checked].tolist()):
        kernels = state["kernels"][label * sizes.kernels : (label + 1) * sizes.kernels]
        squares = (kernels.double() - test.embeddings[row].double()).square().sum(dim=1)
        wanted[row] = torch.logsumexp(-0.5 * squares / h**2, dim=0) - math.log(len(kernels))
        mapped.release(kernels)
    wanted -= 0.5 * sizes.dim * math.log(2 * math.pi * h**2)
    error = ((got - wanted).abs() / wanted.abs().clamp(min=1)).max()
    swapped = (got[:, None] < got) != (wanted[:, None] < wanted)
    return {"order": int(swapped.sum()) // 2, "largest error": float(error)}


PARTS = {part.__name__: alone(part) for part in (features, fit, score, check)}
