"""A data set in memory: three labelled splits of uint8 images, and how a split is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Split = tuple[Tensor, Tensor]
Source = TypeVar("Source", bound=Callable[..., object])

#: The order in which test images are attacked is the same in every study, so that budgets nest.
TEST_ORDER_SEED = 20200101


@dataclass(frozen=True)
class ImageData:
    """An image classification data set, decoded and split.

    Attributes
    ----------
    name
        Short name, as tables show it.
    train, validation, test
        ``(images, labels)``: images uint8 of shape (N, C, H, W) with values 0..255, labels int64 of
        shape (N,).
    classes
        The K class names, in the order of the labels.

    Raises
    ------
    TypeError, ValueError
        If a split has another type or shape, is empty, or has a label outside ``0..K-1``.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: list[str]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(
                f"data {self.name!r} has {len(self.classes)} class(es): a classifier needs at least 2"
            )
        for split in ("train", "validation", "test"):
            self._check(split, *getattr(self, split))

    def _check(self, split: str, images: Tensor, labels: Tensor) -> None:
        where = f"data {self.name!r}, split {split}"
        if images.dtype != torch.uint8 or labels.dtype != torch.int64:
            raise TypeError(
                f"{where}: uint8 images and int64 labels needed, not {images.dtype} and {labels.dtype}"
            )
        if (
            images.dim() != 4
            or labels.shape != images.shape[:1]
            or images.shape[1:] != self.train[0].shape[1:]
        ):
            raise ValueError(
                f"{where}: images (N, C, H, W) as in train and labels (N,) needed, "
                f"not {tuple(images.shape)} and {tuple(labels.shape)}"
            )
        if len(labels) == 0:
            raise ValueError(f"{where} is empty: give it at least one image")
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise ValueError(
                f"{where}: labels reach {labels.min()}..{labels.max()}, 0..{len(self.classes) - 1} allowed"
            )

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width

    def test_order(self, n: int | None = None) -> Tensor:
        """Indices of the first n test images of a fixed permutation; all of them for None or a larger n.

        The permutation is balanced: every prefix holds the classes in about the test set's proportions.
        A smaller budget's images are a prefix of a larger one's.

        Returns
        -------
        Tensor
            int64, shape ``(min(n, N_test),)``.
        """
        if n is not None and n < 0:
            raise ValueError(f"test_order(n={n}): n must be 0 or more")
        return balanced_order(self.test[1], TEST_ORDER_SEED)[:n]


def reads_files(listing: Callable[..., object]) -> Callable[[Source], Source]:
    """Mark a source of foreign files: ``listing(root)`` tells their names and sizes, for fingerprints."""

    def mark(source: Source) -> Source:
        source.listing = listing  # type: ignore[attr-defined]
        return source

    return mark


def to_unit(images: Tensor) -> Tensor:
    """Uint8 images 0..255 as float32 in [0, 1]; floating images are returned as they are."""
    return images if images.is_floating_point() else images.to(torch.float32).div_(255)


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """Random permutation of ``0..N-1`` whose every prefix has about the class proportions of the whole.

    The r-th image (in random order) of a class with n images stands at ``(r + u) / n`` of the way, u uniform
    in [0, 1) and drawn per image.

    Parameters
    ----------
    labels
        int64, shape (N,).
    seed
        The permutation is a function of the labels and this seed alone.

    Returns
    -------
    Tensor
        int64, shape (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    place = torch.rand(len(labels), generator=generator, dtype=torch.float64)
    for label in labels.unique():
        mine = (labels[shuffled] == label).nonzero().squeeze(1)
        place[mine] = (torch.arange(len(mine), dtype=torch.float64) + place[mine]) / len(mine)
    return shuffled[place.argsort()]


def stratified_split(labels: Tensor, size: int | float, seed: int) -> tuple[Tensor, Tensor]:
    """Cut a seeded, stratified part out of a set.

    Each class gives its share of ``size``, rounded so that the total is exact (largest remainders), and keeps
    at least one image of its own.

    Parameters
    ----------
    labels
        int64, shape (N,).
    size
        Images to cut out: a count, or a fraction of N when below 1.
    seed
        The cut is a function of the labels, the size and this seed alone.

    Returns
    -------
    tuple of Tensor
        Indices ``(kept, cut)``, each ascending, disjoint, together ``0..N-1``.

    Raises
    ------
    ValueError
        If size leaves one of the two parts empty, or a class without an image in the kept part.
    """
    total = len(labels)
    count = round(size * total) if 0 < size < 1 else int(size)
    values, found = labels.unique(return_counts=True)
    if not 0 < count <= total - len(values):
        raise ValueError(
            f"cannot cut {count} of {total} images of {len(values)} classes: "
            f"take data.val_size from 1 to {max(total - len(values), 1)}, or a fraction below 1"
        )
    quota = _apportion(found, count)
    shuffled = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    cut = torch.zeros(total, dtype=torch.bool)
    for value, share in zip(values, quota.tolist(), strict=True):
        mine = shuffled[labels[shuffled] == value]
        cut[mine[:share]] = True
    return (~cut).nonzero().squeeze(1), cut.nonzero().squeeze(1)


def _apportion(found: Tensor, count: int) -> Tensor:
    """Whole shares of count in proportion to found, at most ``found - 1`` each, by largest remainder."""
    exact = found.double() * count / found.sum()
    quota = torch.minimum(exact.floor().long(), found - 1)
    while quota.sum() < count:
        # a class that has nothing left to give is passed over
        short = torch.where(quota < found - 1, exact - quota, -torch.inf)
        quota[short.argmax()] += 1
    return quota
