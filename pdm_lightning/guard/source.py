"""Clean images in whatever form they come: tensors, a Dataset, a DataLoader, files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from pdm_lightning.data import ImageData, to_unit
from pdm_lightning.guard.picture import ImageError, Limits, read_image
from pdm_lightning.guard.preprocessing import Preprocessing


class Batch(NamedTuple):
    """Numbers of the images (B,), the images (B, C, H, W), uint8 or float in [0, 1], and labels (B,) where known."""

    rows: Tensor
    images: Tensor
    labels: Tensor | None


class Source(Protocol):
    """A set of images that can be read more than once."""

    failed: list[tuple[str, str]]

    def __len__(self) -> int:
        """Count the images, those that cannot be read among them."""
        ...

    def batches(self, size: int, rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """Read all images, or those of the given numbers, in their order; what cannot be read is noted and left out."""
        ...


class TensorSource:
    """Images in memory, (N, C, H, W), with labels (N,) or None."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        if images.dim() != 4 or not len(images):
            raise ValueError(f"images must be (N, C, H, W), N at least 1, got {tuple(images.shape)}")
        if labels is not None and labels.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images need as many labels, got {tuple(labels.shape)}")
        self.images, self.labels = images, None if labels is None else labels.long()
        self.failed: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """Cut the tensor."""
        order = torch.arange(len(self)) if rows is None else torch.as_tensor(rows, dtype=torch.int64)
        for part in order.split(size):
            labels = None if self.labels is None else self.labels[part]
            yield Batch(part, checked(self.images[part]), labels)


class ItemSource:
    """A map-style Dataset of images or (image, label); images are tensors (C, H, W) or Pillow's."""

    def __init__(self, dataset: Any, preprocessing: Preprocessing | None = None) -> None:
        if not len(dataset):
            raise ValueError("the data set is empty: give clean images")
        self.dataset, self.preprocessing = dataset, preprocessing
        self.failed: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def _item(self, row: int) -> tuple[Tensor, int | None]:
        item = self.dataset[row]
        image, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        if isinstance(image, Image.Image):
            if self.preprocessing is None:
                raise ValueError(
                    "a data set of Pillow images needs preprocessing=Preprocessing(height, width, 3)"
                )
            image = self.preprocessing(image)
        if not isinstance(image, Tensor) or image.dim() != 3:
            raise ValueError(
                f"item {row} is no (C, H, W) image, or (image, label): found {type(image).__name__}"
            )
        return image, None if label is None else int(label)

    def batches(self, size: int, rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """Read item after item."""
        order = iter(range(len(self)) if rows is None else rows)
        while part := list(islice(order, size)):
            items = [self._item(int(row)) for row in part]
            if len({image.shape for image, _ in items}) > 1:
                raise ValueError("the data set's images differ in size: resize them to one")
            labels = [label for _, label in items if label is not None]
            if labels and len(labels) < len(items):
                raise ValueError("some items of the data set have a label and some have none")
            images = checked(torch.stack([image for image, _ in items]))
            yield Batch(torch.tensor(part), images, torch.tensor(labels) if labels else None)


class FileSource:
    """Image files, decoded in threads as they are needed."""

    def __init__(
        self,
        paths: Sequence[str],
        preprocessing: Preprocessing,
        labels: Sequence[int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.paths, self.preprocessing, self.labels, self.limits = paths, preprocessing, labels, limits
        self.failed: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, size: int, rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """Decode; an image that cannot be read is noted once in `failed` and left out."""
        order = range(len(self)) if rows is None else [int(row) for row in rows]
        pairs = ((row, self.paths[row]) for row in order)
        for part in decoded(pairs, self.preprocessing, size, self.limits):
            good = [(row, image) for row, _, image in part if isinstance(image, Tensor)]
            self.failed += [(path, str(found)) for _, path, found in part if not isinstance(found, Tensor)]
            if good:
                numbers = torch.tensor([row for row, _ in good])
                labels = None if self.labels is None else torch.tensor([self.labels[row] for row, _ in good])
                yield Batch(numbers, torch.stack([image for _, image in good]), labels)


def decoded(
    paths: Iterable[tuple[int, str]], preprocessing: Preprocessing, size: int, limits: Limits | None = None
) -> Iterator[list[tuple[int, str, Tensor | ImageError]]]:
    """Decode numbered files in threads, `size` at a time, the next ones while these are looked at.

    Yields
    ------
    list of (int, str, Tensor or ImageError)
        Number, path, and the pixels, or why there are none.
    """

    def work(pair: tuple[int, str]) -> tuple[int, str, Tensor | ImageError]:
        try:
            return *pair, read_image(pair[1], preprocessing, limits)
        except ImageError as error:
            return *pair, error

    waiting = iter(paths)
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        ahead = [pool.submit(work, pair) for pair in islice(waiting, size)]
        while ahead:
            following = [pool.submit(work, pair) for pair in islice(waiting, size)]
            yield [future.result() for future in ahead]
            ahead = following
    finally:  # an interrupt ends the command now, not when all that was asked for is decoded
        pool.shutdown(wait=False, cancel_futures=True)


def checked(images: Tensor) -> Tensor:
    """Refuse images that are neither uint8 nor float in [0, 1]; give them back."""
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8, or float in [0, 1], got {images.dtype}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(
            f"pixels reach {float(low):.3g}..{float(high):.3g}: give uint8, or float in [0, 1]; centring belongs "
            "to the classifier (mean=, std=)"
        )
    return images


def unit(images: Tensor, device: torch.device) -> Tensor:
    """Images as float32 in [0, 1] on a device."""
    return to_unit(images).to(device, torch.float32)


def source_of(images: Any, preprocessing: Preprocessing | None = None) -> Source:
    """Make a source of a tensor, (images, labels), a Dataset, a DataLoader or a list of paths.

    Of a DataLoader its data set is taken: batches and order do not matter here.

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(images, TensorSource | ItemSource | FileSource):
        return images
    if isinstance(images, Tensor):
        return TensorSource(images)
    if isinstance(images, tuple) and len(images) == 2 and isinstance(images[0], Tensor):
        return TensorSource(images[0], None if images[1] is None else torch.as_tensor(images[1]))
    if isinstance(images, torch.utils.data.DataLoader):
        images = images.dataset
    if isinstance(images, list | tuple) and images and isinstance(images[0], str | os.PathLike):
        if preprocessing is None:
            raise ValueError("files need preprocessing=Preprocessing(height, width, channels)")
        return FileSource([os.fspath(path) for path in images], preprocessing)
    if isinstance(images, ImageData):
        raise ValueError("give a whole ImageData as train, or one of its splits")
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        return ItemSource(images, preprocessing)
    raise ValueError(
        f"{type(images).__name__} is no set of images: give a tensor, (images, labels), a map-style Dataset, a "
        "DataLoader of one, or a list of paths"
    )
