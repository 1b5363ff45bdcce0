"""A crafting shared among processes gives what one process gives, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import runpy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from attacks import FGSM, Setup
from pdm_lightning.crew import WorkerFailed
from pdm_lightning.stages import craft, engine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STUDY = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))
CPU = torch.device("cpu")


def silent(done: int, **_: Any) -> None:
    """Show nothing."""


def crafted(study: Any, node: Any, folder: Path, **runtime: Any) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    node = replace(node, runtime=node.runtime | runtime)
    craft.build(node, folder, study.fresh())
    return load_file(folder / "adversarial.safetensors")


@pytest.mark.parametrize(
    ("threat", "attack"), [("gray_box", "bim_010"), ("white_box", "cw_wb"), ("black_box", "cw_wb")]
)
def test_equal_to_one_process(threat: str, attack: str, threat_study: Any, tmp_path: Path) -> None:
    """Float32: the same images in the same order, 99.9 % of pixels or L2 within 0.5 %."""
    node = threat_study.node(threat, attack)
    one = crafted(threat_study, node, tmp_path / "one", batch_size=6)
    three = crafted(threat_study, node, tmp_path / "three", batch_size=4, devices=3)
    assert one.keys() == three.keys()
    assert torch.equal(one["index"], three["index"])
    assert torch.equal(one["y"], three["y"])
    if attack == "bim_010":
        assert ((one["x_adv"] - three["x_adv"]).abs() < 1e-6).float().mean() >= 0.999
    assert (one["success"] == three["success"]).float().mean() >= 0.99
    both = one["success"] & three["success"]
    if both.any():
        assert three["l2"][both].mean() == pytest.approx(float(one["l2"][both].mean()), rel=5e-3)
    assert sorted(p.name for p in (tmp_path / "three").iterdir()) == ["adversarial.safetensors", "craft.json"]


def test_only_missing_batches_are_attacked(threat_study: Any, tmp_path: Path) -> None:
    """What an earlier call finished stays, down to the byte."""
    node = threat_study.node("gray_box", "fgsm_010")
    node = replace(node, runtime=node.runtime | {"batch_size": 4, "devices": 2})
    context = threat_study.fresh()
    whole = crafted(threat_study, node, tmp_path / "whole")
    (tmp_path / "part").mkdir()
    begun = engine.Engine(Setup(fold=False), 0.0, "")
    craft.craft_parts(node, _batches(tmp_path / "part"), context, CPU, [whole["index"][4:8]], begun, silent)
    kept = next((tmp_path / "part" / "batches").glob("*.safetensors"))
    marked = load_file(kept) | {"l0": torch.full((4,), 77.0)}
    craft.save_file(marked, kept)
    assert (
        crafted(threat_study, node, tmp_path / "part")["l0"].tolist()
        == whole["l0"][:4].tolist() + [77.0] * 4 + whole["l0"][8:].tolist()
    )


def _batches(folder: Path) -> Path:
    (folder / "batches").mkdir(parents=True)
    return folder


def test_a_resumed_crafting_keeps_its_engine(threat_study: Any, tmp_path: Path) -> None:
    node = threat_study.node("gray_box", "bim_010")
    begun = engine.Engine(Setup(channels_last=True, micro_batch=3), 0.5, "another machine")
    engine.begin(tmp_path, begun)
    made = craft.build(node, tmp_path, threat_study.fresh())
    assert made == {"engine": begun.as_dict()}


def test_other_settings_than_it_was_begun_with(threat_study: Any, tmp_path: Path) -> None:
    """The exact path, a micro-batch: what the command asks for counts, not what was begun."""
    node = threat_study.node("gray_box", "bim_010")
    for folder, asked in (("a", {"fold": False}), ("b", {"micro_batch": 7})):
        (tmp_path / folder).mkdir()
        engine.begin(tmp_path / folder, engine.Engine(Setup(micro_batch=3), 0.5, "another machine"))
        again = replace(node, runtime=node.runtime | asked)
        setup = craft.build(again, tmp_path / folder, threat_study.fresh())["engine"]["setup"]
        assert {name: setup[name] for name in asked} == asked


def test_what_a_killed_process_left_half_written(threat_study: Any, tmp_path: Path) -> None:
    _batches(tmp_path)
    (tmp_path / "batches" / "00000001.safetensors.new").write_bytes(b"half")
    (tmp_path / "engine.json.123").write_text("{")
    crafted(threat_study, threat_study.node("gray_box", "fgsm_010"), tmp_path, batch_size=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adversarial.safetensors", "craft.json"]


class Stopped(BaseException):
    """Stands for a kill at one point."""


@pytest.mark.parametrize("point", ["in the clean-up", "after it", "before the last file"])
def test_a_kill_after_the_last_batch_costs_no_batch(
    point: str, threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any, **__: Any) -> None:
        if point == "in the clean-up":
            next((tmp_path / "batches").iterdir()).unlink()
        raise Stopped

    node = threat_study.node("gray_box", "fgsm_010")
    node = replace(node, runtime=node.runtime | {"batch_size": 5})
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        if point == "in the clean-up":
            patch.setattr(craft.shutil, "rmtree", kill)
        elif point == "before the last file":
            patch.setattr(craft, "write_text", kill)
        made = craft.build(node, tmp_path, threat_study.fresh())
        raise Stopped  # before the store has written the manifest
    monkeypatch.setattr(craft, "craft_parts", lambda *_: pytest.fail("attacked again"))
    again = craft.build(node, tmp_path, threat_study.fresh())
    assert again["engine"]["setup"]["fold"]
    assert point != "after it" or again == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adversarial.safetensors", "craft.json"]
    assert load_file(tmp_path / "adversarial.safetensors")["index"].tolist()


@pytest.mark.parametrize("name", ["craft.json", "adversarial.safetensors"])
def test_a_torn_result_is_crafted_from_the_batches(name: str, threat_study: Any, tmp_path: Path) -> None:
    node = threat_study.node("gray_box", "fgsm_010")
    whole = crafted(threat_study, node, tmp_path)
    begun = (tmp_path / name).read_bytes()[:30]
    (tmp_path / name).unlink()  # what was loaded is mapped to it
    (tmp_path / name).write_bytes(begun)
    again = crafted(threat_study, node, tmp_path)
    assert torch.equal(again["index"], whole["index"])
    assert torch.equal(again["x_adv"], whole["x_adv"])


def test_a_fold_that_is_taken_back_stands_in_the_manifest(
    threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attacks.engine.TOLERANCE", -1.0)
    monkeypatch.setattr("attacks.engine.ROUNDING", -1.0)
    with pytest.warns(RuntimeWarning, match="they stay"):
        made = craft.build(threat_study.node("gray_box", "fgsm_010"), tmp_path, threat_study.fresh())
    assert not made["engine"]["setup"]["fold"]
    assert made["engine"]["slack"] == 0


def test_the_manifest_says_how_it_was_made(threat_study: Any) -> None:
    node = threat_study.node("gray_box", "bim_010")
    made = threat_study.artifact(node).manifest["made"]["engine"]
    assert made["setup"]["fold"]
    assert made["seconds_per_pass"] > 0
    assert "torch" in made["machine"]
    saved = [json.loads(path.read_text()) for path in (threat_study.output / engine.FOLDER).glob("*.json")]
    count = _attacked(threat_study, node)
    assert any(one["images"][0] == count and one["setup"] == made["setup"] for one in saved)


def _attacked(study: Any, node: Any) -> int:
    return int(study.artifact(node).json("craft.json")["attacked"])


def test_measured_once(threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fastest(classifier: Any, x: Tensor, candidates: list[Setup], keep: tuple) -> tuple[Setup, float]:
        calls.append(len(x))
        return candidates[-1], 0.25

    monkeypatch.setattr(engine, "fastest", fastest)
    node = threat_study.node("gray_box", "bim_010")
    classifier = threat_study.fresh().classifier(node.parents["train"], CPU)
    x, craft_settings = torch.rand(40, 1, 8, 8), {"fold": True, "micro_batch": None}
    model = node.parents["train"].spec["model"]
    first = engine.choose(tmp_path, classifier, model, x, craft_settings)
    again = engine.choose(tmp_path, classifier, model, x, craft_settings)
    assert calls == [40]
    assert first == again
    assert first.setup == Setup(channels_last=True, micro_batch=32)
    engine.choose(tmp_path, classifier, model, x[:20], craft_settings)
    assert calls == [40, 20]
    (path, _) = sorted((tmp_path / engine.FOLDER).glob("*.json"), key=lambda p: p.read_text())
    for ruin in ("{", "[]", '{"setup": {"micro_batch": -1}}'):
        path.write_text(ruin)
    n = len(calls)
    engine.choose(tmp_path, classifier, model, x, craft_settings)
    engine.choose(tmp_path, classifier, model, x[:20], craft_settings)
    assert len(calls) == n + 1  # a damaged record is measured anew


def test_the_exact_path_and_a_given_micro_batch(threat_study: Any, tmp_path: Path) -> None:
    node = threat_study.node("gray_box", "bim_010")
    classifier = threat_study.fresh().classifier(node.parents["train"], CPU)
    model, x = node.parents["train"].spec["model"], torch.rand(4, 1, 8, 8)
    exact = engine.choose(tmp_path, classifier, model, x, {"fold": False, "micro_batch": None})
    assert exact.setup == Setup(fold=False)
    assert not (tmp_path / engine.FOLDER).exists()
    given = engine.choose(tmp_path, classifier, model, x, {"fold": True, "micro_batch": 2})
    assert given.setup.micro_batch == 2


class Broken(FGSM):
    """Fails in whichever process it works."""

    def craft(self, task: Any) -> Any:
        raise OSError(self.errno(), "no room left")

    @staticmethod
    def errno() -> int:
        return errno.ENOSPC


class Wrong(FGSM):
    """Fails with an error of its own."""

    def craft(self, task: Any) -> Any:
        raise ValueError("a mistake\nand its second line")


class Killed(FGSM):
    """Ends its process as the kernel does when memory runs out."""

    def craft(self, task: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("Broken", OSError, "no room left"),
        ("Wrong", ValueError, "^a mistake\n"),
        ("Killed", WorkerFailed, "exit code -9.*smaller craft.batch_size"),
    ],
)
def test_a_failure_is_that_of_a_crafting_in_one_process(
    kind: str, error: type, message: str, threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    node = threat_study.node("gray_box", "fgsm_010")
    node = replace(node, spec=node.spec | {"attack": {"_target_": f"{Path(__file__).stem}.{kind}"}})
    with pytest.raises(error, match=message) as caught:
        crafted(threat_study, node, tmp_path, batch_size=4, devices=2)
    if kind == "Broken":
        assert caught.value.errno == errno.ENOSPC
