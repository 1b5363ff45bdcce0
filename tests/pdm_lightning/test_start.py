"""Trainings that start from weights: predictions before the first step, keys, files, and no training at all."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pdm_lightning.models import Classifier, ResNet, WrappedClassifier, pretrained
from pdm_lightning.stages.build import build_classifier
from pdm_lightning.stages.start import start, told
from pdm_lightning.stages.train import load_classifier
from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.validate import validate

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
tiny_data, tiny_spec, run, weights, equal = (
    TINY[name] for name in ("tiny_data", "tiny_spec", "run", "weights", "equal")
)
CE = {"use": ["ce"], "readout": "direct", "pairs": "auto"}
CE["term"] = {"ce": {"_target_": "pdm_lightning.losses.CrossEntropy", "weight": 1.0}}
FROZEN = CE | {"use": []}
NET = {"name": "net", "_target_": "torchvision.models.squeezenet1_1", "mean": 0.5, "std": 0.25}


def spec_of(model=None, defense=None, **train):
    spec = tiny_spec(**train)
    return spec | {"model": spec["model"] | (model or {}), "defense": defense or spec["defense"]}


@pytest.fixture(scope="module")
def direct(tmp_path_factory) -> Path:
    """A classifier that was trained with cross-entropy."""
    folder = tmp_path_factory.mktemp("direct")
    run(folder, spec_of(defense=CE))
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def reverse(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reverse")
    run(folder, tiny_spec(steps=5))
    return folder / "model.safetensors"


def loaded(path: Path, defense) -> Classifier:
    return load_classifier(spec_of(defense=defense), path.parent, num_classes=3, in_channels=1)


@pytest.mark.parametrize("origin", ["direct", "reverse"])
@pytest.mark.parametrize("defense", [CE, FROZEN, None], ids=["ce", "frozen", "rce"])
def test_before_the_first_step_logits_are_those_of_the_weights(origin, defense, request):
    path = request.getfixturevalue(origin)
    before = loaded(path, CE if origin == "direct" else None)
    spec = spec_of({"weights": str(path)}, defense)
    classifier = build_classifier(spec, 3, 1)
    start(classifier, spec, (1, 8, 8))
    x, y = tiny_data().test
    assert classifier.readout == spec["defense"]["readout"]
    assert torch.equal(classifier.eval()(x / 255), before(x / 255))
    accuracy = (before.predict(x / 255) == y).double().mean()
    assert (classifier.predict(x / 255) == y).double().mean() == accuracy


def test_a_wrapped_network_keeps_its_own_output_under_a_reverse_readout(tmp_path):
    torch.manual_seed(0)
    # a ReLU follows its head: no change of the head's sign would keep the predictions
    net = Classifier.wrap(build_classifier({"model": NET, "defense": CE}, 4, 3).module, num_classes=4)
    torch.save(net.module.state_dict(), tmp_path / "net.pt")
    spec = spec_of() | {"model": NET | {"weights": str(tmp_path / "net.pt")}}
    classifier = build_classifier(spec, 4, 3)
    start(classifier, spec, (3, 32, 32))
    x = torch.rand(3, 3, 32, 32)
    expected = net.module.eval()((x - 0.5) / 0.25)
    assert classifier.readout == "reverse"
    assert torch.equal(classifier.eval()(x), expected)
    assert torch.equal(classifier.embed_and_raw(x)[1], -expected)


def test_a_training_starts_there_and_says_in_its_file_which_readout_it_has(direct, tmp_path):
    rate = {"optimizer": tiny_spec()["optimizer"] | {"lr": 1e-7, "weight_decay": 0.0}}
    run(tmp_path, spec_of({"weights": str(direct)}, steps=1) | rate)
    before, after = weights(direct.parent), weights(tmp_path)
    for name in ("backbone.stem.0.weight", "head.weight"):
        sign = -1 if name.startswith("head") else 1
        torch.testing.assert_close(after[name], sign * before[name], rtol=0, atol=1e-6)
    assert pretrained.read(direct)[1] == "direct"
    assert pretrained.read(tmp_path / "model.safetensors")[1] == "reverse"


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint_alone(direct, tmp_path):
    class Stop(Exception):
        pass

    def stop(_rows):
        raise Stop

    path = tmp_path / "start.safetensors"
    shutil.copy(direct, path)
    spec = spec_of({"weights": pretrained.digest(path)}, steps=12) | {"start": str(path)}
    run(tmp_path / "whole", spec)
    with pytest.raises(Stop):
        run(tmp_path / "parts", spec, watch=stop)
    path.unlink()
    run(tmp_path / "parts", spec)
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert "start" not in json.loads((tmp_path / "parts" / "train.json").read_text())["spec"]


def test_without_a_term_the_weights_are_published_as_they_are(direct, tmp_path):
    result = run(tmp_path, spec_of({"weights": str(direct)}, FROZEN))
    assert equal(weights(tmp_path), weights(direct.parent))
    x, y = tiny_data().validation
    logits = loaded(direct, CE)(x / 255)
    assert result["steps"] == result["images_seen"] == 0
    assert result["val_accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    chosen = logits.double().log_softmax(1)[torch.arange(len(y)), y]
    assert result["terms"]["loss"] == pytest.approx(-chosen.mean().item(), rel=1e-5)
    assert run(tmp_path, spec_of({"weights": str(direct)}, FROZEN)) == result


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.model.", "_orig_mod.module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
def test_checkpoints_of_many_makers_are_read(direct, tmp_path, prefix, key):
    state = {prefix + name: value for name, value in load_file(direct).items()}
    more = {"epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(state if key is None else more | {key: state}, tmp_path / "net.pt")
    classifier = build_classifier(spec_of(defense=CE), 3, 1)
    pretrained.load(classifier, *pretrained.read(tmp_path / "net.pt"))
    assert equal(classifier.state_dict(), load_file(direct))


def test_a_head_of_other_classes_starts_fresh_and_says_so(direct, caplog):
    classifier = build_classifier(spec_of(defense=CE), 5, 1)
    fresh = copy.deepcopy(classifier.state_dict())
    with caplog.at_level(logging.WARNING):
        pretrained.load(classifier, *pretrained.read(direct))
    assert "head has 3 classes, the data 5: it starts fresh" in caplog.text
    found, old = classifier.state_dict(), load_file(direct)
    assert all(torch.equal(found[name], fresh[name]) for name in ("head.weight", "head.bias"))
    assert torch.equal(found["backbone.stem.0.weight"], old["backbone.stem.0.weight"])
    with pytest.raises(ValueError, match="fresh head stays as it is"):
        pretrained.load(classifier, *pretrained.read(direct), fresh=False)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("touched-by-a-checkpoint"),))


def _wrong_files(folder: Path, direct: Path) -> dict[str, Path]:
    state = load_file(direct)
    renamed = {name.replace("stage1", "block1"): value for name, value in state.items()}
    files = {name: folder / f"{name}.pt" for name in ("evil", "pickle", "list", "net")}
    torch.save({"state_dict": state, "more": Evil()}, files["evil"])
    files["pickle"].write_bytes(pickle.dumps(Evil()))
    torch.save([1, 2], files["list"])
    torch.save(ResNet(8, 1), files["net"])
    for name, table in {
        "renamed": renamed,
        "wide": {n: v[:, :1] if v.dim() == 4 else v for n, v in state.items()},
    }.items():
        save_file({key: value.contiguous() for key, value in table.items()}, folder / f"{name}.safetensors")
        files[name] = folder / f"{name}.safetensors"
    for name, content in {
        "empty.pt": b"",
        "text.pt": b"weights",
        "cut.safetensors": direct.read_bytes()[:999],
    }.items():
        (folder / name).write_bytes(content)
        files[name] = folder / name
    return files | {"absent": folder / "absent.pt", "folder": folder}


WRONG = {
    "evil": "no code of a file is run",
    "pickle": ":",
    "list": "no table of weights",
    "net": "no code of a file",
}
WRONG |= {"renamed": r"10 missing \(backbone\.stage1.*10 unknown \(backbone\.block1", "wide": "another shape"}
WRONG |= {
    "empty.pt": "cannot be read",
    "text.pt": ":",
    "cut.safetensors": "cannot be read",
    "absent": ":",
    "folder": ":",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_holds_something_else_is_one_line_and_runs_nothing(name, direct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = _wrong_files(tmp_path, direct)[name]
    with pytest.raises(ValueError, match=WRONG[name]) as error:
        pretrained.load(build_classifier(spec_of(defense=CE), 3, 1), *pretrained.read(path))
    assert "\n" not in str(error.value)
    assert not Path("touched-by-a-checkpoint").exists()


def test_weights_that_are_not_finite_are_named(direct, tmp_path):
    state = load_file(direct)
    state["head.bias"][1] = torch.nan
    save_file(state, broken := tmp_path / "broken.safetensors")
    spec = spec_of({"weights": str(broken)}, FROZEN)
    with pytest.raises(ValueError, match=r"broken.safetensors: 'head.bias' is not finite everywhere"):
        start(build_classifier(spec, 3, 1), spec, (1, 8, 8))


def test_a_network_that_takes_no_such_images_is_named_before_the_training(tmp_path):
    with pytest.raises(ValueError, match=r"takes no images of 1x8x8 .*data\.size=224"):
        run(tmp_path, spec_of() | {"model": NET})


def test_weights_count_by_content_and_not_by_place(direct, tmp_path):
    def key(*words):
        cell = ask("run", [f"paths.output={tmp_path}", "attack=none", "card.run=none", *words])
        (node,) = [node for node in make_plan(cell) if node.kind == "train"]
        return node.key, node

    copied = tmp_path / "elsewhere.safetensors"
    shutil.copy(direct, copied)
    one, node = key(f"model.weights={direct}")
    assert node.spec["model"]["weights"] == told({"weights": str(direct)})
    assert node.runtime["weights"] == str(direct)
    assert key(f"model.weights={copied}")[0] == one != key()[0]
    state = load_file(direct)
    save_file(state | {"head.bias": state["head.bias"] + 1}, copied)
    assert key(f"model.weights={copied}")[0] != one
    with pytest.raises(ValueError, match="changed since"):
        spec = node.spec | {"start": str(copied)}
        start(build_classifier(spec, 3, 1), spec, (1, 8, 8))
    assert "weights" not in key()[1].spec["model"]


def test_a_target_with_a_colon_is_told_how_to_write_it():
    cells = ask("plan", ["model=import", "model.target=torchvision.models:resnet18", "trainer.device=cpu"])
    with pytest.raises(ValueError, match=r"needed, model\.target=torchvision\.models\.resnet18$"):
        validate(cells)


def test_names_tell_of_weights_by_file_and_folder():
    (cell,) = ask("run", ["model.weights=/long/way/to/run7/best.pt"])
    assert cell.name("model") == "resnet8[weights=run7/best.pt]"


@pytest.mark.parametrize("model", [{"target": "x", "_target_": "torch.nn.Identity"}, {"embedding": "fc"}])
def test_what_is_not_the_network_s_own_is_not_passed_to_it(model):
    with pytest.raises(ValueError, match=r"could be the embedding|no layer 'fc'"):
        build_classifier({"model": spec_of()["model"] | model | {"weights": None}, "defense": CE}, 3, 1)


def test_a_wrapped_network_is_built_for_any_whole_network():
    built = build_classifier({"model": NET, "defense": {"readout": "reverse"}}, 7, 3)
    assert isinstance(built, WrappedClassifier) and isinstance(built.module, nn.Module)
    assert (built.num_classes, built.negate, built.speaks) == (7, True, "direct")
