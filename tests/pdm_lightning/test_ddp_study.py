"""Trainings on several devices in a study: a sweep, errors, and kills at any moment."""

from __future__ import annotations

import csv
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pdm_lightning.cli import main
from pdm_lightning.crew import WorkerFailed
from pdm_lightning.holder import process_start
from pdm_lightning.pace import USUAL
from pdm_lightning.stages import ddp, training
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import Node
from pdm_lightning.study.validate import validate

pytestmark = pytest.mark.slow
ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("ddp_parts")


BROKEN = """\
defaults: [_terms, _self_]
name: broken
label: Broken
use: [broken]
readout: direct
term:
  broken: {_target_: ddp_parts.Broken, weight: 1.0}
"""


def test_a_sweep_of_trainings_on_two_devices(
    parts: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three results, no job run twice, and one that fails in a worker keeps nobody from going on."""
    (tmp_path / "conf" / "defense").mkdir(parents=True)
    (tmp_path / "conf" / "defense" / "broken.yaml").write_text(BROKEN)
    output, environment = tmp_path / "out", dict(os.environ)
    words = [
        *("-m", f"--config-dir={tmp_path / 'conf'}", "attack=none", "data=digits", "data.size=8"),
        *("model=resnet8", "model.widths=[4,4,8]", "budget=smoke", "budget.train.steps=4"),
        *("budget.train.segment=2", "trainer=ddp", "trainer.devices=2", "trainer.device=cpu"),
        *(f"paths.output={output}", "evaluate.bootstrap=20"),
    ]
    assert main(["run", *words, "defense=ce,broken,rce,pdm"]) == 1
    told = capfd.readouterr().err
    names = ("ce", "broken", "rce", "pdm")
    trained = re.findall(r"^\[\d+/\d+\] train digits\S* resnet8\S* (\w+) seed=0$", told, flags=re.MULTILINE)
    assert sorted(trained) == sorted(names)
    line = "train on 2 devices (cpu, cpu): 128 anchors a step, 64 a device; learning rate 0.003, as on one device"
    assert told.count(line) == 4
    (error,) = re.findall(r"^pdml: train .*broken.* failed: (.*)", told, flags=re.MULTILINE)
    assert error.startswith("ArithmeticError: a term of my own (traceback: ")
    trace = Path(re.findall(r"traceback: (.*)\)", error)[0]).read_text()
    assert "ddp_parts.py" in trace
    assert "is wrong" in trace
    results = [json.loads(path.read_text()) for path in output.glob("store/train/*/train.json")]
    assert len(results) == 3
    assert {(one["devices"], one["batch_size"], one["batch_size_per_device"]) for one in results} == {
        (2, 128, 64)
    }
    assert len(list(output.glob("store/features/*/manifest.json"))) == 3
    # what one device asks for is the same
    again = [word for word in words if "device" not in word and word != "trainer=ddp"]
    assert main(["run", *again, "trainer=cpu", "defense=ce,rce,pdm"]) == 0
    assert "] train" not in capfd.readouterr().err
    # scikit-learn sets the two others where it is first imported
    known = {"MPLCONFIGDIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
    assert {name for name in os.environ if os.environ[name] != environment.get(name)} <= known
    assert environment.keys() <= os.environ.keys()
    assert multiprocessing.active_children() == []


SCRIPT = """
import sys
from pathlib import Path
import ddp_parts
output = Path(sys.argv[1])
ddp_parts.build(ddp_parts.fragile(output), output / "two")
"""


def when(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it gives something."""
    for _ in range(2400):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def pids(output: Path) -> list[int]:
    return [int((output / f"pid{rank}").read_text()) for rank in range(2)]


def saved_step(folder: Path) -> int:
    saved = torch.load(folder / "checkpoint" / "last.ckpt", weights_only=True)
    return int(saved["pdm_fit"]["step"])


def test_killed_parents_and_workers_cost_a_segment_and_no_more(parts: Any, tmp_path: Path) -> None:
    """Three calls make one training: the first one's parent is killed, the second one's second worker."""
    folder, order = tmp_path / "two", tmp_path / "order"
    order.write_text("1 5 sleep")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], env=env)
    try:
        when(lambda: not order.exists() or parent.poll() is not None)
        workers = pids(tmp_path)
        assert parent.poll() is None
        assert all(process_start(pid) for pid in workers)
    finally:
        parent.kill()
        parent.wait()
    # one of them sleeps and the other waits for it
    when(lambda: all(process_start(pid) is None for pid in workers))
    assert saved_step(folder) == 3

    order.write_text("1 5 kill")
    with pytest.raises(WorkerFailed, match=r"train-1 was ended \(exit code -9\).*run again to go on"):
        parts.build(parts.fragile(tmp_path), folder)
    assert all(process_start(pid) is None for pid in pids(tmp_path))
    assert saved_step(folder) == 6

    parts.build(parts.fragile(tmp_path), folder)
    parts.build(parts.fragile(tmp_path, devices=1), tmp_path / "one")
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-11
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("two", "one")]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    assert json.loads((folder / "train.json").read_text())["images_seen"] == 12 * 16
    # a log of each call, by the first worker alone; the fourth is that of one device
    assert len(list((tmp_path / "logs").rglob("events.out.tfevents.*"))) == 4


def test_a_watcher_ends_the_processes_and_the_checkpoint_stays(parts: Any, tmp_path: Path) -> None:
    """It sees what it sees of a training on one device."""

    class Enough(BaseException): ...

    (tmp_path / "order").write_text("1 8 sleep")  # the processes would be done before they are ended
    seen: dict[int, list[list[Any]]] = {1: [], 2: []}
    for devices, rows_of_each in seen.items():
        folder = tmp_path / str(devices)
        node, context = parts.fragile(tmp_path, devices), Context(Store(folder / "store"), progress=False)

        def watch(which: Node, rows: Any, node: Node = node, found: list[list[Any]] = rows_of_each) -> None:
            assert which is node
            found.append([(row["step"], row.get("val/accuracy")) for row in rows])
            if len(found) == 2:
                raise Enough

        context.watch = watch
        folder.mkdir(exist_ok=True)
        with pytest.raises(Enough):
            training.build(node, folder, context)
        assert saved_step(folder) == 6
        assert not (folder / "train.json").exists()
    assert all(process_start(pid) is None for pid in pids(tmp_path))
    one, two = seen.values()
    assert [rows[-1][0] for rows in one] == [3, 6]
    for mine, theirs in zip(one, two, strict=True):
        assert [step for step, _ in mine] == [step for step, _ in theirs]
        assert [a for _, a in mine] == pytest.approx([a for _, a in theirs])
    context.watch = None
    training.build(node, folder, context)
    assert (folder / "train.json").exists()


def test_a_process_opens_the_teacher_and_the_first_one_alone_logs(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, store = parts.fragile(tmp_path, devices=1), Store(tmp_path / "store")
    context = Context(store, progress=False)
    store.get("train", node.spec, {}, lambda folder: training.build(node, folder, context))
    seen: dict[int, tuple[Any, ...]] = {}

    def proceed(
        _data: Any, begun: Any, _places: Any, replica: Any, loggers: Any, _show: Any, *rest: Any
    ) -> None:
        teacher, watch, pace = rest
        assert (watch, pace) == (None, USUAL)
        seen[replica.rank] = len(loggers), teacher.state_dict(), begun.steps

    class Here:
        """A crew that works in this process."""

        def __init__(self, name: str, advice: str) -> None:
            self.said: list[Any] = []

        def start(self, target: Any, *args: Any, env: dict[str, str]) -> None:
            assert env["OMP_NUM_THREADS"] == "1"
            target(self.said.append, *args)

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Any:
            return iter(self.said)

    monkeypatch.setattr(ddp, "proceed", proceed)
    monkeypatch.setattr(ddp, "join", lambda *_: None)
    monkeypatch.setattr(ddp, "Crew", Here)
    (tmp_path / "two").mkdir()
    training.train(parts.fragile(tmp_path), node.spec, tmp_path / "two", context, teacher=node)
    assert [(seen[rank][0], seen[rank][2]) for rank in (0, 1)] == [(1, 12), (0, 12)]
    taught = context.classifier(node, torch.device("cpu")).state_dict()
    assert all(torch.equal(seen[rank][1][key], taught[key]) for rank in (0, 1) for key in taught)


def test_the_processes_get_the_gpus_that_are_held(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lent(Context):
        def devices(self, node: Node) -> list[torch.device]:
            return [torch.device("cuda", number) for number in (5, 2)]

    class Deputy:
        """A crew that notes what it is given."""

        places: tuple[str, ...] = ()

        def __init__(self, name: str, advice: str) -> None: ...

        def start(self, target: Any, job: ddp.Job, rank: int, port: int, env: dict[str, str]) -> None:
            Deputy.places += (job.places[rank],)

        def __enter__(self) -> Deputy:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Any:
            yield 0, {}, ()

    monkeypatch.setattr(ddp, "Crew", Deputy)
    training.build(parts.fragile(tmp_path), tmp_path, Lent(Store(tmp_path / "store"), progress=False))
    assert Deputy.places == ("cuda:5", "cuda:2")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs needed")
def test_two_gpus_reach_the_weights_of_one(parts: Any, tmp_path: Path) -> None:
    for devices in (1, 2):
        node = parts.fragile(tmp_path, devices)
        node.runtime["trainer"]["device"] = "cuda"
        parts.build(node, tmp_path / str(devices))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-8


def test_a_finished_training_starts_nobody(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.build(parts.fragile(tmp_path, devices=1), tmp_path / "one")
    monkeypatch.setattr("pdm_lightning.stages.ddp.Crew", None)
    before = (tmp_path / "one" / "train.json").read_bytes()
    parts.build(parts.fragile(tmp_path, devices=2), tmp_path / "one")
    assert (tmp_path / "one" / "train.json").read_bytes() == before


def test_devices_that_cannot_share_the_batch_are_refused_before_anything_is_made(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ask(
        "run", ["trainer=ddp", "trainer.device=cpu", "trainer.devices=3", "budget.train.batch_size=100"]
    )
    with pytest.raises(ValueError, match=r"use budget.train.batch_size=99, or trainer.devices=2"):
        validate(cells)
    # where the data set is smaller than the batch, it is known only when that is read
    monkeypatch.setattr("pdm_lightning.stages.ddp.Crew", None)
    node = parts.fragile(tmp_path, devices=4)
    node.spec["train"]["batch_size"] = 64
    with pytest.raises(
        ValueError, match=r"cannot share a batch of 50 evenly: use budget.train.batch_size=48"
    ):
        parts.build(node, tmp_path / "four")
