"""Loss terms against values worked out by hand, and their gradients."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from pdm_lightning.losses import (
    CombinedLoss,
    CrossEntropy,
    Outputs,
    ReduceVariance,
    ReverseCrossEntropy,
    Siamese,
    Term,
)
from pdm_lightning.stages.build import build_loss

CONF = Path(__file__).parents[2] / "conf" / "defense"


def single(z, o, y) -> Outputs:
    return Outputs(torch.tensor(z).double(), torch.tensor(o).double(), torch.tensor(y))


def test_cross_entropy_by_hand():
    out = single([[0.0], [0.0]], [[0.0, math.log(3)], [math.log(2), 0.0]], [1, 1])
    # probabilities of the true class: 3/4 and 1/3
    assert CrossEntropy()(out).item() == pytest.approx((math.log(4 / 3) + math.log(3)) / 2)


def test_reverse_cross_entropy_by_hand():
    out = single([[0.0]], [[math.log(1), math.log(2), math.log(5)]], [2])
    # wrong classes have probabilities 1/8 and 2/8; each weighs 1/(K-1)
    assert ReverseCrossEntropy()(out).item() == pytest.approx((math.log(8) + math.log(4)) / 2)


def test_reverse_cross_entropy_reaches_its_floor_where_the_true_logit_is_smallest():
    term = ReverseCrossEntropy()
    out = single([[0.0]], [[0.0, -60.0, 0.0, 0.0]], [1])
    assert term(out).item() == pytest.approx(term.floor(4), abs=1e-12)
    assert term.floor(10) == pytest.approx(2.1972, abs=1e-4)


def test_reverse_cross_entropy_keeps_its_digits_with_a_huge_true_logit():
    # "sum of all minus own" in float32 loses the wrong classes' share here
    out = Outputs(torch.zeros(1, 1), torch.tensor([[0.0, -3e8, 0.0]]), torch.tensor([1]))
    assert ReverseCrossEntropy()(out).item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("term", [CrossEntropy(), ReverseCrossEntropy()])
def test_classification_on_pairs_is_the_sum_of_the_branches(term):
    o, y, z = torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 3, 1, 0]), torch.zeros(6, 2).double()
    both = term(Outputs(z, o, y, torch.tensor([True, False, True])))
    parts = [term(Outputs(z[half], o[half], y[half])) for half in (slice(0, 3), slice(3, 6))]
    assert both.item() == pytest.approx(sum(part.item() for part in parts))


@pytest.mark.parametrize(("norm", "expected"), [("l1", (0.2 + 0.6) / 2), ("l2", (0.04 + 0.36) / 2)])
def test_siamese_by_hand(norm, expected):
    # pairs (1,0)-(4,3): cosine .8, same class; (0,2)-(4,3): cosine .6, different classes
    z = torch.tensor([[1.0, 0], [0, 2], [4, 3], [4, 3]]).double()
    out = Outputs(z, torch.zeros(4, 2).double(), torch.tensor([0, 1, 0, 0]), torch.tensor([True, False]))
    assert Siamese(norm)(out).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("squared", "reduction", "expected"),
    [(False, "mean", (5 + 0) / 2), (False, "sum", 5), (True, "mean", 25 / 2), (True, "sum", 25)],
)
def test_reduce_variance_by_hand(squared, reduction, expected):
    # class 0: (0,0), (6,8), mean (3,4), both 5 away; class 2 has one sample; class 1 is absent
    out = single([[0.0, 0], [6, 8], [1, 1]], [[0.0, 0, 0]] * 3, [0, 0, 2])
    assert ReduceVariance(squared, reduction)(out).item() == pytest.approx(expected)


def test_reduce_variance_normalized_is_blind_to_scale():
    # unit vectors (1,0), (0,1) around (.5,.5): squared distance .5 each
    small = single([[1.0, 0], [0, 1]], [[0.0, 0]] * 2, [0, 0])
    large = single([[7.0, 0], [0, 3]], [[0.0, 0]] * 2, [0, 0])
    assert ReduceVariance(normalize=True)(small).item() == pytest.approx(0.5)
    assert ReduceVariance(normalize=True)(large).item() == pytest.approx(0.5)


def test_reduce_variance_against_a_loop_over_classes():
    torch.manual_seed(0)
    z, y = torch.randn(40, 5).double(), torch.randint(0, 7, (40,))
    expected = torch.stack([(z[y == c] - z[y == c].mean(0)).norm(dim=1).mean() for c in y.unique()])
    out = Outputs(z, torch.zeros(40, 9).double(), y, torch.zeros(20, dtype=torch.bool))
    assert ReduceVariance(squared=False)(out).item() == pytest.approx(expected.mean().item())


TERMS = [
    CrossEntropy(),
    ReverseCrossEntropy(),
    Siamese(),
    Siamese("l2"),
    ReduceVariance(),
    ReduceVariance(squared=False, reduction="sum"),
    ReduceVariance(normalize=True),
]


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_gradients_agree_with_finite_differences(term):
    torch.manual_seed(0)
    z = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    o = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    # two classes of three and two of one sample
    y, same = torch.tensor([0, 0, 1, 1, 0, 2, 1, 3]), torch.tensor([True, False, True, False])
    assert torch.autograd.gradcheck(
        lambda z, o: term(Outputs(z, o, y, same)) + 0 * (z.sum() + o.sum()), (z, o)
    )


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_reduce_variance_of_lone_and_equal_samples_has_zero_and_finite_gradients(squared, normalize):
    z = torch.tensor([[1.0, 2], [3, 3], [3, 3], [0, 0]], requires_grad=True)
    term = ReduceVariance(squared, "sum", normalize)
    loss = term(Outputs(z, torch.zeros(4, 6), torch.tensor([0, 1, 1, 5])))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert torch.equal(z.grad[0], torch.zeros(2))


def test_siamese_of_a_zero_embedding_has_a_finite_gradient():
    z = torch.zeros(2, 3, requires_grad=True)
    Siamese()(Outputs(z, torch.zeros(2, 2), torch.tensor([0, 0]), torch.tensor([True]))).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_combined_weighs_the_total_and_not_the_values():
    out = Outputs(
        torch.randn(4, 2, requires_grad=True),
        torch.randn(4, 3),
        torch.tensor([0, 1, 2, 0]),
        torch.ones(2).bool(),
    )
    loss = CombinedLoss({"rce": ReverseCrossEntropy(), "rvl": ReduceVariance()}, {"rce": 2.0, "rvl": 0.25})
    total, values = loss(out)
    assert list(values) == loss.names == ["rce", "rvl"]
    assert total.item() == pytest.approx(2 * values["rce"].item() + 0.25 * values["rvl"].item())
    assert values["rvl"].item() == pytest.approx(ReduceVariance()(out).item())
    assert total.requires_grad
    assert not values["rvl"].requires_grad
    assert loss.needs_pairs
    assert loss.floors(10) == {"rce": pytest.approx(math.log(9))}


@pytest.mark.parametrize(
    "weights", [{}, {"ce": 1.0, "x": 1.0}, {"ce": -1.0}, {"ce": math.nan}, {"ce": math.inf}]
)
def test_combined_refuses_wrong_weights(weights):
    with pytest.raises(ValueError, match="weight"):
        CombinedLoss({"ce": CrossEntropy()}, weights)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Siamese("l3"),
        lambda: ReduceVariance(reduction="max"),
        lambda: CombinedLoss({}, {}),
        lambda: single([[0.0]], [[0.0], [0.0]], [0, 1]),
        lambda: Outputs(torch.zeros(3, 1), torch.zeros(3, 2), torch.zeros(3).long(), torch.ones(2).bool()),
        lambda: Siamese()(single([[0.0]], [[0.0, 1.0]], [0])),
        lambda: ReverseCrossEntropy()(single([[0.0]], [[0.0]], [0])),
    ],
)
def test_wrong_input_is_a_value_error_of_one_line(wrong):
    with pytest.raises(ValueError, match=":") as error:
        wrong()
    assert "\n" not in str(error.value)


def defense(name: str) -> dict:
    """Read a defence with its defaults, later values over earlier ones, as Hydra composes it."""

    def merge(old: dict, new: dict) -> dict:
        both = {k: merge(old[k], v) if isinstance(v, dict) and k in old else v for k, v in new.items()}
        return old | both

    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert own.pop("defaults") == ["_terms", "_self_"]
    return merge(yaml.safe_load((CONF / "_terms.yaml").read_text()), own)


ROWS = sorted(
    path.stem for path in CONF.glob("*.yaml") if not path.stem.startswith("_") and path.stem != "frozen"
)
PRINTED = ["pdm_printed", "pdm_algorithm1"]
#: Those of the paper's future work have settings of their own, and their own tests: test_future_work.py.
FUTURE = ["ce_input_gradient", "ce_jacobian", "large_margin", "pdm_jacobian", "pdm_layers", "rce_margin"]
PAPER = [name for name in ROWS if name not in FUTURE]


@pytest.mark.parametrize("name", PAPER)
def test_each_defence_builds_and_trains_what_it_reads_out(name):
    spec = defense(name)
    loss = build_loss(spec)
    assert spec["name"] == name
    assert loss.names == spec["use"]
    assert loss.needs_pairs == bool({"siamese", "rvl"} & set(spec["use"]))
    assert spec["readout"] == ("reverse" if "rce" in spec["use"] else "direct")
    # a step down the loss has to raise the readout logit of the true class
    o = torch.zeros(4, 3, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    loss(Outputs(torch.randn(4, 2), o, y, torch.tensor([True, False])))[0].backward()
    assert o.grad is not None
    step = -o.grad if spec["readout"] == "direct" else o.grad
    assert torch.equal(step.argmax(dim=1), y)


def test_rows_share_their_keys_and_weights():
    keys = {name: set(defense(name)) for name in ROWS}
    assert len(set(map(frozenset, keys.values()))) == 1
    plain = [defense(name)["term"] for name in PAPER if name not in PRINTED]
    assert all(term == plain[0] for term in plain)


def test_printed_defences_carry_the_printed_values():
    for name, reduction in (("pdm_printed", "mean"), ("pdm_algorithm1", "sum")):
        spec = defense(name)
        assert [spec["term"][term]["weight"] for term in spec["use"]] == [1.0, 1.0, 1.0]
        assert spec["term"]["rvl"]["squared"] is False
        assert spec["term"]["rvl"]["reduction"] == reduction
        assert spec["term"]["siamese"]["norm"] == "l1"
        assert spec["q"] == 0.5


def test_build_loss_names_what_is_wrong():
    spec = defense("pdm")
    with pytest.raises(ValueError, match=r"defense\.readout=reverse"):
        build_loss(spec | {"readout": "direct"})
    with pytest.raises(ValueError, match="'triplet'"):
        build_loss(spec | {"use": ["triplet"]})


def test_a_term_is_free_to_read_nothing_but_embeddings():
    class Length(Term):
        def forward(self, out: Outputs) -> torch.Tensor:
            return F.mse_loss(out.embeddings, torch.zeros_like(out.embeddings))

    total, values = CombinedLoss({"length": Length()}, {"length": 3.0})(single([[2.0]], [[0.0, 0.0]], [0]))
    assert (total.item(), values["length"].item()) == (12.0, 4.0)
