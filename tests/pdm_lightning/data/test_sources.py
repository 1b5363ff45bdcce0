from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from pdm_lightning.data.sources import conform, digits, torchvision_dataset


def write_idx(path: Path, array: np.ndarray) -> None:
    """The IDX format of the MNIST family: magic number with the dimensions, big-endian sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes())


def write_mnist(root: Path, train: int = 60, test: int = 20) -> None:
    rng = np.random.default_rng(0)
    for prefix, n in (("train", train), ("t10k", test)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 200, (n, 28, 28)).astype(np.uint8)
        images[:, 0, 0] = labels
        write_idx(root / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", labels)


def test_digits() -> None:
    data = digits()
    assert (data.name, data.shape, data.num_classes) == ("digits", (1, 16, 16), 10)
    assert [len(s[1]) for s in (data.train, data.validation, data.test)] == [1000, 257, 540]
    whole = torch.bincount(torch.from_numpy(load_digits().target).long())
    for images, labels in (data.train, data.validation, data.test):
        share = torch.bincount(labels, minlength=10) / len(labels)
        assert (share - whole / 1797).abs().max() < 0.005
        assert images.max() == 255
    again = digits(split_seed=1)
    assert torch.equal(digits().test[0], data.test[0]) and not torch.equal(again.test[0], data.test[0])


def test_digits_are_scikit_learns() -> None:
    """Every 8x8 image, label included, stands in exactly one split."""
    data = digits(size=None)
    bunch = load_digits()
    wanted = sorted(
        (np.rint(x * 255 / 16).astype(np.uint8).tobytes(), int(y))
        for x, y in zip(bunch.images, bunch.target, strict=True)
    )
    found = [
        (x.numpy().tobytes(), int(y))
        for images, labels in (data.train, data.validation, data.test)
        for x, y in zip(images, labels, strict=True)
    ]
    assert sorted(found) == wanted


def test_mnist_from_its_files(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = torchvision_dataset("mnist", root=tmp_path, val_size=10)
    assert (data.name, data.shape, data.classes) == ("mnist", (1, 28, 28), [str(i) for i in range(10)])
    assert [len(s[1]) for s in (data.train, data.validation, data.test)] == [50, 10, 20]
    for images, labels in (data.train, data.validation, data.test):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
    shown = torchvision_dataset("mnist", root=tmp_path, val_size=10, size=[8, 12], channels=3)
    assert shown.shape == (3, 8, 12)


def test_packed_mnist_needs_download_to_be_unpacked(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for path in list((tmp_path / "MNIST" / "raw").iterdir()):
        with gzip.open(f"{path}.gz", "wb") as packed:
            packed.write(path.read_bytes())
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.download=true"):
        torchvision_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("dataset", "title"),
    [
        ("mnist", "MNIST"),
        ("fashion_mnist", "FashionMNIST"),
        ("kmnist", "KMNIST"),
        ("svhn", "SVHN"),
        ("cifar10", "CIFAR10"),
        ("cifar100", "CIFAR100"),
    ],
)
def test_missing_data(dataset: str, title: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        torchvision_dataset(dataset, root=tmp_path / "none")
    message = str(caught.value)
    assert message.startswith(f"{title} not found")
    assert message.endswith(f"under '{tmp_path / 'none'}': add data.download=true or data.root=/path")
    assert "\n" not in message


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading\n train-images")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(
        FileNotFoundError, match=r"^MNIST could not be downloaded to .* \(Error downloading train-images\)"
    ):
        torchvision_dataset("mnist", root=tmp_path, download=True)


def test_unknown_dataset() -> None:
    with pytest.raises(ValueError, match="unknown torchvision data set 'imagenet': take one of mnist"):
        torchvision_dataset("imagenet")


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_colour_layouts(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR keeps (N, H, W, C) and lists, SVHN (N, C, H, W) and no class names."""
    pixels = np.arange(40 * 3 * 32 * 32).reshape(40, 3, 32, 32).astype(np.uint8)
    labels = np.arange(40) % 10

    def fake(root: str, download: bool, **split: object) -> SimpleNamespace:
        if dataset == "svhn":
            assert split["split"] in ("train", "test")
            return SimpleNamespace(data=pixels, labels=labels)
        assert isinstance(split["train"], bool)
        return SimpleNamespace(
            data=pixels.transpose(0, 2, 3, 1), targets=labels.tolist(), classes=list("abcdefghij")
        )

    monkeypatch.setattr(torchvision.datasets, {"cifar10": "CIFAR10", "svhn": "SVHN"}[dataset], fake)
    data = torchvision_dataset(dataset, val_size=10)
    assert np.array_equal(data.test[0].numpy(), pixels)
    assert data.test[1].tolist() == labels.tolist()
    assert data.classes == (list("abcdefghij") if dataset == "cifar10" else [str(i) for i in range(10)])


@pytest.mark.parametrize("size", [(16, 20), (40, 30)])
def test_resizing_as_pillow_does(size: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    ours = conform(torch.from_numpy(grey), size, None).numpy()
    for image, shown in zip(grey, ours, strict=True):
        wanted = np.asarray(Image.fromarray(image[0]).resize(size[::-1], Image.Resampling.BILINEAR))
        assert np.abs(wanted.astype(int) - shown[0]).max() <= 1


def test_channels() -> None:
    grey = torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8)
    colour = conform(grey, None, 3)
    assert torch.equal(colour, torch.cat([grey] * 3, 1))
    assert torch.equal(conform(colour, None, 1), grey)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None]
    assert conform(red, None, 1).item() == 76  # 0.299 * 255
    assert conform(grey, 4, None) is grey


@pytest.mark.parametrize("wrong", [0, -3, [3], [3, 4, 5], [3, True]])
def test_wrong_size(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"data\.size="):
        conform(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), wrong, None)


def test_wrong_channels() -> None:
    with pytest.raises(ValueError, match=r"data\.channels=2"):
        conform(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), None, 2)


@pytest.mark.skipif(
    "PDM_DATA_ROOT" not in os.environ, reason="PDM_DATA_ROOT is not set: no real MNIST to read"
)
def test_real_mnist() -> None:
    data = torchvision_dataset("mnist", root=os.environ["PDM_DATA_ROOT"])
    assert [len(s[1]) for s in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    # the published test labels begin so
    assert data.test[1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert abs(data.train[0].float().mean() / 255 - 0.1307) < 0.001
