"""What an adversary is granted, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from pdm_lightning import threat
from pdm_lightning.threat import GrayBox, Target, ThreatModel, check, refusal

CONF = Path(__file__).resolve().parents[2] / "conf" / "threat"
GRAY = {"name": "gray_box", "_target_": "pdm_lightning.threat.GrayBox"}


class Modest:
    needs = frozenset({"logits"})


class Greedy:
    needs = frozenset({"logits", "detector"})


def attack(monkeypatch: pytest.MonkeyPatch, kind: type) -> dict[str, str]:
    monkeypatch.setattr(threat, kind.__name__, kind, raising=False)
    return {"name": kind.__name__.lower(), "_target_": f"pdm_lightning.threat.{kind.__name__}"}


def test_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(attack(monkeypatch, Modest), GRAY) == ""


def test_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(attack(monkeypatch, Greedy), GRAY) == (
        "attack=greedy needs the detector and its gradients, which threat=gray_box withholds: "
        "choose another attack or threat"
    )
    assert refusal({"logits", "detector"}, {"detector", "logits"}, attack="a", threat="t") == ""
    assert refusal({"logits"}, {"detector"}, attack="a", threat="t").startswith(
        "attack=a needs the classifier's logits and their gradients, which threat=t withholds"
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pdm_lightning.threat.NoSuch", "cannot be found"),
        ("no_such_package.X", "cannot be found"),
        ("plain", "cannot be found"),
        ("pdm_lightning.threat.Target", "does not say what it needs"),
    ],
)
def test_an_attack_that_is_none(path: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check({"name": "x", "_target_": path}, GRAY)


def test_gray_box_gives_the_readout_alone() -> None:
    classifier = torch.nn.Linear(3, 2)
    target = GrayBox().target(classifier, detector=object())
    x = torch.rand(4, 3, requires_grad=True)
    assert torch.equal(target.logits(x), classifier(x))
    assert torch.autograd.grad(target.logits(x).sum(), x)[0].abs().sum() > 0
    assert isinstance(target, Target) and vars(target) == {"module": classifier}


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configured_threat_model(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    cls = getattr(threat, config["_target_"].removeprefix("pdm_lightning.threat."))
    assert issubclass(cls, ThreatModel)
    assert cls.name == config["name"] == path.stem
    assert cls.grants <= threat.CAPABILITIES.keys()
