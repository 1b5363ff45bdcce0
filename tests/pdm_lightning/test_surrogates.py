"""Black box and transfer: the adversary's own model is attacked, the target and its detector judge."""

from __future__ import annotations

import copy
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from attacks import fold
from detection import View
from pdm_lightning.models import Classifier
from pdm_lightning.stages import craft, detector, features
from pdm_lightning.study.cell import Cell
from pdm_lightning.study.plan import Plan, make_plan
from pdm_lightning.study.results import collect
from pdm_lightning.threat import Watch, WatchedTarget

STUDY = runpy.run_path(str(Path(__file__).with_name("threat_study.py")))
GraphSpy, finished = STUDY["GraphSpy"], STUDY["finished"]
FOREIGN = [("black_box", "fgsm_010"), ("black_box", "cw_wb"), ("transfer", "fgsm_010")]
CPU = torch.device("cpu")


def target_of(study: Any, node: Any) -> Classifier:
    return study.fresh().classifier(node.parents["train"], CPU)


def spied(study: Any, node: Any, folder: Path, folded: bool) -> Any:
    """Craft, and look for the target's weights in every autograd graph."""
    target = target_of(study, node)
    node = replace(node, runtime=node.runtime | {"fold": folded})
    folder.mkdir()
    spy = GraphSpy(target, fold(target))
    with spy:
        craft.build(node, folder, study.fresh())
    return spy


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("threat", "attack"), FOREIGN)
def test_no_graph_holds_the_target_s_weights(
    threat: str, attack: str, folded: bool, threat_study: Any, tmp_path: Path
) -> None:
    spy = spied(threat_study, threat_study.node(threat, attack), tmp_path / "craft", folded)
    assert spy.saved > 10
    assert spy.found == 0


@pytest.mark.parametrize("folded", [True, False])
def test_the_spy_finds_them_in_a_gray_box(folded: bool, threat_study: Any, tmp_path: Path) -> None:
    spy = spied(threat_study, threat_study.node("gray_box", "fgsm_010"), tmp_path / "craft", folded)
    assert spy.found >= 8


@pytest.mark.parametrize(("threat", "attack"), FOREIGN)
def test_the_target_only_answers_and_only_at_the_end(
    threat: str, attack: str, threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass over the finished images, without a graph; all the rest is the surrogate's work."""
    node = threat_study.node(threat, attack)
    head = target_of(threat_study, node).head.weight.detach()
    passes: list[tuple[bool, bool]] = []
    embed = Classifier.embed_and_raw

    def noted(self: Classifier, x: torch.Tensor) -> Any:
        # batch norms are folded into other layers: the head of a copy is the original's
        asked = self.head.weight.shape == head.shape and torch.equal(self.head.weight, head)
        passes.append((asked, torch.is_grad_enabled()))
        return embed(self, x)

    monkeypatch.setattr(Classifier, "embed_and_raw", noted)
    craft.build(node, tmp_path, threat_study.fresh())
    assert [graph for asked, graph in passes if asked] == [False]
    assert passes[-1] == (True, False)
    assert (False, True) in passes


@pytest.mark.parametrize(("threat", "attack"), FOREIGN)
def test_the_target_s_detector_is_never_opened(
    threat: str, attack: str, threat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, opened, read = threat_study.node(threat, attack), [], detector.read

    def noted(artifact: Any) -> Any:
        opened.append(artifact.key)
        return read(artifact)

    monkeypatch.setattr(detector, "read", noted)
    craft.build(node, tmp_path, threat_study.fresh())
    asks = attack == "cw_wb"
    assert opened == ([node.parents["detector"].key] if asks else [])
    assert threat_study.node(threat, attack, "detector").key not in opened


def test_the_surrogate_s_detector_learns_from_the_surrogate_s_features(threat_study: Any) -> None:
    nodes = threat_study.entries["black_box", "cw_wb"].nodes
    own = nodes["craft"].parents["detector"]
    assert own.parents["features"] is nodes["surrogate_features"]
    assert nodes["surrogate_features"].parents["train"] is nodes["surrogate"]
    assert nodes["surrogate"].parents["train"] is nodes["train"]
    assert nodes["detector"].parents["features"] is nodes["features"]
    assert nodes["features"].parents["train"] is nodes["train"]
    assert nodes["score"].parents["detector"] is nodes["detector"]
    kernels = {
        key: detector.read(threat_study.artifact(node)).state_dict()
        for key, node in (("own", own), ("target", nodes["detector"]))
    }
    place = next(name for name, value in kernels["own"].items() if value.dim() == 2)
    points = threat_study.sets(nodes["surrogate_features"])["train"].embeddings.double()
    drawn = kernels["own"][place].double()
    assert float(torch.cdist(drawn, points).min(dim=1).values.max()) < 1e-6
    assert kernels["target"][place].shape[1] != drawn.shape[1]  # a narrower proxy embeds in fewer dimensions


@pytest.mark.parametrize(("threat", "attack"), FOREIGN)
def test_scores_come_from_the_target_and_its_detector(threat: str, attack: str, threat_study: Any) -> None:
    nodes = threat_study.entries[threat, attack].nodes
    rows = craft.read(threat_study.artifact(nodes["craft"]))
    target, surrogate = (threat_study.fresh().classifier(nodes[role], CPU) for role in ("train", "surrogate"))
    with torch.no_grad():
        z, logits = target.embed_and_logits(rows["x_adv"])
        seen = surrogate.predict(rows["x_adv"])
        judge = detector.read(threat_study.artifact(nodes["detector"]))
        expected = judge.score(View.from_features(z, logits))
    assert torch.equal(rows["predicted"], logits.argmax(dim=1))
    assert torch.equal(rows["proxy_predicted"], seen)
    scores = load_file(threat_study.artifact(nodes["score"]).file("scores.safetensors"))
    assert torch.allclose(scores["adversarial"], expected, rtol=1e-4)
    assert torch.equal(scores["fooled"], logits.argmax(dim=1) != rows["y"])
    # only images that the target got right, moved away from their true labels
    clean = threat_study.sets(nodes["features"])["test"]
    assert torch.equal(clean.labels[rows["index"]], rows["y"])
    assert torch.equal(clean.predicted[rows["index"]], rows["y"])


def test_success_is_judged_on_the_surrogate(threat_study: Any) -> None:
    """FGSM: its model is fooled. C&W-wb: fooled, and denser than half of the clean images under its own detector."""
    for threat in ("black_box", "transfer"):
        rows = craft.read(threat_study.artifact(threat_study.node(threat, "fgsm_010")))
        assert torch.equal(rows["success"], rows["proxy_predicted"] != rows["y"])
        assert bool((rows["proxy_predicted"] != rows["predicted"]).any())
    nodes = threat_study.entries["black_box", "cw_wb"].nodes
    rows = craft.read(threat_study.artifact(nodes["craft"]))
    sets = threat_study.sets(nodes["surrogate_features"])
    fitted = detector.read(threat_study.artifact(nodes["craft"].parents["detector"]))
    watched = WatchedTarget(
        threat_study.fresh().classifier(nodes["surrogate"], CPU),
        Watch(fitted, sets["train"], sets["validation"]),
    )
    with torch.no_grad():
        look = watched.look(rows["x_adv"])
    dense = look.scores <= watched.limits(0.5)[rows["proxy_predicted"]]
    assert torch.equal(rows["success"], dense & (rows["proxy_predicted"] != rows["y"]))


@pytest.mark.parametrize(("threat", "attack"), FOREIGN)
def test_transfer_is_counted_over_those_that_fool_the_surrogate(
    threat: str, attack: str, threat_study: Any
) -> None:
    nodes = threat_study.entries[threat, attack].nodes
    rows = craft.read(threat_study.artifact(nodes["craft"]))
    artifact = threat_study.artifact(nodes["score"])
    found = artifact.json("score.json")
    clean = features.read(threat_study.artifact(nodes["surrogate_features"]))["test"]
    right = clean.predicted[rows["index"]] == rows["y"]  # the others need no attack
    won, fooled = rows["success"] & right, rows["predicted"] != rows["y"]
    assert found["transfer_rate"]["n"] == found["auc_proxy"]["n"] == int(won.sum())
    assert found["proxy_success_rate"]["value"] == pytest.approx(int(won.sum()) / int(right.sum()))
    if int(won.sum()):
        expected = int((won & fooled).sum()) / int(won.sum())
        assert found["transfer_rate"]["value"] == pytest.approx(expected)
    assert found["auc_transferred"]["n"] == int((won & fooled).sum())
    assert found["auc"]["n"] == int(fooled.sum())
    if int(won.sum()) >= 3:
        scores = load_file(artifact.file("scores.safetensors"))
        both = torch.cat([scores["clean"][won], scores["adversarial"][won]])
        truth = [0] * int(won.sum()) + [1] * int(won.sum())
        assert found["auc_proxy"]["value"] == pytest.approx(roc_auc_score(truth, both))


def test_rows_of_surrogates_and_of_no_other(threat_study: Any) -> None:
    rows = collect(threat_study.plan, threat_study.context, finished(), "", "").rows
    foreign = {"auc_proxy", "auc_transferred", "transfer_rate", "proxy_success_rate"}
    threats = {row.threat.partition("[")[0] for row in rows if row.metric in foreign}
    assert threats == {"black_box", "transfer"}
    agreement = [row for row in rows if row.metric == "proxy_agreement"]
    (row,) = agreement
    assert (row.attack, row.threat.partition("[")[0], row.n) == ("none", "black_box", 257)
    proxy = threat_study.artifact(threat_study.node("black_box", "cw_wb", "surrogate"))
    assert row.value == proxy.json("proxy.json")["agreement"]
    wilson = binomtest(round(257 * row.value), 257).proportion_ci(method="wilson")
    assert (row.ci_low, row.ci_high) == pytest.approx((wilson.low, wilson.high))
    assert row.artifact == proxy.key


# ---- the plan


def plan_of(study: Any, threat: str = "black_box", changes: dict[str, Any] | None = None) -> Plan:
    """Plan one cell of the study after changing dotted values of its configuration."""
    config = copy.deepcopy(study.entries[threat, "fgsm_010"].cell.config)
    for dotted, value in (changes or {}).items():
        *parents, last = dotted.split(".")
        node = config
        for part in parents:
            node = node[part]
        node[last] = value
    return make_plan([Cell(config)])


def keys(plan: Plan) -> dict[str, str]:
    return {role: node.key for role, node in plan.entries[0].nodes.items()}


def test_one_proxy_for_all_attacks(threat_study: Any) -> None:
    proxies = [node for node in threat_study.plan if node.kind == "proxy"]
    assert len(proxies) == 1
    assert {threat_study.node("black_box", a, "surrogate").key for a in ("fgsm_010", "cw_wb")} == {
        proxies[0].key
    }
    assert threat_study.artifact(proxies[0]).manifest["parents"] == {
        "train": threat_study.node("gray_box", "fgsm_010", "train").key
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threat.proxy.model.depth", 14),
        ("threat.proxy.labels", "hard"),
        ("threat.proxy.temperature", 2.0),
    ],
)
def test_another_proxy_is_another_attack_on_the_same_target(key: str, value: Any, threat_study: Any) -> None:
    before, after = keys(plan_of(threat_study)), keys(plan_of(threat_study, changes={key: value}))
    changed = {role for role in before if before[role] != after[role]}
    assert changed == {"surrogate", "surrogate_features", "craft", "score"}


def test_a_proxy_of_another_target_is_another_one(threat_study: Any) -> None:
    before, after = (
        keys(plan_of(threat_study, changes=changes)) for changes in ({}, {"defense.term.ce.weight": 2.0})
    )
    assert before["surrogate"] != after["surrogate"]


def test_what_makes_pairs_for_a_defence_makes_none_for_its_proxy(threat_study: Any) -> None:
    spec = plan_of(threat_study, changes={"data.pairs": "always"}).entries[0].nodes["surrogate"].spec
    assert spec["defense"]["pairs"] == "auto"
    assert spec["defense"]["use"] == ["distill"]
    assert spec["model"]["widths"] == [4, 4, 8]


def test_the_adversary_s_training_is_a_training_of_the_study(threat_study: Any) -> None:
    """With no seed added and the target's defence, the model of its own is the target's."""
    plan = plan_of(threat_study, "transfer")
    nodes = plan.entries[0].nodes
    assert nodes["surrogate"].kind == "train"
    assert (nodes["surrogate"].spec["seed"], nodes["train"].spec["seed"]) == (1000, 0)
    assert nodes["surrogate"].spec == nodes["train"].spec | {"seed": 1000}
    same = plan_of(threat_study, "transfer", {"threat.own.seed": 0}).entries[0].nodes
    assert same["surrogate"] is same["train"]
    other = plan_of(
        threat_study,
        "transfer",
        {"threat.own.defense.use": ["rce"], "threat.own.defense.readout": "reverse"},
    )
    assert other.entries[0].nodes["surrogate"].key != nodes["surrogate"].key
    assert other.entries[0].nodes["train"].key == nodes["train"].key


def test_costs_and_places_are_in_no_key_of_a_surrogate(threat_study: Any) -> None:
    before = keys(plan_of(threat_study))
    for key, value in (
        ("craft.fold", False),
        ("craft.devices", 2),
        ("craft.micro_batch", 8),
        ("craft.batch_size", 3),
        ("craft.fpr", 0.2),
        ("threat.proxy.model.label", "x"),
    ):
        assert keys(plan_of(threat_study, changes={key: value})) == before, key
