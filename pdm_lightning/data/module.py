"""Batches for the trainer: every one a pure function of (seed, step), so that a resumed training is exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pdm_lightning.data.augment import check_augment, crop_and_flip
from pdm_lightning.data.base import ImageData, Split, to_unit
from pdm_lightning.data.pairs import pair_indices
from pdm_lightning.seeding import generator

Batch = dict[str, Any]

#: Validation takes this share of a training's passes at most, its last one apart, and is not left out below so many
#: images. A training image is passed forward and backward, which takes three times as long as forward alone.
VALIDATION_SHARE, VALIDATION_FREE, PASSES = 0.1, 1000, 3


class PDMDataModule(pl.LightningDataModule):
    """Single images or Siamese pairs, in segments of optimizer steps.

    A Lightning epoch is a *segment*: epoch e of the trainer covers the steps ``e * segment`` up to
    ``min((e + 1) * segment, total_steps)``; the trainer must be built with
    ``reload_dataloaders_every_n_epochs=1`` and ``max_epochs=segments``. A real epoch is one pass over the
    anchors in a new random order, its last incomplete batch dropped.

    Parameters
    ----------
    data
        The data set.
    batch_size
        Anchors in a batch, B; at most the number of training images is used.
    pairs
        Whether each anchor comes with a partner (see `pair_indices`), drawn anew in every real epoch.
    q
        Probability of a same-class pair.
    seed
        All randomness comes from this seed and the step.
    segment
        Optimizer steps in one Lightning epoch.
    total_steps
        Optimizer steps of the whole training.
    augment
        ``{"crop": pixels, "flip": bool}`` for training images; None for none.

    Notes
    -----
    A training batch is a dict with ``x`` (B or 2B, C, H, W), ``y`` (B or 2B,) int64, ``step`` (the global
    step, an int) and, for pairs, ``same`` (B,) bool; anchors stand in the first half, partners in the second.
    A validation batch has no ``step``. Loaders give uint8 images; `on_after_batch_transfer` turns them into
    float32 in [0, 1] on the device and augments those of training.
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int = 128,
        pairs: bool = False,
        q: float = 0.5,
        seed: int = 0,
        segment: int = 100,
        total_steps: int = 1000,
        augment: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        for key, value in (("batch_size", batch_size), ("segment", segment), ("total_steps", total_steps)):
            if value < 1:
                raise ValueError(f"{key}={value}: at least 1 needed")
        self.data, self.pairs, self.q, self.seed = data, pairs, q, seed
        self.segment, self.total_steps = segment, total_steps
        self.batch_size = min(batch_size, len(data.train[1]))
        self.crop, self.flip = check_augment(augment)
        self._epoch: tuple[int, Tensor, Tensor | None, Tensor | None] | None = None
        self._validation = self._validation_order()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the anchors."""
        return len(self.data.train[1]) // self.batch_size

    @property
    def segments(self) -> int:
        """Lightning epochs that hold `total_steps`."""
        return -(-self.total_steps // self.segment)

    @property
    def segments_of_validation(self) -> int:
        """Segments from one validation to the next: as many as keep it to its share."""
        images, trained = len(self.data.validation[1]), PASSES * self.segment * self.batch_size
        return math.ceil(images / (VALIDATION_SHARE * trained)) if images > VALIDATION_FREE else 1

    def validates(self, segment: int) -> bool:
        """Whether a segment ends with a validation; the last one does."""
        return (segment + 1) % self.segments_of_validation == 0 or segment + 1 == self.segments

    def batch_at(self, step: int) -> Batch:
        """The training batch of a global step: a pure function of the seed and the step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order, partner, same = self._draw_epoch(epoch)
        anchors = order[position * self.batch_size : (position + 1) * self.batch_size]
        return _batch(self.data.train, anchors, partner, same) | {"step": step}

    def train_dataloader(self) -> DataLoader:
        """The batches of the segment that the trainer stands at (the first without a trainer)."""
        segment = self.trainer.current_epoch if self.trainer is not None else 0
        start = segment * self.segment
        stop = min(start + self.segment, self.total_steps)
        return DataLoader(_Steps(self, range(start, stop)), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The validation split once, order and partners fixed by the seed; the last batch may be shorter.

        Nothing where the segment that the trainer stands at ends without a validation.
        """
        due = self.trainer is None or self.validates(self.trainer.current_epoch)
        return DataLoader(_Validation(self) if due else _Nothing(), batch_size=None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """Images to float32 in [0, 1]; those of training are cropped and flipped first, by (seed, step)."""
        images = batch["x"]
        if "step" in batch and (self.crop or self.flip):
            draws = generator(self.seed, "augment", batch["step"])
            images = crop_and_flip(images, self.crop, self.flip, draws)
        return batch | {"x": to_unit(images)}

    def validation_batch(self, index: int) -> Batch:
        """The index-th validation batch."""
        order, partner, same = self._validation
        anchors = order[index * self.batch_size : (index + 1) * self.batch_size]
        return _batch(self.data.validation, anchors, partner, same)

    def _draw_epoch(self, epoch: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Order, partners and their sameness for one real epoch; the latest is kept."""
        if self._epoch is None or self._epoch[0] != epoch:
            labels = self.data.train[1]
            order = torch.randperm(len(labels), generator=generator(self.seed, "order", epoch))
            self._epoch = (epoch, order, *self._draw_pairs(labels, "pairs", epoch))
        return self._epoch[1:]

    def _validation_order(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        # in random order: the terms of a batch of one class alone would mean nothing
        labels = self.data.validation[1]
        order = torch.randperm(len(labels), generator=generator(self.seed, "validation order"))
        return (order, *self._draw_pairs(labels, "validation pairs"))

    def _draw_pairs(self, labels: Tensor, *names: str | int) -> tuple[Tensor | None, Tensor | None]:
        if not self.pairs:
            return None, None
        return pair_indices(labels, self.q, generator(self.seed, *names))


def _batch(split: Split, anchors: Tensor, partner: Tensor | None, same: Tensor | None) -> Batch:
    """Gather the anchors, followed by their partners where there are any."""
    images, labels = split
    if partner is None or same is None:
        return {"x": images[anchors], "y": labels[anchors]}
    both = torch.cat([anchors, partner[anchors]])
    return {"x": images[both], "y": labels[both], "same": same[anchors]}


class _Steps(Dataset):
    """The training batches of a range of global steps."""

    def __init__(self, module: PDMDataModule, steps: range) -> None:
        self.module, self.steps = module, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        return self.module.batch_at(self.steps[index])


class _Nothing(Dataset):
    """No batch: Lightning leaves the validation out."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Batch:
        raise IndexError(index)


class _Validation(Dataset):
    """The batches of the validation split."""

    def __init__(self, module: PDMDataModule) -> None:
        self.module = module

    def __len__(self) -> int:
        return -(-len(self.module.data.validation[1]) // self.module.batch_size)

    def __getitem__(self, index: int) -> Batch:
        return self.module.validation_batch(index)
