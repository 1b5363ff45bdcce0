"""What cannot be wrapped: the one line that says why, and the mend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pdm_lightning.models import Classifier


def small(*after: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3), *after).eval()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Then(nn.Module):
    """A network, and what becomes of its output."""

    def __init__(self, net: nn.Module, then) -> None:
        super().__init__()
        self.net, self.then = net, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.net(x))


def rows(then, *, first: bool = False) -> nn.Module:
    """A network that gives logits for each row of an image, the batch or the rows first, of which `then` makes some."""
    torch.manual_seed(0)
    take = Then(nn.Identity(), lambda x: x[:, 0].transpose(0, 1) if first else x[:, 0])
    return Then(nn.Sequential(take, nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), then).eval()


def pixels(then) -> nn.Module:
    torch.manual_seed(0)
    return Then(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 1)), then).eval()


WEIGHTS = torch.linspace(0.5, 1.5, 8)[:, None]


@pytest.mark.parametrize(
    "net",
    [
        pixels(lambda out: out.amax(dim=(2, 3))),
        rows(lambda out: out[:, 0]),
        rows(lambda out: out[:, 1:].mean(dim=1)),
        rows(lambda out: (out * WEIGHTS).mean(dim=1)),
        rows(lambda out: out.amax(dim=1).softmax(dim=1)),
        rows(lambda out: out.softmax(dim=2).mean(dim=1)),
        rows(lambda out: out.mean(dim=0), first=True),
    ],
    ids=["max", "first", "all but the first", "weighted", "softmax of max", "mean of softmax", "rows first"],
)
def test_positions_that_are_not_averaged_are_refused(net):
    with pytest.raises(
        ValueError, match=r"^layer 'net\.\d' looks at several positions, .*embedding='NAME'[^\n]*$"
    ):
        Classifier.wrap(net)(images())


@pytest.mark.parametrize(
    "net",
    [
        pixels(lambda out: out.mean(dim=(2, 3))),
        pixels(lambda out: out.relu().mean(dim=(2, 3))),
        rows(lambda out: out.sum(dim=1)),
        rows(lambda out: out.mean(dim=1).softmax(dim=1)),
    ],
    ids=["mean", "mean of ReLU", "sum", "softmax of mean"],
)
def test_positions_that_count_alike_are_averaged(net):
    model = Classifier.wrap(net)
    z, _ = model.embed_and_logits(images())
    caught = []
    net.get_submodule(model.found).register_forward_pre_hook(lambda _layer, args: caught.append(args[0]))
    net(images())
    assert z.shape == (4, 6)
    torch.testing.assert_close(
        z, caught[0].mean(dim=1) if caught[0].dim() == 3 else caught[0].mean(dim=(2, 3))
    )


def norm() -> nn.Module:
    layer = nn.BatchNorm1d(3)
    layer.running_mean.copy_(torch.arange(3.0))
    return layer


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (small(norm()), "what follows layer '3' treats classes differently"),
        (Then(small(), lambda out: out.detach() / 2), "no gradient of the logits comes through"),
        (Then(small(), lambda out: out + torch.rand_like(out)), "gives other logits for the same images"),
    ],
    ids=["batch norm", "no gradient", "noise"],
)
def test_the_reason_why_no_head_is_found_is_told(net, told):
    with pytest.raises(ValueError, match=rf"^[^\n]*{told}[^\n]*name the layer[^\n]*$"):
        Classifier.wrap(net)(images())


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)


def whole() -> nn.Module:
    net = small()
    net[1].weight = nn.Parameter(torch.ones(8, 64, dtype=torch.int8), requires_grad=False)
    return net


def traced() -> nn.Module:
    return nn.Sequential(torch.jit.trace(small(), images()))


@pytest.mark.parametrize("more", [{}, {"num_classes": 3}, {"num_classes": 3, "embedding": "2"}])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: torch.jit.script(small()), "is TorchScript"),
        (traced, "is TorchScript"),
        (quantised, "is quantised"),
        (whole, "is quantised"),
    ],
    ids=["script", "trace", "quantised", "int8"],
)
@pytest.mark.filterwarnings("ignore")  # of ways that PyTorch leaves
def test_torchscript_and_quantised_networks_are_told_at_once(make, told, more):
    with pytest.raises(
        ValueError, match=rf"^the network {told}, [^\n]*: wrap the network that it was made of$"
    ):
        Classifier.wrap(make(), **more)


def test_a_function_is_no_network():
    with pytest.raises(ValueError, match=r"a function is no network: wrap an nn\.Module"):
        Classifier.wrap(lambda x: x)


def test_weights_that_are_not_finite_are_named():
    net = small()
    with torch.no_grad():
        net[1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^the network's logits are not finite: weights '1.weight' are not"):
        Classifier.wrap(net)(images())
    with pytest.raises(ValueError, match="look at mean, std and the images"):
        Classifier.wrap(small())(images() * torch.inf)


@pytest.mark.parametrize(
    ("pixels_", "told"),
    [
        ({"mean": "0.5"}, "mean '0.5', std 1.0: give numbers"),
        ({"std": None}, "std None: give numbers"),
        ({"mean": [0.1, torch.nan]}, "mean .* is not finite"),
        ({"std": torch.inf}, "std inf is not positive and finite"),
        ({"std": torch.nan}, "std nan is not positive and finite"),
        ({"std": [1.0, 0.0]}, "is not positive"),
    ],
)
def test_wrong_mean_and_std_are_named_at_once(pixels_, told):
    with pytest.raises(ValueError, match=told):
        Classifier.wrap(small(), **pixels_)
