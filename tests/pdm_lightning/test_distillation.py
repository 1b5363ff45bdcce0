"""The distillation term against independent formulas, and the teacher inside the Lightning module."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdm_lightning.lit import PDMModule
from pdm_lightning.losses import CombinedLoss, Distillation, Outputs
from pdm_lightning.models import Classifier, ResNet

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.0, "schedule": {"kind": "constant"}}


def outputs(
    o: Tensor, teacher: Tensor | None, y: Tensor | None = None, same: Tensor | None = None
) -> Outputs:
    labels = torch.zeros(len(o), dtype=torch.int64) if y is None else y
    return Outputs(torch.zeros(len(o), 1), o, labels, same, teacher)


def logits(rows: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    o, t = (torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    return o, t


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_by_hand(temperature: float) -> None:
    # divided by T the teacher's logits give (3/4, 1/4), the classifier's (1/3, 2/3)
    t = torch.tensor([[math.log(3) * temperature, 0.0]])
    o = torch.tensor([[0.0, math.log(2) * temperature]])
    expected = temperature**2 * (0.75 * math.log(3) + 0.25 * math.log(1.5))
    assert Distillation("soft", temperature)(outputs(o, t)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_is_the_divergence_and_the_entropy_of_the_answers(temperature: float) -> None:
    o, t = logits()
    p = (t / temperature).softmax(dim=1)
    divergence = nn.KLDivLoss(reduction="batchmean")((o / temperature).log_softmax(dim=1), p)
    entropy = torch.distributions.Categorical(probs=p).entropy().mean()
    expected = temperature**2 * (divergence + entropy).item()
    assert Distillation("soft", temperature)(outputs(o, t)).item() == pytest.approx(expected)


def test_hard_is_the_cross_entropy_of_the_predicted_classes() -> None:
    o, t = logits()
    assert Distillation("hard")(outputs(o, t)).item() == pytest.approx(F.cross_entropy(o, t.argmax(1)).item())


def test_soft_goes_to_hard_where_the_teacher_is_sure() -> None:
    o, t = logits()
    soft, hard = Distillation("soft")(outputs(o, 1e4 * t)), Distillation("hard")(outputs(o, t))
    assert soft.item() == pytest.approx(hard.item())


def test_the_gradient_vanishes_at_the_teacher_and_is_its_logits_difference_at_a_high_temperature() -> None:
    o, t = logits()
    o.requires_grad_()
    (at_teacher,) = torch.autograd.grad(Distillation("soft", 2.0)(outputs(o, o.detach())), o)
    assert at_teacher.abs().max().item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(Distillation("soft", 1e4)(outputs(o, t)), o)
    # Hinton et al., equation 4: (o - t) / (N T^2) for logits of mean 0 over N classes; here times T^2 / batch
    difference = (o - o.mean(1, keepdim=True) - t + t.mean(1, keepdim=True)).detach()
    assert torch.allclose(gradient, difference / o.numel(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("term", [Distillation("soft", 2.0), Distillation("hard")])
def test_gradients_agree_with_finite_differences(term: Distillation) -> None:
    o, t = logits()
    same = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda o: term(outputs(o, t, same=same)), o.requires_grad_())


@pytest.mark.parametrize("term", [Distillation("soft", 2.0), Distillation("hard")])
def test_pairs_are_the_sum_of_their_branches_and_labels_play_no_part(term: Distillation) -> None:
    o, t = logits()
    pairs = term(outputs(o, t, same=torch.tensor([True, False, True])))
    branches = [term(outputs(o[half], t[half])) for half in (slice(0, 3), slice(3, 6))]
    assert pairs.item() == pytest.approx(sum(branch.item() for branch in branches))
    assert torch.equal(term(outputs(o, t)), term(outputs(o, t, y=torch.tensor([0, 1, 2, 3, 1, 0]))))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Distillation("fuzzy"), "soft or hard"),
        (lambda: Distillation(temperature=0.0), "above 0"),
        (lambda: Distillation(temperature=math.nan), "finite"),
        (lambda: Distillation(temperature="warm"), "finite number"),
        (lambda: Distillation("hard", temperature=4.0), "does nothing to hard labels"),
        (lambda: Distillation()(outputs(torch.zeros(2, 3), None)), "there is none: train with one"),
        (lambda: outputs(torch.zeros(2, 3), torch.zeros(2, 4)), "the same images and classes"),
        (lambda: outputs(torch.zeros(2, 3), torch.zeros(1, 3)), "the same images and classes"),
    ],
)
def test_wrong_input_is_a_value_error_of_one_line(wrong, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        wrong()
    assert "\n" not in str(error.value)


def linear(seed: int, classes: int = 3, readout: str = "direct") -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Flatten(), 4, classes, readout=readout)


def distilling(teacher: Classifier | None, classifier: Classifier | None = None, **settings) -> PDMModule:
    loss = CombinedLoss({"distill": Distillation()}, {"distill": 1.0})
    made = PDMModule(classifier or linear(0), loss, SGD, 100, log_every=1, teacher=teacher, **settings)
    made._trainer = SimpleNamespace(loggers=[], barebones=False, _fabric=None)
    made.log_dict = lambda *args, **kwargs: None
    made.configure_optimizers()
    return made


def images(pairs: bool = False) -> dict:
    torch.manual_seed(7)
    batch = {"x": torch.rand(8, 1, 2, 2), "y": torch.arange(8) % 3, "step": 0}
    return batch | ({"same": torch.ones(4, dtype=torch.bool)} if pairs else {})


@pytest.mark.parametrize("readout", ["direct", "reverse"])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("forward", ["concatenated", "separate"])
def test_a_step_learns_the_readout_of_the_teacher_on_the_very_batch(
    readout: str, pairs: bool, forward: str
) -> None:
    teacher, batch = linear(1, readout=readout), images(pairs)
    lit = distilling(teacher, forward=forward)
    answers = teacher(batch["x"]).softmax(dim=1)
    expected = (2 if pairs else 1) * F.cross_entropy(lit.classifier(batch["x"]), answers).item()
    assert lit.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-6)
    lit.validation_step(batch, 0)
    lit.on_validation_epoch_end()
    assert lit.history[-1]["val/distill"] == pytest.approx(expected, rel=1e-6)


def test_the_teacher_answers_in_eval_mode_and_stays_as_it_is() -> None:
    torch.manual_seed(1)
    teacher = Classifier(nn.Sequential(ResNet(8, 1, widths=(2, 2, 4)), nn.Dropout(0.5)), 4, 3).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    lit = distilling(teacher)
    lit.train()
    x = torch.rand(8, 1, 8, 8)
    lit.classifier = Classifier(nn.Flatten(), 64, 3)
    loss = lit.training_step({"x": x, "y": torch.arange(8) % 3, "step": 0}, 0)
    loss.backward()
    assert teacher.training
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    answers = teacher.eval()(x).softmax(dim=1)
    assert loss.item() == pytest.approx(F.cross_entropy(lit.classifier(x), answers).item(), rel=1e-6)


def test_the_teacher_is_no_part_of_the_module() -> None:
    with_teacher, without = distilling(linear(1)), distilling(None)
    assert with_teacher.state_dict().keys() == without.state_dict().keys()
    assert len(list(with_teacher.parameters())) == len(list(without.parameters()))
    optimizer = with_teacher.configure_optimizers()
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in with_teacher.classifier.parameters()}


def test_distilling_without_a_teacher_or_from_one_of_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="there is none"):
        distilling(None).training_step(images(), 0)
    with pytest.raises(ValueError, match="knows 5 classes, the classifier 3"):
        distilling(linear(1, classes=5))
