"""The defences of the paper's future work: trained, stopped and resumed, opened and attacked as any other."""

from __future__ import annotations

import json
import math
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attacks import BIM
from pdm_lightning.losses import Outputs, look
from pdm_lightning.stages import layer_gradients
from pdm_lightning.stages.build import build_classifier, build_loss
from pdm_lightning.stages.train import Segments, load_classifier
from pdm_lightning.study.ask import ask
from pdm_lightning.study.plan import make_plan
from pdm_lightning.study.specs import train_spec
from pdm_lightning.study.validate import validate

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
NEW = ["pdm_layers", "large_margin", "rce_margin", "ce_jacobian", "pdm_jacobian", "ce_input_gradient"]
GRADIENTS = {"large_margin", "jacobian", "input_gradient"}


@cache
def config(defense: str, *words: str) -> dict[str, Any]:
    (cell,) = ask("plan", [f"defense={defense}", "attack=none", "trainer.device=cpu", *words])
    return cell.config


def spec(name: str) -> dict[str, Any]:
    """A tiny training of a shipped defence."""
    made: dict[str, Any] = TINY["tiny_spec"](steps=6, segment=3, batch_size=8)
    return made | {"defense": train_spec(config(name), {})["defense"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in NEW}
    for name, folder in folders.items():
        TINY["run"](folder, spec(name))
    return folders


@pytest.mark.parametrize("name", NEW)
def test_every_term_is_logged_finite_in_training_and_validation(name: str, trained: dict[str, Path]) -> None:
    history = json.loads((trained[name] / "train.json").read_text())
    rows = [line.split(",") for line in (trained[name] / "log.csv").read_text().splitlines()]
    for term in spec(name)["defense"]["use"]:
        assert math.isfinite(history["terms"][term])
        column = rows[0].index(f"train/{term}")
        values = [float(row[column]) for row in rows[1:] if row[column]]
        assert values
        assert all(math.isfinite(value) and value >= 0 for value in values)
        if term in GRADIENTS:
            assert history["terms"][term] > 0


@pytest.mark.parametrize("name", NEW)
def test_nothing_of_the_loss_is_in_the_classifier(name: str, trained: dict[str, Path]) -> None:
    plain = build_classifier(spec("ce"), 3, 1).state_dict()
    saved = load_file(trained[name] / "model.safetensors")
    assert {key: value.shape for key, value in saved.items()} == {k: v.shape for k, v in plain.items()}


@pytest.mark.parametrize("name", NEW)
def test_it_is_opened_and_attacked_as_any_other(name: str, trained: dict[str, Path]) -> None:
    model = load_classifier(spec(name), trained[name], num_classes=3, in_channels=1)
    assert model.readout == ("reverse" if name in ("pdm_layers", "rce_margin") else "direct")
    x = TINY["tiny_data"]().test[0].float() / 255
    result = BIM(eps=0.1)(model, x)
    assert result.x_adv.shape == x.shape
    assert 0 < (result.x_adv - x).abs().amax() <= 0.1 + 1e-6
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", NEW)
def test_a_stopped_training_goes_on_to_the_very_weights_of_an_undisturbed_one(
    name: str, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Segments.on_train_batch_end

    def stop(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if batch["step"] == 4:
            raise InterruptedError
        count(self, trainer, module, outputs, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "on_train_batch_end", stop)
        with pytest.raises(InterruptedError):
            TINY["run"](tmp_path, spec(name))
    TINY["run"](tmp_path, spec(name))
    assert TINY["equal"](TINY["weights"](tmp_path), TINY["weights"](trained[name]))
    assert (tmp_path / "log.csv").read_text() == (trained[name] / "log.csv").read_text()


@pytest.mark.parametrize("name", NEW)
def test_the_gradient_of_its_own_loss_is_measured_by_layer(name: str) -> None:
    """`layer_gradients` shows a loss what training shows it; at the input, against a finite difference."""
    defense = spec(name)["defense"]
    loss, net = build_loss(defense), build_classifier(spec(name), 3, 1).double().eval()
    x, y = (part[:6] for part in TINY["tiny_data"]().test)
    x, same = x.double() / 255, torch.tensor([True, False, True]) if loss.needs_pairs else None

    def measured(x: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return layer_gradients._measure(net, loss, x.clone(), y, same)["train"]

    def total(x: torch.Tensor) -> float:
        torch.manual_seed(0)
        seen = look(net, x, loss.taps, loss.places)
        read = net.read(seen.logits)
        out = Outputs(
            seen.embeddings, seen.logits, y, same, readout=read, layers=seen.layers, places=seen.places
        )
        return loss(out)[0].item() * (len(x) if same is None else len(same))

    sizes = measured(x)
    assert {"input", "embedding"} < set(sizes)
    slopes = []
    for pixel in range(64):
        shift = torch.zeros_like(x)
        shift[0].view(-1)[pixel] = 1e-6
        slopes.append((total(x + shift) - total(x - shift)) / 2e-6)
    assert sizes["input"][0].item() == pytest.approx(torch.tensor(slopes).norm().item(), rel=1e-3)


@pytest.mark.parametrize("name", NEW)
def test_each_trains_what_it_reads_out(name: str) -> None:
    """A penalty alone trains nothing, so a classification term stands beside it, and its readout fits."""
    defense = spec(name)["defense"]
    loss = build_loss(defense)
    assert {"ce", "rce"} & set(loss.names)
    assert defense["readout"] == ("reverse" if "rce" in loss.names else "direct")
    assert loss.needs_pairs == (defense["pairs"] == "always") == ("siamese" in loss.names)
    assert bool(loss.places) == bool(GRADIENTS & set(loss.names))
    assert (loss.taps != ()) == (name == "pdm_layers")


def test_the_trainings_of_other_defences_are_asked_for_as_before() -> None:
    """A key more would train every model of every store anew."""
    siamese = {"_target_": "pdm_lightning.losses.Siamese", "weight": 1.0, "norm": "l1"}
    rvl = {
        "_target_": "pdm_lightning.losses.ReduceVariance",
        "weight": 0.1,
        "squared": True,
        "reduction": "mean",
        "normalize": False,
    }
    rce = {"_target_": "pdm_lightning.losses.ReverseCrossEntropy", "weight": 1.0}
    ce = {"_target_": "pdm_lightning.losses.CrossEntropy", "weight": 1.0}
    paired = {"q": 0.5, "forward": "concatenated", "pairs": "always"}
    asked = {
        "ce": {"use": ["ce"], "readout": "direct", "pairs": "auto", "term": {"ce": ce}},
        "rce": {"use": ["rce"], "readout": "reverse", "pairs": "auto", "term": {"rce": rce}},
        "pdm": {
            "use": ["rce", "siamese", "rvl"],
            "readout": "reverse",
            "term": {"rce": rce, "siamese": siamese, "rvl": rvl},
            **paired,
        },
        "siamese_rvl": {
            "use": ["ce", "siamese", "rvl"],
            "readout": "direct",
            "term": {"ce": ce, "siamese": siamese, "rvl": rvl},
            **paired,
        },
    }
    for name, expected in asked.items():
        assert train_spec(config(name), {})["defense"] == expected


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        (
            "pdm_layers",
            ["+defense.term.siamese.layers={backbone.stage9:1.0}"],
            r"^defense\.term\.siamese\.layers: model=resnet8: .*'backbone\.stage9': choose e\.g\. embedding",
        ),
        ("pdm", ["+defense.term.rvl.layers=3"], r"^defense\.term\.rvl\.layers=3: "),
        ("large_margin", ["defense.term.large_margin.gamma=-1"], r"^defense\.term\.large_margin\.gamma=-1: "),
        ("large_margin", ["defense.term.large_margin.norm=3"], r"^defense\.term\.large_margin\.norm=3: "),
        ("ce_jacobian", ["defense.term.jacobian.of=head"], r"^defense\.term\.jacobian\.of=head: "),
        ("ce_jacobian", ["trainer.devices=2"], r"^trainer\.devices=2: .*use trainer\.devices=1$"),
    ],
)
def test_what_is_wrong_is_named_when_the_study_is_planned(name: str, words: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        validate(ask("plan", [f"defense={name}", "attack=none", "trainer.device=cpu", *words]))
    assert "\n" not in str(error.value)


def test_layers_typed_on_the_command_line_count() -> None:
    words = ("+defense.term.siamese.layers={backbone.stage1:0.5}",)
    assert build_loss(config("pdm", *words)["defense"]).taps == ("backbone.stage1",)
    torch.manual_seed(0)
    more = "+defense.term.large_margin.layers={input:0,embedding:2}"
    assert build_loss(config("large_margin", more)["defense"]).places == ("embedding",)


def test_every_norm_of_the_margin_can_be_typed(tmp_path: Path) -> None:
    """`inf` is a number to Hydra, and no number that can be part of a key: the word is `linf`, as attacks have it."""
    for norm in ("1", "2", "linf"):
        words = ["defense=large_margin", f"defense.term.large_margin.norm={norm}", f"paths.output={tmp_path}"]
        cells = ask("plan", words)
        validate(cells)
        assert make_plan(cells).entries[0].nodes["train"].key
