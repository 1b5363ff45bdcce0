"""``pdml store verify``: what is found to be wrong, and that a run mends what is taken out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdm_lightning.cli import main
from pdm_lightning.store import Store

Capture = pytest.CaptureFixture[str]


def verify(output: Path, *words: str) -> int:
    return main(["store", "verify", f"paths.output={output}", *words])


@pytest.fixture
def copy(tiny_study: Any, tmp_path: Path) -> Path:
    """A finished study's output folder, to be damaged."""
    shutil.copytree(tiny_study.pristine, tmp_path / "outputs")
    return tmp_path / "outputs"


def test_everything_is_as_it_should_be(copy: Path, capsys: Capture) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert verify(copy) == 0
    out = capsys.readouterr().out
    assert out.startswith("18 artifacts, ")
    assert out.endswith(": all as they should be\n")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def _flip(path: Path) -> None:
    """Change one byte and nothing else."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_each_fault_is_found_and_a_run_mends_what_is_taken_out(
    copy: Path, tiny_study: Any, capsys: Capture
) -> None:
    found = Store(copy / "store")
    artifacts = {artifact.kind: artifact for artifact in found.list()}
    score, clean, tsne, craft = (artifacts[kind] for kind in ("score", "clean", "tsne", "craft"))
    name = max(craft.manifest["files"], key=lambda name: craft.manifest["files"][name]["size"])
    _flip(craft.file(name))
    clean.file(next(iter(clean.manifest["files"]))).unlink()
    (tsne.path / "manifest.json").unlink()
    moved = score.path.with_name("f" * 16)
    score.path.rename(moved)
    assert verify(copy) == 1
    lines = capsys.readouterr().out.splitlines()
    by_name = {line.partition(": ")[0]: line for line in lines[:-1]}
    assert f"the content of '{name}' has changed" in by_name[f"craft/{craft.key}"]
    assert "is missing" in by_name[f"clean/{clean.key}"]
    assert "it has no manifest.json" in by_name[f"tsne/{tsne.key}"]
    assert f"its manifest is that of score/{score.key}" in by_name[f"score/{'f' * 16}"]
    assert len(by_name) == 4
    assert all("--remove takes it out" in line for line in by_name.values())
    assert lines[-1].endswith(": 4 faults in 4 of them")
    assert verify(copy, "--remove") == 0
    assert all(line.endswith("; taken out") for line in capsys.readouterr().out.splitlines()[:-1])
    assert len(list((copy / "store" / ".trash").iterdir())) == 4
    # the score of the craft that is gone misses its parent, and the run below makes both anew
    words = [word for word in tiny_study.words if not word.startswith("paths.")]
    assert main(["run", *words, f"paths.output={copy}"]) == 0
    capsys.readouterr()
    assert verify(copy) == 0


def test_parents_strays_and_names(copy: Path, capsys: Capture) -> None:
    """Faults that no new build mends stay where they are, and so does the exit status."""
    found = Store(copy / "store")
    artifacts = {artifact.kind: artifact for artifact in found.list()}
    craft, clean = artifacts["craft"], artifacts["clean"]
    children = [a for a in found.list() if craft.key in a.manifest["parents"].values()]
    shutil.rmtree(craft.path)
    (clean.path / "note.txt").touch()
    (copy / "store" / "train" / "latest").mkdir()
    for words in ([], ["--remove"]):
        assert verify(copy, *words) == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2 + len(children) + 1
        for child in children:
            assert any(
                f"score/{child.key}: its craft, {craft.key}, is not in the store" in line for line in lines
            )
        assert any(
            "holds 'note.txt', which its manifest does not name; delete that file" in line for line in lines
        )
        assert any(line.startswith("train/latest: this is no artifact's name; move") for line in lines)
    assert verify(copy, clean.key, "features") == 1
    assert "holds 'note.txt'" in capsys.readouterr().out


def test_what_was_made_of_another_parent(tmp_path: Path, capsys: Capture) -> None:
    found = Store(tmp_path / "store")

    def writes(text: str) -> Callable[[Path], None]:
        return lambda folder: (folder / "x.txt").write_text(text) and None

    parent = found.get("train", {}, {}, writes("one"))
    child = found.get("clean", {}, {"train": parent.key}, writes("child"))
    shutil.rmtree(parent.path)
    found.get("train", {}, {}, writes("two"))
    assert verify(tmp_path) == 1
    assert f"clean/{child.key}: was made of another train than {parent.key}" in capsys.readouterr().out
    assert verify(tmp_path, "--remove") == 0
    assert not child.path.exists()


def test_what_is_being_built_anew_is_passed_over(
    copy: Path, plant_lease: Callable[..., Path], capsys: Capture
) -> None:
    craft = next(artifact for artifact in Store(copy / "store").list() if artifact.kind == "craft")
    (craft.path / "manifest.json").write_text("{")
    lease = plant_lease(copy / "store", f"craft-{craft.key}", alive=True)
    assert verify(copy, "craft", "--remove") == 0
    assert craft.path.is_dir()
    lease.unlink()
    assert verify(copy, "craft") == 1
    assert "its manifest is damaged" in capsys.readouterr().out
