"""Batch norms are folded where the graph allows it, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attacks import fold


def shaken(net: nn.Module) -> nn.Module:
    """In float64 and eval mode, its batch norms far from the identity."""
    torch.manual_seed(3)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            if module.affine:
                nn.init.uniform_(module.weight, -2.0, 2.0)
                nn.init.normal_(module.bias)
    return net.double().eval()


def norms(net: nn.Module) -> int:
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in net.modules())


class Functional(nn.Module):
    """Control flow that depends on the input, and names that say nothing of the order."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.norm, self.first = nn.Linear(4, 3), nn.BatchNorm2d(4), nn.Conv2d(1, 4, 3)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1 or x.dim() != 4:
            raise ValueError("one channel")
        return self.last(self.inner(self.norm(self.first(x)).relu()).mean(dim=(2, 3)))


class Straight(Functional):
    """The same without control flow: the whole graph can be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.norm(self.first(x)).relu()).mean(dim=(2, 3)))


class Twice(nn.Module):
    """What comes out of the convolution is used beside the norm: folding would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return (self.norm(out) + out).flatten(1)


class Shared(nn.Module):
    """One convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(self.conv(x)) + self.two(self.conv(x * 2))).flatten(1)


def one_twice() -> nn.Module:
    """One convolution in two places of untraceable surroundings."""
    net = Functional()
    net.first, net.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)  # type: ignore[assignment]
    shared = nn.Conv2d(4, 4, 1)
    net.inner = nn.Sequential(
        nn.Sequential(shared, nn.BatchNorm2d(4)), nn.Sequential(shared, nn.BatchNorm2d(4))
    )
    return net


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def affine_free() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3))


def weight_normed() -> nn.Module:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    return nn.Sequential(conv, nn.BatchNorm2d(2), nn.Flatten())


def hooked() -> nn.Module:
    conv = nn.Conv2d(1, 2, 3)
    conv.register_forward_hook(lambda module, inputs, output: output * 2)
    return nn.Sequential(conv, nn.BatchNorm2d(2), nn.Flatten())


def batch_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (Functional, 1),  # its own forward cannot be traced, the Sequential within can
        (Straight, 0),
        (Twice, 1),
        (Shared, 2),
        (one_twice, 3),
        (mlp, 1),
        (affine_free, 1),
        (weight_normed, 1),
        (hooked, 1),
        (batch_statistics, 1),
    ],
)
def test_same_output_whatever_is_folded(make: type[nn.Module], left: int) -> None:
    net = shaken(make())
    folded = fold(net)
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-10, atol=1e-10)
    assert norms(folded) == left
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_norm_without_weights_is_folded() -> None:
    net = shaken(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Flatten()))
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(fold(net)(x), net(x), rtol=1e-10, atol=1e-10)


def test_a_container_that_is_looked_at_keeps_its_output() -> None:
    """Its last layer is a convolution, the norm comes after it."""
    net = shaken(nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2), nn.Flatten()))
    assert norms(fold(net, keep={"0"})) == 1
    assert norms(fold(net)) == 0


def test_a_layer_that_is_looked_at_keeps_its_output() -> None:
    net = shaken(Straight())
    seen: list[Tensor] = []
    folded = fold(net, keep={"first"})
    for one in (net, folded):
        one.first.register_forward_hook(lambda module, inputs, output: seen.append(output))  # type: ignore
        one(torch.ones(2, 1, 8, 8, dtype=torch.float64))
    assert torch.equal(*seen)
    assert norms(folded) == 1


def test_the_original_stays_as_it_was() -> None:
    net = shaken(Straight())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fold(net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert norms(net) == 2


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval mode"):
        fold(mlp().train())
