"""A proxy: distilled in a folder, resumed exactly, published with its agreement."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import nn

from pdm_lightning.models import Classifier
from pdm_lightning.stages import proxy, training
from pdm_lightning.stages.context import Context, open_classifier
from pdm_lightning.stages.train import Segments, load_classifier
from pdm_lightning.store import Store
from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import Node

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
tiny_data, tiny_spec, run, weights, equal = (
    TINY[name] for name in ("tiny_data", "tiny_spec", "run", "weights", "equal")
)

Published: TypeAlias = tuple[Store, Node, Node]


class Killed(BaseException):
    """Stands for a kill at one point."""


class Stripes(Context):
    """Every node's data are the stripes of the tiny training."""

    def data(self, node: Node) -> Any:
        return tiny_data()


def proxy_spec(labels: str = "soft", temperature: float = 1.0, **train: Any) -> dict[str, Any]:
    term = {
        "_target_": "pdm_lightning.losses.Distillation",
        "labels": labels,
        "temperature": temperature,
        "weight": 1.0,
    }
    spec = tiny_spec(**train)
    spec["model"] |= {"depth": 14}
    return spec | {
        "defense": {"use": ["distill"], "readout": "direct", "pairs": "auto", "term": {"distill": term}}
    }


def stripes_teacher(readout: str = "direct") -> Classifier:
    """A linear teacher that calls every stripe by the next class's name."""
    teacher = Classifier(nn.Flatten(), 64, 3, readout=readout)
    bright = torch.zeros(3, 8, 8)
    for label in range(3):
        bright[(label + 1) % 3, label * 3 : label * 3 + 2] = 1.0
    with torch.no_grad():
        teacher.head.weight.copy_(bright.flatten(1) * (-1.0 if readout == "reverse" else 1.0))
    return teacher.eval()


@pytest.mark.parametrize(
    ("readout", "labels", "temperature"),
    [("direct", "soft", 4.0), ("reverse", "soft", 1.0), ("reverse", "hard", 1.0)],
)
def test_a_proxy_of_a_linear_teacher_agrees_with_it_and_not_with_the_labels(
    readout: str, labels: str, temperature: float, tmp_path: Path
) -> None:
    teacher, spec = stripes_teacher(readout), proxy_spec(labels, temperature, steps=40, segment=40)
    result = run(tmp_path, spec, teacher=teacher)
    learned = load_classifier(spec, tmp_path, num_classes=3, in_channels=1)
    images, own = tiny_data().test
    x = images.float() / 255
    assert torch.equal(teacher.predict(x), (own + 1) % 3)
    assert torch.equal(learned.predict(x), teacher.predict(x))
    assert result["val_accuracy"] == 0
    assert set(result["terms"]) == {"loss", "distill", "accuracy"}


def trained_nodes(output: Path) -> tuple[Node, Node]:
    runtime = {
        "segment": 5,
        "trainer": {"device": "cpu"},
        "paths": {"output": str(output)},
        "logger": {"name": "csv"},
        "group": "test",
    }
    # so few steps that the target errs, and the proxy, which has learned longer, errs elsewhere
    target = Node("train", tiny_spec(steps=6), {}, runtime, "target")
    return target, Node("proxy", proxy_spec(), {"train": target}, runtime, "proxy")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Store with a target and its proxy."""
    output = tmp_path_factory.mktemp("proxy")
    context = Stripes(Store(output / "store"), progress=False)
    target, copy = trained_nodes(output)
    for node, build in ((target, training.build), (copy, proxy.build)):
        context.store.get(
            node.kind,
            node.spec,
            node.parent_keys,
            lambda folder, n=node, b=build: b(n, folder, context),
            source="test",
        )
    return context.store, target, copy


def test_the_artifact_opens_and_its_agreement_can_be_measured_again(published: Published) -> None:
    store, target, copy = published
    artifact = store.open("proxy", copy.key)
    assert sorted(artifact.manifest["files"]) == [
        "data.json",
        "log.csv",
        "model.safetensors",
        "proxy.json",
        "train.json",
    ]
    mine, theirs = open_classifier(artifact), open_classifier(store.open("train", target.key))
    images, labels = tiny_data().validation
    ours, answers = (classifier.predict(images.float() / 255) for classifier in (mine, theirs))
    found = artifact.json("proxy.json")
    assert found["agreement"] == pytest.approx((ours == answers).float().mean().item())
    assert found["accuracy"] == pytest.approx((ours == labels).float().mean().item())
    assert found["target_accuracy"] == pytest.approx((answers == labels).float().mean().item())
    assert found["accuracy"] == pytest.approx(artifact.json("train.json")["val_accuracy"])
    assert found["images"] == 15
    assert (mine.readout, theirs.readout) == ("direct", "reverse")
    assert artifact.json("train.json")["spec"]["target"] == target.key


def test_a_training_that_is_killed_goes_on_to_exactly_the_same_weights(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, copy = published
    whole = store.open("proxy", copy.key)
    steps: list[int] = []
    count = Segments.on_train_batch_end

    def counted(self: Any, trainer: Any, module: Any, result: Any, batch: Any, index: int) -> None:
        steps.append(batch["step"])
        if len(steps) == 14:
            raise Killed
        count(self, trainer, module, result, batch, index)

    monkeypatch.setattr(Segments, "on_train_batch_end", counted)
    with pytest.raises(Killed):
        proxy.build(copy, tmp_path, Stripes(store, progress=False))
    saved = torch.load(tmp_path / "checkpoint" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in saved} == {"classifier"}
    proxy.build(copy, tmp_path, Stripes(store, progress=False))
    # steps 10 to 13 were lost with the call; those before lay in the checkpoint
    assert steps == [*range(14), *range(10, 22)]
    assert equal(weights(tmp_path), weights(whole.path))
    assert (tmp_path / "log.csv").read_text() == (whole.path / "log.csv").read_text()
    assert json.loads((tmp_path / "proxy.json").read_text()) == whole.json("proxy.json")


def test_a_finished_training_without_its_agreement_is_not_trained_again(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, copy = published

    def stop(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(proxy, "write_json", stop)
        with pytest.raises(Killed):
            proxy.build(copy, tmp_path, Stripes(store, progress=False))
    monkeypatch.setattr(Segments, "on_train_batch_end", stop)
    proxy.build(copy, tmp_path, Stripes(store, progress=False))
    assert json.loads((tmp_path / "proxy.json").read_text()) == store.open("proxy", copy.key).json(
        "proxy.json"
    )


def test_distilling_leaves_the_target_in_memory_as_it_is(published: Published, tmp_path: Path) -> None:
    store, target, copy = published
    context = Stripes(store, progress=False)
    held = context.classifier(target, torch.device("cpu"))
    before = {name: value.clone() for name, value in held.state_dict().items()}
    proxy.build(copy, tmp_path, context)
    assert context.classifier(target, torch.device("cpu")) is held
    assert all(torch.equal(value, before[name]) for name, value in held.state_dict().items())
    assert not held.training
    assert all(p.requires_grad and p.grad is None for p in held.parameters())


def test_a_folder_with_the_proxy_of_another_target_is_refused(published: Published, tmp_path: Path) -> None:
    store, target, copy = published
    other = Node("train", target.spec | {"seed": 4}, {}, target.runtime)
    context = Stripes(store, progress=False)
    proxy.build(copy, tmp_path, context)
    wrong = Node("proxy", copy.spec, {"train": other}, copy.runtime)
    context._classifiers = {other.key: open_classifier(store.open("train", target.key))}
    with pytest.raises(ValueError, match="other settings of target"):
        proxy.build(wrong, tmp_path, context)


def test_the_proxy_of_a_black_box_and_the_defence_of_a_transfer_are_chosen_like_any_other() -> None:
    (cell,) = ask(
        "plan", ["threat=black_box", "model@threat.proxy.model=resnet20", "threat.proxy.labels=hard"]
    )
    chosen = cell.config["threat"]["proxy"]
    assert (chosen["model"]["depth"], chosen["labels"], chosen["temperature"]) == (20, "hard", 1.0)
    (cell,) = ask("plan", ["threat=black_box", "threat.proxy.model.leak=0", "threat.proxy.temperature=4"])
    chosen = cell.config["threat"]["proxy"]
    assert (chosen["model"]["depth"], chosen["model"]["leak"], chosen["temperature"]) == (32, 0, 4)
    (cell,) = ask("plan", ["threat=transfer", "defense@threat.own.defense=rce", "defense=pdm"])
    assert cell.config["threat"]["own"]["defense"]["use"] == ["rce"]
    assert cell.config["defense"]["name"] == "pdm"
