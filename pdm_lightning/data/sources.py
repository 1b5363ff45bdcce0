"""Data sets that come with a library: scikit-learn's digits, and torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pdm_lightning.data.base import ImageData, Split, stratified_split

Size = int | list[int] | tuple[int, int] | None

#: Of scikit-learn's 1,797 digits, so many are test images.
DIGITS_TEST = 540

_TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


def digits(
    name: str = "digits",
    size: Size = 16,
    channels: int | None = None,
    val_size: int | float = 257,
    split_seed: int = 0,
) -> ImageData:
    """scikit-learn's 1,797 real handwritten digits, 8x8: 540 test images, validation cut from the rest.

    Grey values 0..16 become 0..255, and the images are enlarged bilinearly to ``size``.

    Parameters
    ----------
    name
        Name of the data set.
    size
        Height and width in pixels, one number or two; None keeps 8x8.
    channels
        1 or 3 (the grey image three times); None keeps 1.
    val_size
        Images cut from train for validation, stratified: a count, or a fraction below 1.
    split_seed
        Seed of the test and validation cuts.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float().mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    images = conform(grey, size, channels)
    rest, test = stratified_split(labels, DIGITS_TEST, split_seed)
    train, validation = cut_validation((images[rest], labels[rest]), val_size, split_seed)
    return ImageData(name, train, validation, (images[test], labels[test]), [str(i) for i in range(10)])


def torchvision_dataset(
    dataset: str,
    name: str | None = None,
    root: str | Path = "data",
    download: bool = False,
    size: Size = None,
    channels: int | None = None,
    val_size: int | float = 5000,
    split_seed: int = 0,
) -> ImageData:
    """One of torchvision's data sets; its own test set, and validation cut from its training set.

    Parameters
    ----------
    dataset
        ``mnist``, ``fashion_mnist``, ``kmnist``, ``svhn``, ``cifar10`` or ``cifar100``.
    name
        Name of the data set; None takes ``dataset``.
    root
        Folder that holds torchvision's own folder (such as ``MNIST/raw``).
    download
        Whether to download into ``root`` what is missing.
    size
        Height and width in pixels, one number or two; None keeps the data set's own.
    channels
        1 or 3; None keeps the data set's own.
    val_size
        Images cut from train for validation, stratified: a count, or a fraction below 1.
    split_seed
        Seed of the validation cut.

    Raises
    ------
    FileNotFoundError
        If the files are not under ``root``, damaged, or cannot be downloaded.
    """
    if dataset not in _TORCHVISION:
        raise ValueError(f"unknown torchvision data set {dataset!r}: take one of {', '.join(_TORCHVISION)}")
    train_set = _open(dataset, root, True, download)
    test_set = _open(dataset, root, False, download)
    images, labels = _tensors(train_set)
    train, validation = cut_validation((conform(images, size, channels), labels), val_size, split_seed)
    images, labels = _tensors(test_set)
    names = getattr(train_set, "classes", None) or range(10)
    # torchvision writes MNIST's classes as "0 - zero"
    classes = [str(label).split(" - ")[0] for label in names]
    return ImageData(name or dataset, train, validation, (conform(images, size, channels), labels), classes)


def cut_validation(split: Split, val_size: int | float, seed: int) -> tuple[Split, Split]:
    """Cut a stratified validation split from a training split; returns (train, validation)."""
    images, labels = split
    kept, cut = stratified_split(labels, val_size, seed)
    return (images[kept], labels[kept]), (images[cut], labels[cut])


def conform(images: Tensor, size: Size, channels: int | None) -> Tensor:
    """Bring uint8 images (N, C, H, W) to a size (bilinear, antialiased) and 1 or 3 channels (601 luma)."""
    check_channels(channels)
    if size is not None and (height_width := pair(size)) != tuple(images.shape[2:]):
        # in parts: the floating copy of a whole data set would need four times its memory
        images = torch.cat([_resize(part, height_width) for part in images.split(4096)])
    if channels == 3 and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114])
        return torch.cat([_luma(part, weights) for part in images.split(4096)])
    return images


def pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from one number or two; ValueError for anything else."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in both):
        raise ValueError(f"data.size={size!r}: take one number of pixels, or [height, width]")
    return both[0], both[1]


def check_channels(channels: int | None) -> None:
    """ValueError unless channels is 1, 3 or None."""
    if channels not in (None, 1, 3):
        raise ValueError(f"data.channels={channels!r}: take 1 (grey), 3 (RGB) or null (as found)")


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    shown = F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
    return shown.round().clamp(0, 255).to(torch.uint8)


def _luma(images: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", images.float(), weights).round().to(torch.uint8)[:, None]


def _open(dataset: str, root: str | Path, train: bool, download: bool) -> Any:
    """Torchvision's data set object, with one clear line where it cannot be had."""
    import torchvision.datasets

    cls = getattr(torchvision.datasets, _TORCHVISION[dataset])
    split: dict[str, Any] = {"split": "train" if train else "test"} if dataset == "svhn" else {"train": train}
    title = _TORCHVISION[dataset]
    try:
        return cls(root, download=download, **split)
    except (RuntimeError, OSError) as error:
        if download:
            reason = " ".join(str(error).split())
            raise FileNotFoundError(
                f"{title} could not be downloaded to '{root}' ({reason}): "
                "put its files there, or add data.root=/path"
            ) from error
        damaged = " or damaged" if "corrupted" in str(error) else ""
        raise FileNotFoundError(
            f"{title} not found{damaged} under '{root}': add data.download=true or data.root=/path"
        ) from error


def _tensors(dataset: Any) -> Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64 of a torchvision data set."""
    images = torch.as_tensor(dataset.data)
    labels = torch.as_tensor(
        getattr(dataset, "targets", None) if hasattr(dataset, "targets") else dataset.labels
    )
    if images.dim() == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    return images, labels.long()
