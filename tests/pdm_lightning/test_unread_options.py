"""What nobody reads, or no training can use, is refused when a study is planned, though `+` would add anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra.types import RunMode

from pdm_lightning.cli import main
from pdm_lightning.study.cell import resolve
from pdm_lightning.study.validate import validate
from pdm_lightning.study.words import CONFIG, config_loader

torch.set_num_threads(1)

WORDS = [
    (
        "+budget.train.epoch=1",
        "budget.train.epoch: there is no such option: did you mean 'epochs'? budget.train has steps, epochs, "
        "batch_size, segment, log_every",
    ),
    (
        "+budget.train.foo=1",
        "budget.train.foo: there is no such option: budget.train has steps, epochs, batch_size, segment, log_every; "
        "leave it out",
    ),
    ("+seeds=1", "seeds: there is no such option: did you mean 'seed'?"),
    ("+nonsense.x=1", "nonsense: there is no such option: leave it out"),
    ("+detectors.bandwidth=loo", "detectors: there is no such option: did you mean 'detector'?"),
    ("name='a=b'", "name=a=b: a folder's name needed"),
    ("+logger.tag=[a]", "logger.tag: there is no such option: did you mean 'tags'?"),
    # an unused term with a name mistyped would be another row for the same model
    (
        "+defense.term.rlv.weight=1",
        "defense.term.rlv: there is no such term: did you mean 'rvl'? defense.term has ce",
    ),
    (
        "threat=transfer +threat.own.defense.term.x.weight=1",
        "threat.own.defense.term.x: there is no such term",
    ),
    ("+budget.train.name=x", "budget.train.name: there is no such option"),
    (
        "+budget.image.cheap=5",
        "budget.image: there is no such option: did you mean 'images'? budget has train",
    ),
    (
        "+trainer.device_s=2",
        "trainer.device_s: there is no such option: did you mean 'devices'? trainer has device",
    ),
    (
        "+optimizer.schedule.warm_up=.1",
        "optimizer.schedule.warm_up: there is no such option: did you mean 'warmup'?",
    ),
    ("+defense.weight=1", "defense.weight: there is no such option: defense has use"),
    ("threat=transfer +threat.own.defense.x=1", "threat.own.defense.x: there is no such option"),
    ("+data.augment.flop=true", "data.augment.flop: there is no such option: did you mean 'flip'?"),
    ("+features.per_class=5", "features.per_class: there is no such option: did you mean 'train_per_class'?"),
    ("+craft.batch=5", "craft.batch: there is no such option"),
    ("+evaluate.min=5", "evaluate.min: there is no such option: did you mean 'min_n'?"),
    ("+card.runs=all", "card.runs: there is no such option: did you mean 'run'?"),
    # numbers and words that a training would stumble over
    ("+budget.train.log_every=0", "budget.train.log_every=0: a whole number of at least 1 needed"),
    ("+budget.train.log_every=-5", "budget.train.log_every=-5: a whole number of at least 1 needed"),
    ("+budget.train.log_every=null", "budget.train.log_every=null: a whole number of at least 1 needed"),
    ("+budget.train.log_every=true", "budget.train.log_every=true: a whole number of at least 1 needed"),
    ("optimizer=sgd_paper optimizer.momentum=nan", "optimizer.momentum=nan: a finite number needed"),
    ("optimizer=sgd_paper +optimizer.dampening=nan", "optimizer.dampening=nan: a finite number needed"),
    ("optimizer.eps=inf", "optimizer.eps=inf: a finite number needed"),
    ("optimizer.schedule.milestones=0", "optimizer.schedule.milestones=0: a list of fractions needed"),
    (
        "+optimizer.differentiable=true",
        "optimizer.differentiable=true: a training takes no gradient through its steps",
    ),
    (
        "+optimizer.foreach=true +optimizer.fused=true",
        "optimizer.foreach=true: `fused` and `foreach` cannot be",
    ),
    ("+optimizer.foreach=5", "optimizer.foreach=5: use true or false"),
    ("+optimizer.fused=yes_please", "optimizer.fused=yes_please: use true or false"),
]


def check(words: str) -> None:
    overrides = words.split(" ")
    validate([resolve(config_loader().load_configuration(CONFIG, overrides, RunMode.RUN), overrides)])


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_what_is_refused(words: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        check(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "+budget.train.log_every=5",
        "+budget.label=Mine +trainer.label=Mine defense.label=Mine",
        "~trainer.compile ~trainer.precision",
        "data=cifar10 data.augment=null",
        "optimizer.schedule=null",
        "optimizer.schedule.milestones=null",
        "+optimizer.fused=null",
        "+optimizer.foreach=true",
        "optimizer=sgd_paper +optimizer.foreach=true",
        "+paths.pictures=/pictures",
        # a term of one's own that is not used yet, and a weight of one that this defence does not use
        "+defense.term.mine._target_=pdm_lightning.losses.Siamese +defense.term.mine.weight=1",
        "defense=ce defense.term.rvl.weight=1",
    ],
)
def test_what_stays_allowed(words: str) -> None:
    check(words)


def test_a_plan_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "+budget.train.foo=1"]) == 2
    assert capsys.readouterr().err.startswith(
        "pdml: budget.train.foo: there is no such option: budget.train has"
    )
