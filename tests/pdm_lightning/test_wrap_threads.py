"""One wrapped network in several threads at a time, as behind a web server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from detection.features import tapped
from pdm_lightning.models import Classifier

THREADS = 4


class Slow(nn.Module):
    """Lets the other threads run in the middle of a pass; its temperature makes two passes tell where the head is."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh()), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        time.sleep(0.003)
        out = self.head(z)
        time.sleep(0.003)
        return out / 2


def at_once(work, count=40):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(count)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Slow().eval()


def batch(row: int) -> Tensor:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(row))


@pytest.mark.parametrize("embedding", [None, "body"])
def test_passes_of_other_threads_are_neither_seen_nor_changed(net, embedding):
    """Half of them go through the network itself, half through the classifier, whose first passes find the head."""
    model = Classifier.wrap(net, embedding)

    def work(row: int) -> bool:
        x = batch(row)
        with torch.no_grad():
            z, logits = (net.body(x), net(x)) if row % 2 else model.embed_and_logits(x)
            return torch.equal(z, net.body(x)) and torch.equal(logits, net.head(z) / 2)

    assert all(at_once(work))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_a_head_that_several_threads_look_for_leaves_the_network_s_mode(net):
    net.train()
    models = [Classifier.wrap(net) for _ in range(THREADS)]
    at_once(lambda row: models[row].locate(batch(row)), THREADS)
    assert [model.found for model in models] == ["head"] * THREADS
    assert all(part.training for part in net.modules())


def test_layers_are_tapped_by_the_thread_that_asks(net):
    def work(row: int) -> bool:
        x = batch(row)
        with torch.no_grad(), tapped(net, ["body"]) as caught:
            net(x)
        return torch.equal(caught["body"], net.body(x))

    with torch.no_grad():
        assert all(at_once(work))


def test_one_guard_scores_in_threads(net):
    from pdm_lightning.guard import Guard

    torch.manual_seed(2)
    guard, images = Guard.fit(net, torch.rand(260, 1, 8, 8), fpr=0.1, detector="msp"), torch.rand(40, 1, 8, 8)
    expected = guard.score(images).score
    found = at_once(lambda row: guard.score(images[row : row + 4], batch=2).score)
    assert all(torch.allclose(scores, expected[row : row + 4]) for row, scores in enumerate(found))
