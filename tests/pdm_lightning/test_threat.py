"""What an adversary is granted, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attacks import Watched
from detection import KDE, Detector, Features, View
from pdm_lightning import threat
from pdm_lightning.threat import (
    BlackBox,
    GrayBox,
    Target,
    ThreatModel,
    Transfer,
    Watch,
    WatchedTarget,
    WhiteBox,
    check,
    needs,
    refusal,
    surrogate_of,
)

GRAY = {"name": "gray_box", "_target_": "pdm_lightning.threat.GrayBox"}


class Modest:
    needs = frozenset({"logits"})


class Greedy:
    needs = frozenset({"logits", "detector"})


class Steep:
    needs = frozenset({"logits", "detector", "detector_gradients"})


class Smooth:
    differentiable = True


class Rough:
    differentiable = False


def attack(monkeypatch: pytest.MonkeyPatch, kind: type) -> dict[str, str]:
    monkeypatch.setattr(threat, kind.__name__, kind, raising=False)
    return {"name": kind.__name__.lower(), "_target_": f"pdm_lightning.threat.{kind.__name__}"}


def test_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(attack(monkeypatch, Modest), GRAY) == ""


def option(monkeypatch: pytest.MonkeyPatch, name: str, kind: type) -> dict[str, str]:
    return attack(monkeypatch, kind) | {"name": name}


def test_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(attack(monkeypatch, Greedy), GRAY) == (
        "attack=greedy needs the detector's scores, which threat=gray_box withholds: "
        "choose another attack or threat"
    )
    assert refusal({"logits", "detector"}, {"detector", "logits"}, attack="a", threat="t") == ""
    assert refusal({"logits"}, {"detector"}, attack="a", threat="t").startswith(
        "attack=a needs the classifier's logits and their gradients, which threat=t withholds"
    )
    assert check(attack(monkeypatch, Steep), GRAY).startswith(
        "attack=steep needs the detector's scores and the gradients of the detector's scores, which"
    )


@pytest.mark.parametrize("kind", [WhiteBox, BlackBox, Transfer])
def test_who_knows_a_detector_may_ask_for_all_that_it_has(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"name": kind.name, "_target_": f"pdm_lightning.threat.{kind.__name__}"}  # type: ignore[attr-defined]
    smooth, rough = (option(monkeypatch, word, cls) for word, cls in (("smooth", Smooth), ("rough", Rough)))
    for one in (Modest, Greedy, Steep):
        assert check(attack(monkeypatch, one), known, smooth) == ""
    for one in (Modest, Greedy):
        assert check(attack(monkeypatch, one), known, rough) == ""
    assert check(attack(monkeypatch, Steep), known, rough) == (
        "attack=steep needs gradients of the detector's scores, which detector=rough has not: "
        "choose an attack without (attack=square)"
    )


def test_where_a_detector_is_withheld_its_gradients_are_not_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rough = option(monkeypatch, "rough", Rough)
    assert "threat=gray_box withholds" in check(attack(monkeypatch, Steep), GRAY, rough)


def test_what_a_configuration_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs({"_target_": "attacks.CarliniWagnerWhiteBox"}) == {
        "logits",
        "detector",
        "detector_gradients",
    }
    assert needs({"_target_": "attacks.BIM"}) == {"logits"}
    whose = {
        name: surrogate_of({"_target_": f"pdm_lightning.threat.{name}"})
        for name in ("GrayBox", "WhiteBox", "BlackBox", "Transfer")
    }
    assert whose == {"GrayBox": "", "WhiteBox": "", "BlackBox": "proxy", "Transfer": "model"}


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


class TwoLayers(nn.Module):
    """An embedding of two numbers and three classes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed, self.head = nn.Linear(6, 2), nn.Linear(2, 3)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.embed(x.flatten(1))
        return z, self.head(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed_and_logits(x)[1]


def features_of(net: TwoLayers, n: int, seed: int) -> Features:
    """Clean features; the labels are the net's own predictions, but for every fifth."""
    x = torch.rand(n, 6, generator=torch.Generator().manual_seed(seed)) * 6 - 3
    with torch.no_grad():
        z, logits = net.embed_and_logits(x)
    labels = logits.argmax(dim=1)
    labels[::5] = (labels[::5] + 1) % 3
    return Features(z, logits, labels)


@pytest.fixture
def watch() -> Watch:
    net = TwoLayers()
    train, validation = features_of(net, 200, 1), features_of(net, 90, 2)
    return Watch(KDE(bandwidth=0.5).fit(train, validation), train, validation, fpr=0.1)


def test_gray_box_gives_the_readout_alone(watch: Watch) -> None:
    classifier = torch.nn.Linear(3, 2)
    target = GrayBox().target(classifier, watch)
    x = torch.rand(4, 3, requires_grad=True)
    assert torch.equal(target.logits(x), classifier(x))
    assert torch.autograd.grad(target.logits(x).sum(), x)[0].abs().sum() > 0
    assert isinstance(target, Target) and held(target) == {"module": classifier}
    assert not isinstance(target, Watched)


def held(target: Target) -> dict:
    """All that a target holds on to."""
    return {name: value for name, value in vars(target).items() if value}


@pytest.mark.parametrize("kind", [WhiteBox, BlackBox, Transfer])
def test_who_asks_for_no_detector_holds_none(kind: type[ThreatModel], watch: Watch) -> None:
    net = TwoLayers()
    assert held(kind().target(net)) == {"module": net}
    assert isinstance(kind().target(net, watch), Watched)


def view(features: Features) -> View:
    return View.from_features(features.embeddings, features.logits)


def test_threshold_and_scale_are_those_of_clean_validation_scores(watch: Watch) -> None:
    target = WatchedTarget(TwoLayers(), watch)
    scores = watch.detector.score(view(watch.validation)).sort().values
    assert target.threshold == float(scores[80])  # 9 of 90 lie above
    assert target.scale == pytest.approx(float(scores[80] - scores[44]))


def test_limits_are_quantiles_of_each_class_scored_as_itself(watch: Watch) -> None:
    target, validation = WatchedTarget(TwoLayers(), watch), watch.validation
    for label in range(3):
        mine = validation.labels == label
        part = Features(validation.embeddings[mine], validation.logits[mine], validation.labels[mine])
        scores = watch.detector.score_as(view(part), part.labels).sort().values
        below = float((scores <= float(target.limits(0.5)[label])).double().mean())
        assert 0.5 <= below <= 0.5 + 1 / len(scores)
        assert float(target.limits(1.0)[label]) == float(scores[-1])
    # scored as its own class: an image that is taken for another has a score all the same
    assert bool((validation.predicted != validation.labels).any())


def test_limits_of_left_out_training_points(watch: Watch) -> None:
    loo = Watch(watch.detector, watch.train, watch.validation, limits="loo")
    groups = watch.detector.leave_one_out_scores()
    expected = torch.stack([group.quantile(0.25) for group in groups])
    assert torch.equal(WatchedTarget(TwoLayers(), loo).limits(0.25), expected)
    assert not torch.equal(expected, WatchedTarget(TwoLayers(), watch).limits(0.25))


def test_references_are_typical_and_classified_correctly(watch: Watch) -> None:
    target, train = WatchedTarget(TwoLayers(), watch), watch.train
    assert len(target.references) == len(target.reference_labels)
    correct = train.embeddings[train.predicted == train.labels]
    assert {tuple(z) for z in target.references.tolist()} <= {tuple(z) for z in correct.tolist()}
    for label in range(3):
        whole = train.embeddings[train.labels == label]
        mine = target.references[target.reference_labels == label]
        assert 0 < len(mine) <= (len(whole) + 1) // 2
        kept, all_of_them = (
            watch.detector.score_as(
                View.from_features(z, torch.zeros(len(z), 3)), torch.full((len(z),), label)
            )
            for z in (mine, whole)
        )
        assert float(kept.max()) <= float(all_of_them.quantile(0.5))


def test_a_look_is_one_pass_with_gradients_of_all_that_it_tells(watch: Watch) -> None:
    net = TwoLayers()
    target = WatchedTarget(net, watch)
    x = torch.rand(4, 6, requires_grad=True)
    look = target.look(x)
    z, logits = net.embed_and_logits(x)
    assert torch.equal(look.logits, logits) and torch.equal(look.embeddings, z)
    expected = watch.detector.score(View.from_features(z, logits))
    assert torch.equal(look.scores, expected)
    for told in look.logits, look.scores, look.embeddings:
        assert torch.autograd.grad(told.sum(), x, retain_graph=True)[0].abs().sum() > 0
    classes = (logits.argmax(dim=1) + 1) % 3
    as_others = target.look(x, classes).scores
    assert torch.equal(as_others, watch.detector.score_as(View.from_features(z, logits), classes))
    assert bool((as_others != look.scores).all())


class Silent(Detector):
    """Says the same of everything."""

    differentiable = True

    def fit(self, train: Features, validation: Features) -> Silent:
        return self

    def score(self, view: View) -> Tensor:
        return torch.zeros(len(view.logits), dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> Silent:
        return self


def test_a_constant_score_has_the_unit_one(watch: Watch) -> None:
    target = WatchedTarget(TwoLayers(), Watch(Silent(), watch.train, watch.validation))
    assert (target.scale, target.threshold) == (1.0, 0.0)
    assert target.limits(0.5).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"Silent has no leave-one-out scores: use craft.limits=validation"):
        Watch(Silent(), watch.train, watch.validation, limits="loo").class_scores  # noqa: B018 - what it raises is the point


def test_what_a_watch_cannot_do_is_said_in_one_line(watch: Watch) -> None:
    with pytest.raises(ValueError, match=r"craft.limits=x: use validation or loo"):
        Watch(watch.detector, watch.train, watch.validation, limits="x").class_scores  # noqa: B018 - what it raises is the point
    v = watch.validation
    kept = v.labels != 1
    without = Features(v.embeddings[kept], v.logits[kept], v.labels[kept])
    with pytest.raises(ValueError, match=r"no clean validation image of class 1: raise data.val_size"):
        Watch(watch.detector, watch.train, without).class_scores  # noqa: B018 - what it raises is the point
