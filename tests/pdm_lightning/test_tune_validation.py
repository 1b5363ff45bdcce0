"""What a search measures: validation images alone, halved where a detector is judged, and nothing of the test set."""

from __future__ import annotations

import runpy
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import davies_bouldin_score, roc_auc_score

import pdm_lightning
from detection import KDE, Features
from pdm_lightning.stages.halves import halves
from pdm_lightning.store import Artifact, Store
from pdm_lightning.study import tune_objectives, tune_question
from pdm_lightning.study.tune_trial import nodes
from pdm_lightning.study.words import config_loader

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_search.py")))
search, told, kinds = TINY["search"], TINY["told"], TINY["kinds"]

ATTACKED = (
    "attack=fgsm_010",
    "attack.eps=0.3",
    "tune.objective=val_auc_all",
    "tune.record=[val_auc,val_dbi,val_accuracy]",
    "evaluate.min_n=1",
    "evaluate.bootstrap=20",
    "budget.train.steps=30",  # a model that gets some images right, so that there is something to attack
    "optimizer.lr=0.02",
)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdm_lightning.report.tune.tune_figures", lambda result: [])


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("count", [40, 41, 257])
def test_halves(classes: int, count: int) -> None:
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(count))
    fitting, judging = halves(labels)
    assert sorted([*fitting.tolist(), *judging.tolist()]) == list(range(count))
    assert len(judging) == count // 2
    for label in range(classes):
        assert abs(int((labels[fitting] == label).sum()) - int((labels[judging] == label).sum())) <= 2
    assert torch.equal(halves(labels.clone())[1], judging)
    # a few of the images that are attacked first are of all classes, too
    assert len(labels[judging[: 4 * classes]].unique()) == len(labels[judging].unique())


def test_too_few_to_be_halved() -> None:
    with pytest.raises(
        ValueError, match=r"3 validation images of 3 classes are too few .* raise data\.val_size"
    ):
        halves(torch.tensor([0, 1, 2]))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of one trial whose attack works on validation images."""
    output = tmp_path_factory.mktemp("attacked")
    assert search(output, *ATTACKED, "tune.trials=1") == 0
    return output


def only(output: Path, kind: str) -> Artifact:
    store = Store(output / "store")
    (found,) = [store.find(f"{kind}/{a.key}") for a in store.list() if a.kind == kind]
    return found


def test_no_node_of_a_search_is_judged_on_test_images(attacked: Path) -> None:
    assert set(kinds(attacked)) == {
        "train",
        "features",
        "val_clean",
        "val_detector",
        "val_craft",
        "val_score",
    }


def test_attacked_are_the_right_images_of_the_second_half(attacked: Path) -> None:
    features = pdm_lightning.load(only(attacked, "features").key, str(attacked))["validation"]
    craft = only(attacked, "val_craft")
    rows = pdm_lightning.load(craft.key, str(attacked))
    _, judging = halves(features.labels)
    right = judging[features.predicted[judging] == features.labels[judging]]
    assert rows["index"].tolist() == right.tolist()
    assert len(right) > 5
    counts = craft.json("craft.json")
    assert (counts["candidates"], counts["test_images"], counts["attacked"]) == (50, 100, len(right))
    images = pdm_lightning.data.digits(size=8, val_size=100).validation[0][right].float() / 255
    assert (
        float((rows["x_adv"] - images).abs().max()) <= 0.3 + 1e-6
    )  # FGSM of validation images, and of no others
    assert torch.equal(rows["y"], features.labels[right])


def test_the_auc_is_that_of_a_detector_that_saw_the_first_half_alone(attacked: Path) -> None:
    """Scores and AUCs anew, by a KDE whose bandwidth is fitted here."""
    sets = pdm_lightning.load(only(attacked, "features").key, str(attacked))
    validation = sets["validation"]
    fitting, _ = halves(validation.labels)
    first = Features(validation.embeddings[fitting], validation.logits[fitting], validation.labels[fitting])
    kde = KDE(kernels_per_class=1000).fit(sets["train"], first)
    assert only(attacked, "val_detector").json("detector.json")["bandwidth"] == kde.bandwidth_
    assert kde.bandwidth_ != KDE(kernels_per_class=1000).fit(sets["train"], validation).bandwidth_
    rows = pdm_lightning.load(only(attacked, "val_craft").key, str(attacked))
    own = Features(rows["embeddings"], rows["logits"], rows["y"])
    clean, adversarial = kde.score(validation.view())[rows["index"]], kde.score(own.view())
    fooled = rows["predicted"] != rows["y"]
    assert 0 < int(fooled.sum()) < len(fooled)
    values = told(attacked)["trials"][0]["values"]
    for metric, kept in (("val_auc_all", torch.ones_like(fooled)), ("val_auc", fooled)):
        scores = [*clean[kept].tolist(), *adversarial[kept].tolist()]
        expected = roc_auc_score([0] * int(kept.sum()) + [1] * int(kept.sum()), scores)
        assert values[metric]["mean"] == pytest.approx(expected, abs=1e-9)
        assert values[metric]["n"] == int(kept.sum())
    dbi = davies_bouldin_score(validation.embeddings.double().numpy(), validation.labels.numpy())
    assert values["val_dbi"]["mean"] == pytest.approx(dbi, rel=1e-6)
    accuracy = float((validation.predicted == validation.labels).double().mean())
    assert values["val_accuracy"]["mean"] == pytest.approx(accuracy)


def test_too_few_pairs_are_no_value(attacked: Path) -> None:
    assert search(attacked, *ATTACKED, "tune.trials=1", "evaluate.min_n=90", "name=few") == 1
    trial = told(attacked, "few")["trials"][0]
    assert trial["state"] == "n/a"
    assert "val_auc_all rests on" in trial["reason"]
    assert "val_dbi" in trial["values"]
    assert trial["built"] == 1  # only the score is new


DATA = """
import torch
from dataclasses import replace
from pdm_lightning.data import digits

def source(test="own", size=8, val_size=100, split_seed=0, channels=None):
    data = digits(size=size, val_size=val_size)
    if test == "own":
        return data
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (77, 1, size, size), generator=generator, dtype=torch.uint8)
    return replace(data, test=(images, torch.randint(0, 10, (77,), generator=generator)))
"""


def test_a_test_set_of_garbage_gives_the_same_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data_of_my_own.py").write_text(DATA)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("data._target_=data_of_my_own.source", "tune.trials=2")
    found = []
    for test in ("own", "garbage"):
        assert search(tmp_path, *ATTACKED, *own, f"+data.test={test}", f"name={test}") == 0
        found.append([(t["params"], t["state"], t["values"]) for t in told(tmp_path, test)["trials"]])
    assert found[0] == found[1]
    assert kinds(tmp_path)["train"] == 4  # they are other data to the store: nothing was merely looked up
    assert all(
        set(values) == {"val_auc", "val_auc_all", "val_dbi", "val_accuracy"} for _, _, values in found[0]
    )


def question(*words: str) -> Any:
    last = {word.partition("=")[0]: word for word in (*TINY["SEARCH"], *words)}
    return tune_question.read(list(last.values()), config_loader())


def test_an_attacker_of_the_detector_meets_the_one_that_judges() -> None:
    asked = question("tune.objective=val_auc", "threat=white_box", "attack=selective_pgd")
    own = nodes(asked.corners[0], asked.settings)
    assert own["val_craft"].parents["detector"] is own["val_detector"]
    assert own["val_score"].parents["detector"] is own["val_detector"]
    plain = question("tune.objective=val_auc", "threat=white_box", "attack=fgsm_010")
    assert "detector" not in nodes(plain.corners[0], plain.settings)["val_craft"].parents


def test_an_attacker_without_the_target_fits_a_detector_of_its_own() -> None:
    asked = question("tune.objective=val_auc", "threat=transfer", "attack=selective_pgd")
    own = nodes(asked.corners[0], asked.settings)
    parents = own["val_craft"].parents
    assert parents["detector"].parents["features"] is parents["surrogate_features"]
    assert own["val_score"].parents["detector"] is own["val_detector"]
    assert own["val_detector"].parents["features"].parents["train"] is own["train"]


def varied(asked: Any, key: str, value: Any) -> str:
    """Key of the question with another value, without composing it anew."""
    cell = asked.corners[0]
    config = deepcopy(cell.config)
    node = config
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    assert last in node
    node[last] = value
    corners = (replace(cell, config=config), *asked.corners[1:])
    return str(replace(asked, corners=corners, settings=tune_objectives.read(config)).key)


def test_what_a_question_is() -> None:
    """Settings that move a value make another question; those that say where, how fast or how long do not."""
    asked = question()
    for key, value in (("paths.output", "elsewhere"), ("name", "x"), ("trainer.threads", 2), ("tune.trials", 9),
                       ("tune.timeout", 60), ("budget.train.segment", 3), ("attack.name", "cw"),
                       ("detector.bandwidth", "loo"), ("data.root", "/elsewhere")):  # fmt: skip
        assert varied(asked, key, value) == asked.key, key
    for key, value in (("seed", 1), ("tune.seed", 1), ("tune.seeds", 2), ("optimizer.lr", 0.5), ("tune.startup", 3),
                       ("budget.train.steps", 13), ("data.size", 9), ("tune.objective", "val_accuracy"),
                       ("tune.direction", "maximize"), ("tune.sampler", "random"), ("tune.collapsed", "prune"),
                       ("defense.term.rvl.squared", False), ("data.augment.flip", True)):  # fmt: skip
        assert varied(asked, key, value) != asked.key, key
    for key, value in (("attack.eps", 0.2), ("detector.bandwidth", "loo"), ("evaluate.min_n", 7)):
        config = deepcopy(asked.config)
        config["tune"]["objective"] = "val_auc"
        base = replace(asked.corners[0], config=config)
        attacked = replace(asked, corners=(base,), settings=tune_objectives.read(config))
        assert varied(attacked, key, value) != attacked.key, key
    assert replace(asked, space=asked.space[:1]).key != asked.key
    assert replace(asked, space=(replace(asked.space[0], high=0.9), asked.space[1])).key != asked.key


def test_a_collapsed_training_has_no_value(tmp_path: Path) -> None:
    assert (
        search(tmp_path, "tune.collapsed=prune", "tune.trials=1") == 1
    )  # twelve steps: the classes never came apart
    trial = told(tmp_path)["trials"][0]
    assert trial["state"] == "collapsed"
    assert "seed 0: the classes merged (mean cosine 0.9" in trial["reason"]
    assert told(tmp_path)["best"] is None
    assert kinds(tmp_path) == {"train": 1}
