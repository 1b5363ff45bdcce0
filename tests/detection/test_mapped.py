"""Tensors in files: the same numbers as safetensors' own reader gives, with the memory let go of."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from detection import KDE, mapped
from detection import kde as kde_module

torch.set_num_threads(1)

DTYPES = sorted(mapped._NAMES, key=str)


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED", 1)
    monkeypatch.setattr(mapped, "RESIDENT", 1)
    monkeypatch.setattr(mapped, "BLOCK", 64)


def numbers(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (100 * torch.rand(shape, generator=generator)).to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    drawn=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3).map(tuple)),
        max_size=5,
    ),
    least=st.sampled_from([1, 40, 2**26]),
)
def test_files_travel_both_ways(tmp_path_factory: pytest.TempPathFactory, drawn: dict, least: int) -> None:
    folder = tmp_path_factory.mktemp("travel")
    tensors = {name: numbers(dtype, shape) for name, (dtype, shape) in drawn.items()}
    mapped.save(tensors, folder / "ours", {"note": "kept"})
    save_file(tensors, folder / "theirs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "MAPPED", least)
        for found in (
            load_file(folder / "ours"),
            mapped.load(folder / "ours"),
            mapped.load(folder / "theirs"),
        ):
            assert found.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    with safe_open(folder / "ours", framework="pt") as file:
        assert file.metadata() == {"note": "kept"}


def test_layouts_do_not_matter(tmp_path: Path) -> None:
    table = numbers(torch.float32, (5, 7))
    mapped.save({"turned": table.T, "part": table[1:4, ::2]}, tmp_path / "file")
    found = load_file(tmp_path / "file")
    assert torch.equal(found["turned"], table.T) and torch.equal(found["part"], table[1:4, ::2])


def test_what_was_let_go_of_is_read_again(all_mapped: None, tmp_path: Path) -> None:
    table = numbers(torch.float32, (5000, 8))
    mapped.save({"a": table, "b": table + 1}, tmp_path / "file")
    found = mapped.load(tmp_path / "file")
    assert mapped.is_mapped(found["a"]) and mapped.is_mapped(found["a"][3:9, 2:])
    assert not mapped.is_mapped(table)
    for part in (found["a"], found["b"][100:200], found["a"][:0], table):
        mapped.release(part)
    assert torch.equal(found["a"], table) and torch.equal(found["b"], table + 1)


def test_a_tensor_of_a_file_outlives_what_opened_it(all_mapped: None, tmp_path: Path) -> None:
    table = numbers(torch.float64, (300, 4))
    mapped.save({"a": table}, tmp_path / "file")
    part = mapped.load(tmp_path / "file")["a"][10:20]
    gc.collect()
    (tmp_path / "file").unlink()
    assert torch.equal(part, table[10:20])


def test_an_unnamed_file_keeps_what_was_written(all_mapped: None) -> None:
    found = mapped.empty((4000, 3), torch.float32)
    assert mapped.is_mapped(found) and float(found.abs().sum()) == 0
    table = numbers(torch.float32, (4000, 3))
    found.copy_(table)
    mapped.release(found)
    assert torch.equal(found, table)


def test_rows_are_gathered_group_after_group(all_mapped: None) -> None:
    table = numbers(torch.float32, (50, 3))
    groups = [torch.tensor([4, 9]), torch.tensor([0]), torch.tensor([49, 48, 47])]
    found = mapped.gather(table, groups)
    assert mapped.is_mapped(found) and torch.equal(found, table[torch.tensor([4, 9, 0, 49, 48, 47])])


@pytest.mark.parametrize(
    "content", [b"", b"no safetensors", b"\xff" * 64, (10**12).to_bytes(8, "little") + b"{}"]
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file is no safetensors file, or is damaged"):
        mapped.load(tmp_path / "file")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    mapped.save({"a": numbers(torch.float32, (50, 3))}, tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        mapped.load(tmp_path / "file")


def test_formats_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4, dtype=torch.float8_e4m3fn)}, tmp_path / "file")
    with pytest.raises(ValueError, match="'a' is F8_E4M3"):
        mapped.load(tmp_path / "file")
    with pytest.raises(ValueError, match=r"'a' is torch\.complex64"):
        mapped.save({"a": torch.zeros(1, dtype=torch.complex64)}, tmp_path / "other")
    with pytest.raises(ValueError, match="'__metadata__'"):
        mapped.save({"__metadata__": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        mapped.load(tmp_path / "absent")


def test_a_detector_lives_in_its_file(
    all_mapped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.detection.test_streamed import features

    fitted = KDE().fit(features(0), features(1))
    view = features(2).view()
    wanted = fitted.score(view)
    mapped.save(fitted.state_dict(), tmp_path / "state")
    loaded = KDE().load_state_dict(mapped.load(tmp_path / "state"))
    assert torch.equal(loaded.score(view), wanted)
    monkeypatch.setattr(kde_module, "PREPARED", 0)
    loaded = KDE().load_state_dict(mapped.load(tmp_path / "state"))
    torch.testing.assert_close(loaded.score(view), wanted, rtol=1e-12, atol=1e-12)
    again = loaded.state_dict()["kernels"]
    assert mapped.is_mapped(again) and torch.equal(again, fitted.state_dict()["kernels"])


CHILD = """
import sys, torch
from detection import mapped
def held():
    lines = open("/proc/self/status").read().splitlines()
    return {a: int(b.split()[0]) for a, b in (line.split(":") for line in lines) if a in ("RssFile", "VmHWM")}
before = held()
table = mapped.load(sys.argv[1])["a"]
total = sum(float(part.sum(dtype=torch.float64)) for part in mapped.blocks(table))
assert total == 0.5 * table.numel(), total
print(held()["RssFile"] - before["RssFile"], held()["VmHWM"] - before["VmHWM"])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_reading_a_file_to_its_end_leaves_little_in_memory(tmp_path: Path) -> None:
    """256 MiB in 32 MiB blocks: the resident memory that the kernel counts never grows by half of it."""
    mapped.save({"a": torch.full((2**16, 1024), 0.5)}, tmp_path / "file")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "file")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    left, peak = map(int, done.stdout.split())
    assert left < 2**15 and peak < 2**17  # KiB
