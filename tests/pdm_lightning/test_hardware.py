"""Whether the devices that a study asks for are there, wherever its jobs run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hydra_plugins.pdm_launchers import LocalLauncher, RayLauncher, SlurmLauncher
from pdm_lightning.cli import main
from pdm_lightning.study.ask import ask
from pdm_lightning.study.hardware import check_devices
from pdm_lightning.study.plan import Plan, make_plan

SMALL = ("data=digits", "budget=smoke", "defense=ce", "attack=none")


def asking(*words: str) -> Plan:
    return make_plan(ask("run", [*SMALL, *words]))


def slurm(gpus: int | None) -> SlurmLauncher:
    return SlurmLauncher(short_jobs=8, gpus_per_node=gpus)


def ray(gpus: float) -> RayLauncher:
    return RayLauncher(short_jobs=8, address=None, num_gpus=gpus)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("launcher", [None, LocalLauncher()])
def test_this_machine_is_asked_for_what_computes_on_it(two_gpus: None, launcher: object) -> None:
    check_devices(asking("trainer=ddp", "trainer.devices=2"), launcher)
    with pytest.raises(
        ValueError, match=r"trainer.devices=4: PyTorch sees 2 GPUs here.*use trainer.devices=2"
    ):
        check_devices(asking("trainer=ddp", "trainer.devices=4"), launcher)
    with pytest.raises(ValueError, match=r"craft.devices=3: PyTorch sees 2 GPUs here"):
        check_devices(asking("craft.devices=3", "attack=fgsm_010"), launcher)


def test_a_study_is_sent_from_a_machine_without_its_devices(no_gpu: None) -> None:
    for launcher in (slurm(4), slurm(None), ray(4), object()):
        check_devices(asking("trainer.device=cuda", "trainer.devices=4"), launcher)
    check_devices(asking("trainer.device=cuda"), ray(0.5))
    check_devices(asking("trainer.devices=2"), ray(0))  # auto: two processes on CPUs
    with pytest.raises(
        ValueError, match=r"trainer.device=cuda: PyTorch sees no GPU here; use trainer.device=cpu"
    ):
        check_devices(asking("trainer.device=cuda"))


def test_jobs_that_get_too_few_are_not_sent() -> None:
    with pytest.raises(
        ValueError, match=r"trainer.devices=4: jobs get 2 GPUs each: set hydra.launcher.gpus_per_node=4"
    ):
        check_devices(asking("trainer.devices=4"), slurm(2))
    with pytest.raises(
        ValueError, match=r"trainer.device=cuda: jobs get no GPU: set hydra.launcher.num_gpus=1"
    ):
        check_devices(asking("trainer.device=cuda"), ray(0))


def test_a_plan_needs_no_device_and_a_run_is_told_before_it_computes(
    no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "trainer.device=cuda", f"paths.output={tmp_path / 'out'}"]
    assert main(["plan", *words]) == 0
    capsys.readouterr()
    assert main(["run", *words]) == 2
    assert (
        capsys.readouterr().err
        == "pdml: trainer.device=cuda: PyTorch sees no GPU here; use trainer.device=cpu\n"
    )
    assert not (tmp_path / "out" / "store").exists()


def test_the_number_of_devices_names_no_artifact() -> None:
    keys = {
        tuple(node.key for node in make_plan(ask("plan", ["attack=fgsm_010", *words])))
        for words in ([], ["trainer=ddp"], ["trainer=cpu", "trainer.devices=4"])
    }
    assert len(keys) == 1


TF32 = "trainer.precision=tf32"


def test_tf32_is_refused_where_it_would_train_the_same_weights_again(
    no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, TF32, f"paths.output={tmp_path / 'out'}"]
    assert main(["plan", *words, "trainer.device=cpu"]) == 2
    assert capsys.readouterr().err == (
        "pdml: trainer.precision=tf32 is a mode of CUDA devices, and trainer.device=cpu is none: use "
        "trainer.precision=float32 or bf16\n"
    )
    assert main(["plan", *words]) == 0  # it may be run elsewhere
    capsys.readouterr()
    assert main(["run", *words]) == 2
    told = capsys.readouterr().err
    assert "and trainer.device=auto finds none here: use trainer.precision=float32 or bf16" in told
    assert not (tmp_path / "out" / "store").exists()


def test_tf32_is_sent_where_jobs_get_gpus(no_gpu: None) -> None:
    for launcher in (slurm(1), slurm(None), ray(0.5)):
        check_devices(asking(TF32), launcher)
    with pytest.raises(
        ValueError, match=r"tf32 is a mode .* jobs get no GPU \(set hydra.launcher.num_gpus=1\)"
    ):
        check_devices(asking(TF32), ray(0))


def test_tf32_trains_on_a_gpu(two_gpus: None) -> None:
    check_devices(asking(TF32))
    check_devices(asking(TF32, "trainer.device=cuda", "attack=fgsm_010"))
