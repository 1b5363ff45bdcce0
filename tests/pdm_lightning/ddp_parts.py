"""Parts of trainings for the tests of several devices, some of them broken; named by ``_target_``, imported by name."""

from __future__ import annotations

import os
import runpy
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pdm_lightning.data import ImageData
from pdm_lightning.losses import Outputs, Term
from pdm_lightning.models import Classifier, ResNet
from pdm_lightning.replicas import ALONE, Replica, join
from pdm_lightning.stages.begun import begin
from pdm_lightning.stages.context import Context
from pdm_lightning.stages.train import Segments, proceed
from pdm_lightning.stages.training import build as build_training
from pdm_lightning.store import Store
from pdm_lightning.study.plan import Node

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
CPU = torch.device("cpu")


def stripes() -> ImageData:
    """The data set of the tiny trainings, as a data source."""
    data: ImageData = TINY["tiny_data"]()
    return data


class Double(nn.Module):
    """A ResNet-8 in float64, head and all; ``body`` embeds."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = ResNet(8, in_channels, [4, 4, 8]).double()
        self.head = nn.Linear(8, num_classes).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x.double()))
        return out


class Grouped(Double):
    """Group norms, and a layer that nobody uses."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, stride=2),
            nn.GroupNorm(2, 8),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3),
            nn.GroupNorm(4, 8),
            nn.Flatten(),
        ).double()
        self.unused = nn.Linear(3, 3).double()


class Fragile(Double):
    """Notes the number of its process and obeys a file: ``<rank> <step> kill`` or ``<rank> <step> sleep``.

    Steps are those of one process's life, from 1; the file is gone then.
    """

    def __init__(self, in_channels: int, num_classes: int, orders: str) -> None:
        super().__init__(in_channels, num_classes)
        self.orders, self.steps = Path(orders), 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and dist.is_initialized():
            self.steps += 1
            # not Lightning's handler, which would wait for the others in the middle of whatever they do
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            (self.orders / f"pid{dist.get_rank()}").write_text(str(os.getpid()))
            self.obey(
                *(self.orders / "order").read_text().split() if (self.orders / "order").exists() else ()
            )
        return super().forward(x)

    def obey(self, rank: str = "", step: str = "", deed: str = "") -> None:
        if (rank, step) == (str(dist.get_rank()), str(self.steps)):
            (self.orders / "order").unlink()
            if deed == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)


class Broken(Term):
    """Fails in the second process, at its third batch."""

    calls = 0

    def forward(self, out: Outputs) -> Tensor:
        self.calls += 1
        if self.calls == 3 and dist.get_rank() == 1:
            raise ArithmeticError("a term of my own\nis wrong")
        return out.logits.square().mean()


def spec(
    kind: str,
    forward: str = "concatenated",
    optimizer: str = "AdamW",
    layers: bool = False,
    **train: Any,
) -> dict[str, Any]:
    """A tiny training of the paper's loss, also on an inner layer, or of a distillation."""
    made: dict[str, Any] = TINY["tiny_spec"](
        **{"steps": 6, "segment": 3, "batch_size": 8, "log_every": 2} | train
    )
    made["model"] = {
        "_target_": "ddp_parts.Grouped" if kind == "grouped" else "ddp_parts.Double",
        "embedding": "body",
    }
    terms: dict[str, dict[str, Any]] = {
        "rce": {"_target_": "pdm_lightning.losses.ReverseCrossEntropy", "weight": 1.0},
        "siamese": {"_target_": "pdm_lightning.losses.Siamese", "weight": 1.0},
        "rvl": {"_target_": "pdm_lightning.losses.ReduceVariance", "weight": 0.1},
    }
    if layers:
        inner = "module.body.1" if kind == "grouped" else "module.body.stage2"
        for name in ("siamese", "rvl"):
            terms[name]["layers"] = {"embedding": 1.0, inner: 0.5}
    made["defense"] = {"use": list(terms), "readout": "reverse", "forward": forward, "term": terms}
    if kind == "distilled":
        term = {"_target_": "pdm_lightning.losses.Distillation", "temperature": 2.0}
        made["defense"] = {"use": ["distill"], "readout": "direct", "term": {"distill": term}}
    made["optimizer"] |= {"_target_": f"torch.optim.{optimizer}"}
    return made


SPECS = {
    "norms": lambda: spec("norms"),
    "norms separate": lambda: spec("norms", "separate"),
    "norms sgd": lambda: spec("norms", optimizer="SGD"),
    "grouped": lambda: spec("grouped"),
    "grouped separate": lambda: spec("grouped", "separate"),
    "norms layers": lambda: spec("norms", layers=True),
    "grouped layers separate": lambda: spec("grouped", "separate", layers=True),
    "distilled": lambda: spec("distilled"),
}


def teacher() -> Classifier:
    """An untrained one, which errs."""
    torch.manual_seed(5)
    return Classifier.wrap(Double(1, 3), "body", 3).eval()


def train(name: str, folder: Path, replica: Replica = ALONE) -> None:
    """A training of the list, alone or as one of several."""
    begun = begin(stripes(), SPECS[name](), folder)
    taught_by = teacher() if name == "distilled" else None
    proceed(stripes(), begun, [CPU] * replica.count, replica, (), lambda *_, **__: None, taught_by)


class Stopped(Exception):
    """Stands for an interruption."""


def together(say: Any, rank: int, ports: dict[str, int], folder: Path) -> None:
    """Every training of the list with two processes, and two that are stopped after four steps."""
    replica = Replica(rank, 2)
    torch.set_num_threads(1)
    for name in SPECS:
        join(replica, CPU, ports[name])
        train(name, folder / name, replica)
    count = Segments.on_train_batch_end

    def stop(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if batch["step"] == 4:
            raise Stopped
        count(self, trainer, module, outputs, batch, index)

    for name in ("resumed", "handed over"):
        join(replica, CPU, ports[name])
        Segments.on_train_batch_end = stop  # type: ignore[method-assign]
        try:
            train("norms", folder / name, replica)
        except Stopped:
            dist.destroy_process_group()
        Segments.on_train_batch_end = count  # type: ignore[method-assign]
    join(replica, CPU, ports["again"])
    train("norms", folder / "resumed", replica)


def fragile(output: Path, devices: int = 2) -> Node:
    """A training whose second process does what a file in ``output`` says."""
    settings = spec("norms", steps=12)
    settings["model"] |= {"_target_": "ddp_parts.Fragile", "orders": str(output)}
    runtime = {
        "data": {"_target_": "ddp_parts.stripes"},
        "trainer": {"device": "cpu", "devices": devices},
        "paths": {"output": str(output)},
        "logger": {"name": "tensorboard"},
        "group": "test",
        "segment": 3,
    }
    return Node("train", settings, {}, runtime, "fragile")


def build(node: Node, folder: Path) -> None:
    """Train into a folder, with a store of its own."""
    folder.mkdir(exist_ok=True)
    build_training(node, folder, Context(Store(folder / "store"), progress=False))
