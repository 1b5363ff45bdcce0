"""Every detector in a study: what it is shown, what it is fitted on, and what an adversary holds of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from detection import View
from pdm_lightning.data import to_unit
from pdm_lightning.stages import craft, detector, features, hands, sight
from pdm_lightning.stages.context import Context
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.execute import execute
from pdm_lightning.study.plan import Plan, make_plan

SMALL = (
    "data=digits",
    "data.size=8",
    "model=resnet8",
    "model.widths=[4,8,16]",
    "defense=ce",
    "budget=smoke",
    "budget.train.steps=40",
    "budget.images.cheap=40",
    "budget.images.medium=12",
    "evaluate.bootstrap=20",
    "evaluate.min_n=2",
    "trainer.device=cpu",
    "trainer.threads=1",
    "card.run=none",
)
LAYERS = "detector.layers=[backbone.stage2,embedding]"
GRIDS = (
    ("attack=fgsm_010", "detector=kde,feature_squeezing"),
    ("attack=fgsm_010", "detector=lid", LAYERS, "detector.k=5"),
    ("attack=selective_pgd", "threat=white_box", "detector=lid", LAYERS, "detector.k=5"),
    ("attack=square", "attack.queries=20", "threat=white_box", "detector=feature_squeezing"),
)


class Finished:
    def __init__(self, output: Path) -> None:
        words = [f"paths.output={output}", *SMALL]
        cells = [cell for grid in GRIDS for cell in ask("run", ["-m", *words, *grid])]
        self.plan: Plan = make_plan(cells)
        self.context = Context(Store(output / "store"), progress=False)
        outcome = execute(self.plan, self.context, say=lambda line: None)
        assert not outcome.failed, outcome.failed

    def nodes(self, attack: str, watcher: str) -> dict:
        (entry,) = [
            e
            for e in self.plan.entries
            if (e.cell.config["attack"]["name"], e.cell.config["detector"]["name"]) == (attack, watcher)
        ]
        return entry.nodes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("detectors"))


def test_one_training_one_crafting_for_all(finished: Finished) -> None:
    kinds = [node.kind for node in finished.plan]
    assert kinds.count("train") == 1
    assert kinds.count("examples") == 1
    assert kinds.count("features") == 2  # plain, and with the further layer
    assert finished.nodes("fgsm_010", "kde")["craft"] == finished.nodes("fgsm_010", "lid")["craft"]


def test_layers_are_the_pooled_outputs_of_submodules(finished: Finished) -> None:
    node = finished.nodes("fgsm_010", "lid")["detector"].parents["features"]
    sets = features.read(finished.context.artifact(node))
    data = finished.context.data(node)
    model = finished.context.classifier(node.parents["train"], torch.device("cpu"))
    backbone = model.backbone
    x = to_unit(data.test[0][:7])
    with torch.no_grad():
        maps = backbone.stage2(backbone.stage1(backbone.stem(model.centre(x))))
    assert torch.allclose(sets["test"].layer("backbone.stage2")[:7], maps.mean(dim=(2, 3)), atol=1e-5)
    with pytest.raises(ValueError, match="has no layer 'stage9': choose"):
        View.from_model(model, x, ("stage9",)).layer("stage9")


def test_fitted_on_training_images_alone(finished: Finished) -> None:
    """The examples are attacked training images that the features keep; validation and test stay unseen."""
    node = finished.nodes("fgsm_010", "lid")["detector"].parents["examples"]
    rows = craft.read(finished.context.artifact(node))
    data = finished.context.data(node)
    original = to_unit(data.train[0][rows["index"]])
    assert torch.equal(data.train[1][rows["index"]], rows["y"])
    assert 0 < float((rows["x_adv"] - original).abs().max()) <= 0.1 + 1e-6
    assert len(rows["index"]) <= 40


def test_scores_are_the_detector_s_own(finished: Finished) -> None:
    """The score stage of a detector that asks the classifier, against a view made by hand."""
    nodes = finished.nodes("fgsm_010", "feature_squeezing")
    scores = load_file(finished.context.artifact(nodes["score"]).file("scores.safetensors"))
    rows = craft.read(finished.context.artifact(nodes["craft"]))
    judge = detector.read(finished.context.artifact(nodes["detector"]))
    model = finished.context.classifier(nodes["train"], torch.device("cpu"))
    with torch.no_grad():
        expected = judge.score(View.from_model(model, rows["x_adv"][:5]))
        clean = judge.score(
            View.from_model(model, to_unit(finished.context.data(nodes["craft"]).test[0][rows["index"][:5]]))
        )
    assert torch.allclose(scores["adversarial"][:5], expected, atol=1e-5)
    assert torch.allclose(scores["clean"][:5], clean, atol=1e-5)


@pytest.mark.parametrize(("attack", "watcher"), [("selective_pgd", "lid"), ("square", "feature_squeezing")])
def test_an_adversary_holds_any_detector(finished: Finished, attack: str, watcher: str) -> None:
    """Also one that reads further layers, or asks the classifier: the scores it sees are the study's."""
    node = finished.nodes(attack, watcher)["craft"]
    rows = craft.read(finished.context.artifact(node))
    adversary = hands.take(
        node, finished.context, torch.device("cpu"), hands.Setup(), example=rows["x_adv"][:4]
    )
    judge = detector.read(finished.context.artifact(node.parents["detector"]))
    model = node.parents["train"]
    found = sight.scores(judge, sight.attacked(judge, rows, model, finished.context))
    with torch.no_grad():
        look = adversary.target.look(rows["x_adv"])
    assert torch.allclose(look.scores.cpu(), found, rtol=1e-3, atol=1e-3)


def test_gradients_of_a_detector_without_any_are_refused(tmp_path: Path) -> None:
    words = [f"paths.output={tmp_path}", *SMALL, "threat=white_box", "attack=selective_pgd"]
    with pytest.raises(PermissionError, match="detector=feature_squeezing has not"):
        make_plan(ask("run", [*words, "detector=feature_squeezing"]))
