"""Files of weights from strangers: one line for whatever they hold."""

from __future__ import annotations

import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pdm_lightning.models import pretrained

MEGABYTE = 1 << 20


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        pretrained.read(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    whole, bomb = tmp_path / "whole.pt", tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(MEGABYTE)}, whole)
    with zipfile.ZipFile(whole) as held, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in held.infolist():
            packed.writestr(entry.filename, held.read(entry))
    assert bomb.stat().st_size < MEGABYTE / 8
    assert "is compressed" in refused(bomb)


class Swelling:
    """What makes a gigabyte out of a number."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return bytearray, (1 << 30,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_number_does_not_become_a_buffer(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    held = {"state_dict": net().state_dict(), "more": Swelling()}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    assert "holds other things than weights" in refused(path)


ODD: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "sparse": (torch.Tensor.to_sparse, "holds no plain numbers in '1.weight'"),
    "quantised": (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "holds no plain numbers"),
    "meta": (lambda w: w.to("meta"), "holds no plain numbers"),
    "complex": (lambda w: w + 0j, "holds no plain numbers"),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("what", ODD)
def test_tensors_that_are_no_plain_numbers_are_named(what: str, tmp_path: Path) -> None:
    change, told = ODD[what]
    state = net().state_dict()
    torch.save(state | {"1.weight": change(state["1.weight"])}, tmp_path / "net.pt")
    assert told in refused(tmp_path / "net.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_of_torchscript_is_told_what_to_save(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(net()).save(str(path))
    told = refused(path)
    assert "holds a TorchScript program" in told and "weights_only=False" not in told


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_checkpoints_are_one_line(zipped: bool, tmp_path: Path) -> None:
    path, draw = tmp_path / "net.pt", random.Random(0)
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert pretrained.read(path)[0].keys() == net().state_dict().keys()
    whole = path.read_bytes()
    told = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            pretrained.read(path)
        except ValueError as error:
            assert "\n" not in str(error)
            told += 1
    assert told > 100


def test_a_readout_that_is_none_is_refused(tmp_path: Path) -> None:
    save_file(net().state_dict(), tmp_path / "net.safetensors", metadata={"readout": "sideways"})
    assert "readout" in refused(tmp_path / "net.safetensors")


def test_what_is_a_pickle_and_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(pickle.dumps(Swelling()))
    assert "holds other things than weights" in refused(tmp_path / "net.pt")


def test_the_key_of_the_weights_is_named(tmp_path: Path) -> None:
    path, state = tmp_path / "net.pt", net().state_dict()
    torch.save({"model_ema": state, "epoch": 3}, path)
    assert "one under 'model_ema': save that alone, as torch.save(checkpoint['model_ema'], ...)" in refused(
        path
    )
    torch.save({**state, "epoch": 3}, path)
    assert "'epoch' in it is no tensor" in refused(path)
    torch.save({"model_ema": {}, "epoch": 3}, path)
    assert "torch.save(net.state_dict(), ...) makes one" in refused(path)
