"""Saving and loading: the same guard bit for bit, and whatever is no guard refused in one line."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from detection import ODIN, DkNN, FeatureSqueezing, ODINInput, mapped
from pdm_lightning.guard import Architecture, Guard, GuardFileError, container
from pdm_lightning.guard.detectors import CHOICES
from pdm_lightning.models import Classifier, ResNet

Images = Callable[..., Any]


def equal(one: Guard, other: Guard, images: torch.Tensor) -> bool:
    a, b = one.score(images), other.score(images)
    names = ("predicted", "probability", "score", "p_value", "flagged")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


DETECTORS = [name for name in CHOICES if name not in ("lid", "mahalanobis_multi", "dknn", "knn")]


@pytest.mark.parametrize("name", DETECTORS)
def test_scores_are_the_same_after_a_file(
    name: str, classifier: Classifier, stripes: Images, tmp_path: Path
) -> None:
    found = Guard.fit(classifier, stripes(293), fpr=0.1, detector=name)
    again = Guard.load(found.save(tmp_path / "g.safetensors"))
    assert equal(found, again, stripes(64, seed=7)[0])
    assert repr(again.detector) == repr(found.detector)
    assert (again.provenance, again.threshold, again.network) == (
        found.provenance,
        found.threshold,
        found.network,
    )


@pytest.mark.parametrize(
    "detector",
    [
        DkNN(["backbone.stage1", "embedding"], k=5, normalize=False),
        FeatureSqueezing(None, [3], [5, 3, 4.5]),
        ODINInput(10.0, 0.01),
        ODIN(2.5),
    ],
    ids=repr,
)
def test_arguments_of_detectors_stay(
    detector: Any, classifier: Classifier, stripes: Images, tmp_path: Path
) -> None:
    found = Guard.fit(classifier, stripes(293), fpr=0.1, detector=detector)
    again = Guard.load(found.save(tmp_path / "g.safetensors"))
    assert equal(found, again, stripes(20, seed=7)[0])
    assert repr(again.detector) == repr(detector)


def test_one_safetensors_file_that_holds_all(file: Path) -> None:
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]
    assert {name.partition(".")[0] for name in load_file(file)} == {"classifier", "detector", "clean_scores"}
    with safe_open(file, "pt") as opened:
        assert set(opened.metadata()) == {"guard", "sha256"}


@pytest.mark.parametrize("readout", ["direct", "reverse"])
def test_readout_centring_and_shape_stay(readout: str, stripes: Images, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResNet(14, 1, [4, 6, 10], preact=True, leak=0.25)
    classifier = Classifier(network, 10, 3, readout, mean=0.3, std=0.7)
    found = Guard.fit(classifier, stripes(293), fpr=0.1, detector="msp")
    again = Guard.load(found.save(tmp_path / "g.safetensors"))
    assert equal(found, again, stripes(20)[0])
    assert again.network == Architecture(
        "resnet",
        "resnet14",
        {"depth": 14, "in_channels": 1, "widths": [4, 6, 10], "preact": True, "leak": 0.25},
    )


def test_torchvision_s_networks_are_found_and_built_again(tmp_path: Path) -> None:
    from torchvision.models import get_model

    images = torch.randint(0, 256, (80, 3, 32, 32), dtype=torch.uint8)
    classifier = Classifier.wrap(
        get_model("shufflenet_v2_x0_5", num_classes=4), "conv5", 4, mean=[0.4, 0.5, 0.6], std=0.2
    )
    found = Guard.fit(classifier, images, fpr=0.25, detector="msp")
    assert found.network == Architecture("torchvision", "shufflenet_v2_x0_5", {"num_classes": 4})
    again = Guard.load(found.save(tmp_path / "g.safetensors"))
    assert equal(found, again, images)
    found.network = Architecture("torchvision", "shufflenet_v2_x1_0", {"num_classes": 4})
    with pytest.raises(
        ValueError, match=r"'torchvision/shufflenet_v2_x1_0' does not rebuild this classifier"
    ):
        found.save(tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_timm_s_networks_are_found_and_built_again(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    images = torch.randint(0, 256, (80, 1, 32, 32), dtype=torch.uint8)
    network = timm.create_model("resnet10t", num_classes=3, in_chans=1).eval()
    found = Guard.fit(Classifier.wrap(network, "global_pool", 3), images, fpr=0.25, detector="msp")
    assert found.network == Architecture("timm", "resnet10t", {"num_classes": 3, "in_chans": 1})
    assert equal(found, Guard.load(found.save(tmp_path / "g.safetensors")), images)


def own_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))


def test_a_network_of_one_s_own_is_handed_over(stripes: Images, tmp_path: Path) -> None:
    found = Guard.fit(Classifier.wrap(own_network(), "2", 3, mean=0.5), stripes(293), fpr=0.1, detector="msp")
    assert found.network.source == "own"
    path = found.save(tmp_path / "g.safetensors")
    with pytest.raises(GuardFileError, match=r"hand it over, Guard.load\(path, model=network\)"):
        Guard.load(path)
    images = stripes(20)[0]
    assert equal(found, Guard.load(path, model=own_network()), images)
    assert equal(found, Guard.load(path, model=Classifier.wrap(own_network(), "2", 3, mean=0.5)), images)
    with pytest.raises(GuardFileError, match="these are weights of another network"):
        Guard.load(path, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Identity()))
    with pytest.raises(GuardFileError, match=r"tensor 'module.1.bias' is \(6,\)"):
        Guard.load(path, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 3)))
    with pytest.raises(GuardFileError, match="has no layer '2'"):
        Guard.load(path, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(GuardFileError, match="of another readout"):
        Guard.load(path, model=Classifier.wrap(own_network(), "2", 3, "reverse"))


def test_large_tensors_are_mapped(
    guard: Guard, file: Path, stripes: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = []
    monkeypatch.setattr(mapped, "MAPPED", 1)
    monkeypatch.setattr(container, "release", lambda part: let_go.append(mapped.is_mapped(part)))
    found = Guard.load(file)
    assert equal(guard, found, stripes(20)[0])
    # the checksum has looked at all of it, and keeps none of it in memory
    assert let_go and all(let_go) and mapped.is_mapped(found.detector.state_dict()["kernels"])


def test_a_failed_save_leaves_what_was_there(
    guard: Guard, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def broken(tensor: torch.Tensor) -> Any:
        yield memoryview(b"half")
        raise OSError("no space left")

    # the checksum is taken of them first
    whole, calls = container._bytes_of, iter(range(1000))
    count = len(load_file(file))
    monkeypatch.setattr(container, "_bytes_of", lambda t: whole(t) if next(calls) < count + 2 else broken(t))
    with pytest.raises(OSError, match="no space left"):
        guard.save(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("escaped",)


def test_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_bytes(pickle.dumps(_Evil()))
    torch.save({"x": torch.zeros(3)}, tmp_path / "zip")
    torch.save({"x": _Evil()}, tmp_path / "evil")
    for name in ("plain", "zip", "evil"):
        with pytest.raises(
            GuardFileError, match=f"{name}: this is a pickle, which could run code, and is not opened"
        ):
            Guard.load(tmp_path / name)
    assert not (tmp_path / "escaped").exists()


def test_no_guards(tmp_path: Path, file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Guard.load(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(GuardFileError, match="this is no regular file"):
            Guard.load(place)
    save_file({"x": torch.zeros(3)}, tmp_path / "weights")
    with pytest.raises(GuardFileError, match="tells of no guard: this is no guard"):
        Guard.load(tmp_path / "weights")
    save_file({"x": torch.zeros(3)}, tmp_path / "weights", {"format": "pt"})
    with pytest.raises(GuardFileError, match="tells of no guard: this is no guard"):
        Guard.load(tmp_path / "weights")
    with pytest.raises(GuardFileError, match=rf"{file.stat().st_size} bytes, 100 allowed: raise max_bytes"):
        Guard.load(file, max_bytes=100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "long").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    for name in ("empty", "long"):
        with pytest.raises(GuardFileError, match="this is no safetensors file, or it is cut short"):
            Guard.load(tmp_path / name)


def test_every_flipped_bit_of_the_tensors_is_seen(file: Path) -> None:
    raw = file.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    for place in range(start, len(raw), 997):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        with pytest.raises(GuardFileError, match=r"the file is damaged \(its SHA-256 differs\)"):
            Guard.load(file)


def test_the_page_s_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guard.md").read_text(encoding="utf-8")
    section = page.partition("## A detector for your own classifier")[2].partition("\n## ")[0]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {}
    exec(code, told)
    assert len(told["scored"]) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["guard.safetensors"]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real.safetensors")
    guard.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real.safetensors").stat().st_size > 1000
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no regular file: name another"):
        guard.save(tmp_path / "pipe")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "real.safetensors"]
