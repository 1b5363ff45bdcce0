"""Layers that a loss sees, and places that it takes gradients at, in one pass of the classifier."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from detection.features import tapped
from pdm_lightning.lit import PDMModule
from pdm_lightning.losses import (
    CombinedLoss,
    CrossEntropy,
    InputGradient,
    Jacobian,
    LargeMargin,
    Outputs,
    ReduceVariance,
    Siamese,
    check_layers,
    look,
)
from pdm_lightning.models import Classifier, ResNet
from pdm_lightning.replicas import Replica
from pdm_lightning.seeding import derive

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.0, "schedule": {"kind": "constant"}}
STAGES = ("backbone.stem", "backbone.stage1", "backbone.stage2", "backbone.stage3")


def resnet() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ResNet(8, 1, [2, 2, 4]), 4, 3).double().eval()


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("passes", [1, 2])
def test_layers_are_those_that_detectors_see(passes: int) -> None:
    net, x = resnet(), images()
    seen = look(net, x, STAGES, (), passes)
    with tapped(net, STAGES) as expected:
        z, raw = net.embed_and_raw(x)
    assert set(seen.layers) == set(STAGES)
    for name in STAGES:
        torch.testing.assert_close(seen.layers[name], expected[name])
    torch.testing.assert_close(seen.embeddings, z)
    torch.testing.assert_close(seen.logits, raw)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("place", ["input", "embedding", *STAGES])
def test_gradients_at_a_place_are_those_of_what_follows_it(place: str, passes: int) -> None:
    """Against the rest of the network, run by hand from the place's own output."""
    net, x = resnet(), images()
    seen = look(net, x, (), [place], passes)
    out = Outputs(seen.embeddings, seen.logits, torch.arange(6) % 3, places=seen.places)
    (slope,) = out.slopes(out.logits.pow(3).sum(), [place], create_graph=False)
    parts = [
        net.centre,
        net.backbone.stem,
        net.backbone.stage1,
        net.backbone.stage2,
        net.backbone.stage3,
        lambda maps: maps.mean(dim=(2, 3)),
        net.head,
    ]
    before = ["input", *STAGES, "embedding"].index(place)
    value = x.clone()
    for part in parts[: before + (place != "input")]:
        value = part(value)
    start = value = value.detach().requires_grad_()
    for part in parts[before + (place != "input") :]:
        value = part(value)
    (expected,) = torch.autograd.grad(value.pow(3).sum(), start)
    torch.testing.assert_close(slope, expected.flatten(1))
    assert slope.abs().max() > 0


def test_a_change_in_place_after_a_layer_leaves_its_output_and_gradient() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(inplace=True))
    net, x = Classifier(body, 3, 3), torch.rand(5, 1, 2, 2) - 0.5
    with torch.no_grad():
        before = body[:2](net.centre(x))
    assert before.min() < 0
    seen = look(net, x, ["backbone.1"], ["backbone.1"])
    assert torch.equal(seen.layers["backbone.1"], before)
    assert torch.equal(seen.places["backbone.1"][0], before)
    out = Outputs(seen.embeddings, seen.logits, torch.zeros(5).long(), places=seen.places)
    (slope,) = out.slopes(seen.logits.sum(), ["backbone.1"], create_graph=False)
    # the activation stands behind the place: no gradient where it is off
    torch.testing.assert_close(slope, net.head.weight.sum(dim=0) * (before > 0))


def test_the_embedding_of_a_wrapped_network_is_the_output_of_its_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    classifier, x = Classifier.wrap(net, "1", 3), torch.rand(5, 1, 8, 8)
    seen = look(classifier, x, (), ["embedding"])
    out = Outputs(seen.embeddings, seen.logits, torch.zeros(5).long(), places=seen.places)
    (slope,) = out.slopes(seen.logits[:, 1].sum(), ["embedding"], create_graph=False)
    torch.testing.assert_close(slope, net[3].weight[1].expand(5, 4))


def test_a_network_whose_head_is_found_is_looked_at_once() -> None:
    """Finding it takes passes of its own, whatever the first look is for."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    classifier, x = Classifier.wrap(net), torch.rand(5, 1, 8, 8)
    seen = look(classifier, x, ["module.1"], ["input", "module.1"])
    assert int(net[1].num_batches_tracked) == 1  # type: ignore[arg-type]
    torch.testing.assert_close(seen.layers["module.1"], seen.embeddings)
    loss = CombinedLoss({"t": LargeMargin({"embedding": 1.0})}, {"t": 1.0})
    with pytest.raises(ValueError, match=r"where no gradient is taken: .*model\.embedding=NAME$") as error:
        check_layers(classifier, loss)
    assert "\n" not in str(error.value)


def test_looking_leaves_no_hook_and_no_gradient_on_the_images() -> None:
    net, x = resnet(), images()
    with pytest.raises(ValueError, match="do not fit"):
        look(net, x[:, :, :4], STAGES, ("input", *STAGES))
    look(net, x, STAGES, ("input", *STAGES))
    assert not any(module._forward_hooks for module in net.modules())
    assert not x.requires_grad


def pairs(n: int = 4) -> dict:
    torch.manual_seed(3)
    same = torch.tensor([True, False, True, False])
    return {"x": images(2 * n), "y": torch.arange(2 * n) % 3, "same": same, "step": 0}


def module(loss: CombinedLoss, net: Classifier | None = None, **settings) -> PDMModule:
    made = PDMModule(net or resnet(), loss, SGD, 10, **settings)
    made.configure_optimizers()
    return made


@pytest.mark.parametrize("forward", ["concatenated", "separate"])
@pytest.mark.parametrize(
    "make", [Siamese, ReduceVariance, lambda layers: ReduceVariance(False, "sum", True, layers)]
)
def test_pdm_on_layers_is_the_weighted_sum_of_each(make, forward: str) -> None:
    """In eval mode, where one forward equals two."""
    weights = {"embedding": 0.5, "backbone.stage2": 2.0, "backbone.stage1": 0.0}
    term = make(layers=weights)
    assert term.taps == ("backbone.stage2",)
    lit, batch = module(CombinedLoss({"t": term}, {"t": 1.0}), forward=forward), pairs()
    found = lit.training_step(batch, 0).item()
    net = resnet()
    with tapped(net, STAGES) as maps:
        z, raw = net.embed_and_raw(batch["x"])
    plain, expected = make(layers=None), 0.0
    for layer, weight in ((z, 0.5), (maps["backbone.stage2"], 2.0)):
        expected += weight * plain(Outputs(layer, raw, batch["y"], batch["same"])).item()
    assert found == pytest.approx(expected, rel=1e-10)
    assert found != pytest.approx(0.5 * plain(Outputs(z, raw, batch["y"], batch["same"])).item())


TERMS = [InputGradient(), Jacobian("embedding", 2), LargeMargin({"embedding": 1.0, "backbone.stage2": 1.0})]


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_validation_in_inference_mode_has_the_value_of_training_in_eval_mode(term) -> None:
    lit = module(CombinedLoss({"ce": CrossEntropy(), "t": term}, {"ce": 1.0, "t": 1.0}))
    lit._trainer = SimpleNamespace(loggers=[], barebones=False, _fabric=None)
    lit.log_dict = lambda *args, **kwargs: None
    lit.eval()
    for _ in range(2):
        with torch.inference_mode():
            # what Lightning moves to the device inside is an inference tensor
            batch = {key: v.clone() if isinstance(v, Tensor) else v for key, v in pairs().items()}
            assert batch["x"].is_inference()
            lit.validation_step(batch, 0)
            lit.on_validation_epoch_end()
    values = [row["val/t"] for row in lit.history]
    assert values[0] == values[1] > 0
    assert all(parameter.grad is None for parameter in lit.parameters())
    net, batch = resnet(), pairs()
    seen = look(net, batch["x"], term.taps, term.places)
    out = Outputs(seen.embeddings, seen.logits, batch["y"], batch["same"], places=seen.places)
    torch.manual_seed(derive(0, "validation", 0))
    assert values[0] == pytest.approx(term(out).item(), rel=1e-9)


def test_a_term_of_gradients_draws_by_seed_and_step_alone() -> None:
    def value(seed: int, step: int) -> float:
        lit = module(CombinedLoss({"j": Jacobian()}, {"j": 1.0}), seed=seed)
        torch.rand(step + 1)
        return lit.training_step(pairs() | {"step": step}, 0).item()

    assert value(0, 1) == value(0, 1)
    assert len({value(0, 1), value(0, 2), value(1, 1)}) == 3


def test_an_unknown_layer_is_refused_before_anything_is_trained() -> None:
    for term in (Siamese(layers={"backbone.stage9": 1.0}), LargeMargin({"backbone.stage9": 1.0})):
        loss = CombinedLoss({"t": term}, {"t": 1.0})
        with pytest.raises(
            ValueError, match=r"'backbone\.stage9': choose e\.g\. embedding, .*stage1"
        ) as error:
            module(loss)
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match="stage9"):
            check_layers(resnet(), loss)


class Odd(nn.Module):
    """A layer that runs twice, one that does not run, one without rows."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.mean = nn.Linear(4, 4), nn.Linear(4, 4), Mean()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.twice(self.twice(x.flatten(1)))
        return out + self.mean(out)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=0, keepdim=True)


@pytest.mark.parametrize(
    ("layer", "says"), [("twice", "ran 2 times"), ("never", "ran 0 times"), ("mean", "1 rows of 3")]
)
def test_a_layer_has_to_run_once_with_a_row_an_image(layer: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        look(Classifier(Odd(), 4, 3), torch.rand(3, 1, 2, 2), [f"backbone.{layer}"])
    assert "\n" not in str(error.value)


def test_gradients_are_refused_where_several_processes_train() -> None:
    loss = CombinedLoss({"j": Jacobian()}, {"j": 1.0})
    with pytest.raises(ValueError, match=r"^trainer\.devices=2: .*use trainer\.devices=1$"):
        PDMModule(resnet(), loss, SGD, 10, replica=Replica(0, 2))
    layers = CombinedLoss({"s": Siamese(layers={"backbone.stage2": 1.0})}, {"s": 1.0})
    PDMModule(resnet(), layers, SGD, 10, replica=Replica(0, 2))


def test_what_a_batch_does_not_hold_is_named() -> None:
    out = Outputs(torch.zeros(2, 1), torch.zeros(2, 3), torch.zeros(2).long(), torch.tensor([True]))
    with pytest.raises(ValueError, match=r"no layer 'backbone\.stage2'"):
        Siamese(layers={"backbone.stage2": 1.0})(out)
    with pytest.raises(ValueError, match="no gradient reaches 'input'"):
        InputGradient()(Outputs(out.embeddings, out.logits.requires_grad_(), out.labels))
    net = Classifier(nn.Flatten(), 4, 3)
    seen = look(net, torch.rand(2, 1, 2, 2), (), ["input"])
    far = Outputs(
        seen.embeddings, seen.logits, out.labels, places={"input": (torch.rand(2, 4).requires_grad_(),)}
    )
    with pytest.raises(ValueError, match="do not depend on 'input'"):
        far.slopes(far.logits.sum(), ["input"], create_graph=False)
