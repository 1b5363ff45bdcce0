"""A training as it is usually written: torchvision's data set and transforms, a DataLoader, a plain LightningModule."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.training_cases import ENDLESS, Case, images, spec
from pdm_lightning.losses import CombinedLoss, Outputs
from pdm_lightning.models import ResNet
from pdm_lightning.stages.build import build_loss
from pdm_lightning.stages.trainer import calm


class Pairs(Dataset):
    """Two images and whether they share a class, with probability 1/2 each."""

    def __init__(self, single: Any) -> None:
        self.single = single
        labels = torch.as_tensor(single.targets)
        self.members = [(labels == label).nonzero().squeeze(1) for label in range(int(labels.max()) + 1)]

    def __len__(self) -> int:
        return len(self.single)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, int, bool]:
        x, y = self.single[index]
        same = bool(torch.rand(()) < 0.5)
        other = y if same else (y + 1 + int(torch.randint(len(self.members) - 1, ()))) % len(self.members)
        candidates = self.members[other]
        x2, y2 = self.single[int(candidates[torch.randint(len(candidates), ())])]
        return x, y, x2, y2, same


class Usual(pl.LightningModule):
    """The same network and loss; loss and accuracy are logged each step, the schedule is PyTorch's."""

    def __init__(self, network: nn.Module, head: nn.Module, loss: CombinedLoss | None, reverse: bool) -> None:
        super().__init__()
        self.network, self.head, self.loss, self.sign = network, head, loss, -1 if reverse else 1

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch of images and labels, or of pairs."""
        if self.loss is None:
            x, y = batch
            raw = self.head(self.network(x))
            total = F.cross_entropy(raw, y)
        else:
            x1, y1, x2, y2, same = batch
            y = torch.cat([y1, y2])
            z = self.network(torch.cat([x1, x2]))
            raw = self.head(z)
            total, terms = self.loss(Outputs(z, raw, y, same))
            for name, value in terms.items():
                self.log(f"train/{name}", value)
        self.log("train/loss", total)
        self.log("train/accuracy", ((self.sign * raw).argmax(dim=1) == y).float().mean())
        return total

    def configure_optimizers(self) -> Any:
        """AdamW under a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.003, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ENDLESS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Turns(pl.Callback):
    """Tells of each step."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count it."""
        self.step(1)


def single_images(case: Case, root: str | None) -> Any:
    """Torchvision's own data set object, of the files under `root` or of the benchmark's images."""
    steps: list[Any] = [transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    if spec(case)["augment"]["crop"]:
        steps = [transforms.RandomCrop(case.shape[1], padding=4), transforms.RandomHorizontalFlip(), *steps]
    cls = {"mnist": torchvision.datasets.MNIST, "cifar10": torchvision.datasets.CIFAR10}[case.data]
    if root is not None:
        return cls(root, transform=transforms.Compose(steps))
    made = cls.__new__(cls)  # no files: what the constructor would have read
    pixels, labels = images(case, None).train
    made.data = pixels[:, 0] if case.data == "mnist" else pixels.permute(0, 2, 3, 1).contiguous().numpy()
    made.targets = labels if case.data == "mnist" else labels.tolist()
    made.transform, made.target_transform = transforms.Compose(steps), None
    return made


def train(case: Case, root: str | None, workers: int, step: Any, folder: Path) -> None:
    """Train without end; `step(1)` follows each step."""
    told = spec(case)
    paired = case.defense == "pdm"
    data = single_images(case, root)
    loader = DataLoader(
        Pairs(data) if paired else data,
        batch_size=case.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    backbone = ResNet(told["model"]["depth"], case.shape[0])
    loss = build_loss(told["defense"]) if paired else None
    head = nn.Linear(backbone.embedding_dim, case.classes)
    module = Usual(backbone, head, loss, told["defense"]["readout"] == "reverse")
    with calm(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl.Trainer(
            accelerator="cpu",
            max_steps=ENDLESS,
            logger=CSVLogger(str(folder)),
            callbacks=[Turns(step)],
            default_root_dir=str(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, loader)
