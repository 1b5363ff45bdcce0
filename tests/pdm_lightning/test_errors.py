"""Every wrong word gets one line that names it and the mend, and exit status 2, before anything is computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import HydraException
from hydra.types import RunMode

from pdm_lightning.cli import main
from pdm_lightning.errors import explain, nearest
from pdm_lightning.study.cell import resolve
from pdm_lightning.study.validate import validate
from pdm_lightning.study.words import CONFIG, config_loader

torch.set_num_threads(1)

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")

# a command line, and what its error has to say
WORDS: list[Any] = [
    # options of groups
    ("defense=pmd", "defense=pmd: there is no such option: did you mean 'pdm'?"),
    ("defense=zzz", "the options are ce, ce_input_gradient, ce_jacobian, frozen"),
    ("defense=_terms", "defense=_terms: there is no such option"),
    ("model=", "model=: there is no such option: the options are import, resnet110"),
    ("attack=null", "attack=null: there is no such option"),
    ("experiment=tabel2", "did you mean 'table2'?"),
    ("experiment=null", "experiment=null: there is no such option"),
    ("defense=[ce,pdm]", "defense=[ce,pdm]: one option at a time; to run each of them: -m defense=ce,pdm"),
    ("-m defense=ce,pmd", "defense=pmd: there is no such option"),
    # keys
    ("attack.epss=1", "unknown option 'attack.epss': did you mean 'attack.eps'?"),
    ("attack.iterations=5", "'attack.iterations': attack=fgsm_010 has eps, loss, targeted, target_class"),
    ("modle=resnet8", "unknown option 'modle': did you mean 'model'?"),
    ("foo=1", "unknown option 'foo': pdml run --cfg job shows all options"),
    ("eps=0.1", "unknown option 'eps': did you mean 'attack.eps'"),
    ("budget.steps=5", "unknown option 'budget.steps': did you mean 'budget.train.steps'?"),
    ("attack.eps.x=1", "attack.eps is a value, with nothing inside: set attack.eps=..."),
    ("+attack.eps=1", "attack.eps is there already: leave out the '+'"),
    ("+attack=cw", "attack is chosen already: leave out the '+'"),
    ("-m attack=fgsm,cw attack.eps=0.1,0.2", "unknown option 'attack.eps': attack=cw has none"),
    ("experiment=table2 defense=ce,pdm attack.epss=1", "unknown option 'attack.epss'"),
    ("~attack", "attack is missing"),
    ("budget.train=5", "budget.train=5: set the values inside it instead, as budget.train.<name>=..."),
    # overrides that are none
    ("defense", "'defense' needs a value: defense=..., one of ce, ce_input_gradient"),
    ("quickstart", "'quickstart' is no override: did you mean experiment=quickstart?"),
    ("nonsense", "'nonsense' is no override: write key=value"),
    ("=x", "'=x' has no key before '='"),
    ("attack.eps=[1", "'attack.eps=[1' cannot be read"),
    ("data.root=/a=b", "quote the value, for the shell and for Hydra: 'data.root=\"/a=b\"'"),
    ("threat=blackbox", "threat=blackbox: there is no such option: did you mean 'black_box'?"),
    ("threat.proxy.labels=hard", "unknown option 'threat.proxy.labels'"),
    ("threat=black_box model@threat.proxy.model=resnet9", "there is no such option: did you mean 'resnet8'?"),
    ("attack=cw_wb", "attack=cw_wb needs the detector's scores and the gradients"),
    ("defense=ce,", "put a value on both sides of a comma"),
    # sweeps
    ("defense=ce,pdm", "defense=ce,pdm lists several values: add -m"),
    ("seed=0,1", "seed=0,1 lists several values: add -m"),
    ("title=a,b", "one text with commas is quoted: 'title=\"a,b\"'"),
    ("-m experiment=table1,table2", "experiment=table1,table2: one experiment at a time"),
    ("-m attack.eps=interval(0,1)", "attack.eps=interval(0,1): only lists"),
    # flags
    ("--multirn", "unknown flag --multirn: did you mean '--multirun'?"),
    ("--cfg jb", "invalid choice: 'jb'"),
    ("--config-dir nowhere", "--config-dir nowhere: there is no such folder"),
    # values that are missing
    ("attack.eps=???", "attack.eps has no value: set attack.eps=..."),
    ("attack.eps=${foo}", "attack.eps: Interpolation key 'foo' not found"),
]

VALUES: list[Any] = [
    ("budget.train.steps=abc", "budget.train.steps=abc: a whole number of at least 1 needed (or null)"),
    ("budget=lab budget.train.epochs=null", "budget.train.steps=null and budget.train.epochs=null: set one"),
    ("budget.images.cheap=0", "budget.images.cheap=0: a whole number"),
    ("defense.q=2", "defense.q=2: a number from 0 to 1 needed"),
    ("defense.use=[rce,ec]", "defense.use: 'ec' is unknown"),
    ("defense.use=ce", "defense.use=ce: a list needed, as 'defense.use=[ce]'"),
    ("defense.readout=direct", "term 'rce' trains a reverse readout"),
    (
        "defense.term.siamese.norm=l3",
        "defense.term.siamese.norm=l3: siamese norm 'l3' is unknown: choose l1 or l2",
    ),
    ("seed=-1", "seed=-1: a whole number of at least 0 needed"),
    ("attack.eps=-1", "attack.eps=-1: eps must be finite and >= 0"),
    ("attack.eps=abc", "attack.eps=abc: a number needed"),
    ("attack.eps='0.1'", "attack.eps='0.1': a number needed"),
    ("attack.loss=mse", "attack.loss=mse: loss must be one of ce, margin"),
    ("attack.targeted=5", "attack.targeted=5: use true or false"),
    ("attack._target_=nowhere.Attack", "attack._target_=nowhere.Attack cannot be imported"),
    ("attack._target_=torch.nn.Linear", "has no 'needs': name a subclass of attacks.Attack"),
    ("attack._target_=attacks.CarliniWagner", "attack.eps: attacks.CarliniWagner takes no 'eps'"),
    ("+attack.foo=3", "attack.foo: attacks.FGSM takes no 'foo': it takes eps, loss"),
    ("detector.bandwidth=foo", "detector.bandwidth=foo: bandwidth must be one of validation, loo, nn_median"),
    ("detector.kernels_per_class=x", "detector.kernels_per_class=x: a whole number needed"),
    (
        "detector.kernels_per_class=2000",
        "detector.kernels_per_class=2000: only features.train_per_class=1000",
    ),
    ("threat._target_=attacks.FGSM", "threat._target_=attacks.FGSM: has no 'grants'"),
    ("optimizer.lr=abc", "optimizer.lr=abc: a number above 0 needed"),
    ("optimizer=sgd_paper optimizer.momentum=-1", "optimizer.momentum=-1: Invalid momentum value"),
    ("optimizer=sgd_paper optimizer.momentum=abc", "optimizer.momentum=abc: a number needed"),
    ("optimizer.betas=[2,3]", "optimizer=adamw: Invalid beta parameter at index 0: 2"),
    ("optimizer.schedule.kind=warp", "optimizer.schedule.kind=warp: use multistep, cosine or constant"),
    ("optimizer.schedule.milestones=[2]", "optimizer.schedule.milestones=2: a number from 0 to 1"),
    ("model.depth=9", "model.depth=9: depth 9 is not 6n+2: choose 8, 14, 20"),
    (
        "model=torchvision model.arch=resnt18",
        "model.arch=resnt18: torchvision has no arch 'resnt18': did you mean",
    ),
    ("model=import", "model.target=null: a dotted path needed, as model.target=my_package.make_net"),
    ("model=import model.target=nowhere.net", "model._target_=nowhere.net cannot be imported"),
    ("defense.use=[]", "defense.use=[]: use some of ce"),
    ("model.widths=5", "model.widths=5: a list needed"),
    ("model.preact=maybe", "model.preact=maybe: use true or false"),
    ("trainer.device=gpu", "trainer.device='gpu' is unknown: use auto, cpu, cuda"),
    ("trainer.threads=0", "trainer.threads=0: a whole number of at least 1"),
    ("trainer.precision=fp8", "trainer.precision=fp8: choose float32, tf32 or bf16"),
    ("trainer.channels_last=3", "trainer.channels_last=3: use true or false"),
    ("trainer.compile=maybe", "trainer.compile=maybe: use true or false"),
    ("store.on_stale=x", "store.on_stale=x: use warn or rebuild"),
    ("logger.mode=x", "logger.mode=x: use auto, online or offline"),
    ("craft.batch_size=0", "craft.batch_size=0: a whole number of at least 1 needed (or null)"),
    ("craft.fpr=2", "craft.fpr=2: a number from 0 to 1 needed"),
    ("craft.fpr=0", "craft.fpr=0: a number from 0 to 1 needed"),
    ("craft.fpr=1", "craft.fpr=1: a rate below 1 needed"),
    ("craft.fpr=x", "craft.fpr=x: a number from 0 to 1 needed"),
    ("craft.limits=x", "craft.limits=x: use validation or loo"),
    ("evaluate.fpr=0.05", "evaluate.fpr=0.05: a list of rates needed, as '[0.01,0.05]'"),
    ("evaluate.fpr=[0.05,2]", "evaluate.fpr=2: a number from 0 to 1 needed"),
    ("evaluate.fpr=[1]", "evaluate.fpr=1: a rate below 1 needed"),
    ("evaluate.worst_case=x", "evaluate.worst_case=x: use true or false"),
    (
        "threat=black_box threat.proxy.labels=x",
        "threat.proxy.labels=x: labels 'x' of a distillation are unknown: choose soft or hard",
    ),
    (
        "threat=black_box threat.proxy.temperature=0",
        "threat.proxy.temperature=0: temperature 0 is not a finite",
    ),
    (
        "threat=black_box threat.proxy.labels=hard threat.proxy.temperature=4",
        "temperature 4 does nothing to hard labels: set 1, or labels soft",
    ),
    (
        "threat=black_box threat.proxy.model.depth=7",
        "threat.proxy.model.depth=7: depth 7 is not 6n+2: choose 8",
    ),
    ("threat=black_box ~threat.proxy.model", "threat.proxy.model is missing"),
    ("threat=black_box threat.proxy=null", "threat.proxy=null: set the values inside it instead"),
    ("threat=black_box ~threat.proxy", "threat.proxy is missing"),
    ("threat=transfer threat.own=null", "threat.own=null: set the values inside it instead"),
    ("threat=black_box +threat.foo=3", "threat.foo: pdm_lightning.threat.BlackBox takes no 'foo'"),
    ("threat=transfer threat.own.seed=-1", "threat.own.seed=-1: a whole number of at least 0 needed"),
    ("threat=transfer threat.own.defense.use=[x]", "threat.own.defense.use: 'x' is unknown: use ce, rce"),
    ("threat=white_box attack=cw_wb budget.aim=x", "attack.aim=x: aim must be one of runner_up, all"),
    (
        "threat=white_box attack=cw_wb +budget.iterations.cw_wb.stage=3",
        "budget.iterations.cw_wb.stage: attack=cw_wb has no 'stage'",
    ),
    (
        "threat=white_box attack=cw_wb budget.iterations.cw_wb=5",
        "budget.iterations.cw_wb=5: attack=cw_wb has no max_iterations",
    ),
    (
        "budget.iterations.cw_wb.stage1_iterations=0",
        "budget.iterations.cw_wb.stage1_iterations=0: a whole number of at least 1 needed",
    ),
    # what a detector could not be fitted on, before a model is trained for it
    (
        "detector=lid attack@detector.attack=selective_pgd",
        "attack@detector.attack=selective_pgd needs the detector's scores and the gradients of the detector's scores",
    ),
    ("detector=lid attack@detector.attack=none", "attack@detector.attack=none: nothing to fit on"),
    (
        "detector=lid ~attack@detector.attack detector.label=x",
        "detector=lid is fitted on an attack: add attack@detector.attack=",
    ),
    (
        "detector=kde +attack@detector.attack=fgsm_010",
        "detector.attack: detector=kde is fitted on clean images alone: leave it out",
    ),
    (
        "detector=mahalanobis detector.layers=[backbone.stage9]",
        "detector.layers: model=resnet8 has no layer 'backbone.stage9': choose e.g. embedding, logits, backbone",
    ),
    ("detector=knn detector.layer=stage1", "detector.layer: model=resnet8 has no layer 'stage1'"),
    (
        "detector=knn detector.k=100000",
        "detector.k=100000: 1000 training images are kept at most to look for neighbours: set detector.k=1000 at most",
    ),
    ("detector=dknn data=mnist detector.k=10001", "detector.k=10001: 10000 training images"),
    (
        "detector=lid detector.reference=1",
        "detector.k=20: 10 training images are kept at most to look for neighbours: set detector.k=9 at most, or raise "
        "detector.reference",
    ),
    (
        "detector=feature_squeezing detector.medians=[100]",
        "detector.medians: a window of 100 pixels is larger than the images (16 pixels): use [2]",
    ),
    (
        "detector=feature_squeezing data=cifar10 detector.non_local=[65,3,2]",
        "detector.non_local: a search window of 65 pixels reaches beyond images of 32 pixels",
    ),
    ("data.val_size=0", "data.val_size=0: a number above 0"),
    ("data.val_size=2.5", "data.val_size=2.5: a whole number"),
    ("data.size=x", "data.size='x': take one number of pixels"),
    ("data.channels=2", "data.channels=2: take 1 (grey), 3 (RGB)"),
    ("report.tables=accuracy", "report.tables=accuracy: a list needed"),
    ("report.figures=[tnse]", "'tnse' is unknown: did you mean 'tsne'?"),
    ("name=a/b", "name=a/b: a folder's name needed"),
    ("paths.output=null", "paths.output=null: a text needed"),
]


def said(capsys: pytest.CaptureFixture[str], command: str, words: str) -> str:
    """The one line that a wrong command line gets."""
    assert main([command, *words.split(" ")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("pdml: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


@pytest.mark.parametrize(("words", "expected"), VALUES)
def test_wrong_value(words: str, expected: str) -> None:
    overrides = words.split(" ")
    cell = resolve(config_loader().load_configuration(CONFIG, overrides, RunMode.RUN), overrides)
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        validate([cell])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("words", "expected"), [*WORDS, *VALUES[::8]])
def test_wrong_word(words: str, expected: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in said(capsys, "plan", words)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "data=mnist data.root=here",
            "MNIST not found under 'here': add data.download=true or data.root=/path",
        ),
        ("data=image_folder", "no folder 'data/train': data.root must hold train/<class>/<image>"),
        ("data=image_folder data.root=empty", "no folder 'empty/train'"),
    ],
)
def test_missing_data(words: str, expected: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "empty").mkdir()
    assert expected in said(capsys, "run", words)
    assert not list(elsewhere.glob("**/train"))


def test_a_wrong_cell_stops_the_sweep(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "attack.eps=-1: eps must be" in said(capsys, "run", "-m attack.eps=0.1,-1 defense=ce,pdm")
    assert list(elsewhere.iterdir()) == []


def test_a_file_of_the_user_that_is_no_yaml(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "my" / "attack").mkdir(parents=True)
    (elsewhere / "my" / "attack" / "mine.yaml").write_text("name: [mine\n")
    assert "my/attack/mine.yaml" in said(capsys, "plan", "--config-dir my attack=mine")


def test_full_error_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"did you mean 'attack.eps'") as caught:
        main(["plan", "attack.epss=1"])
    assert isinstance(caught.value.__cause__, HydraException)


def test_a_surprise_says_what_kind_it_is() -> None:
    assert explain(KeyError("x")) == "KeyError: 'x' (HYDRA_FULL_ERROR=1 shows where)"
    assert explain(ValueError("two\n  lines")) == "two lines"
    told = explain(PermissionError(13, "Permission denied", "/x"))
    assert told.startswith("/x: Permission denied; paths.output=")


def test_nearest() -> None:
    assert nearest("tabel", ["table", "chair"]) == ": did you mean 'table'?"
    assert nearest("qqq", ["table", "chair"]) == ""
