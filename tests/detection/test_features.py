from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detection import Features, View


class CountingModel:
    def __init__(self) -> None:
        self.calls = 0

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        z = x.flatten(1)
        return z, 2 * z[:, :3]


def test_view_computes_once_and_only_when_asked() -> None:
    model, x = CountingModel(), torch.rand(4, 1, 2, 2)
    view = View.from_model(model, x)
    assert view.x is x and model.calls == 0
    assert torch.equal(view.embeddings, x.flatten(1))
    assert torch.equal(view.logits, 2 * x.flatten(1)[:, :3])
    assert torch.equal(view.predicted, x.flatten(1)[:, :3].argmax(1))
    assert model.calls == 1


def test_view_keeps_the_gradient() -> None:
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    View.from_model(CountingModel(), x).layer("logits").sum().backward()
    assert torch.equal(x.grad.flatten(1), torch.tensor([[2.0, 2.0, 2.0, 0.0]] * 2))


def test_view_of_features_has_no_images() -> None:
    view = View.from_features(torch.zeros(2, 4), torch.tensor([[0.0, 1.0], [3.0, 1.0]]))
    assert view.predicted.tolist() == [1, 0]
    with pytest.raises(ValueError, match="no images"):
        _ = view.x


def test_features_predict_by_the_largest_readout_logit() -> None:
    features = Features(torch.zeros(2, 4), torch.tensor([[0.0, 1.0], [3.0, 1.0]]), torch.tensor([1, 1]))
    assert features.predicted.tolist() == [1, 0]
    assert features.num_classes == 2 and len(features) == 2
    assert features.layer("logits") is features.logits and features.layer("embedding") is features.embeddings


@pytest.mark.parametrize(
    ("embeddings", "logits", "labels", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(2, 2), torch.zeros(3).long(), "one N"),
        (torch.zeros(3), torch.zeros(3, 2), torch.zeros(3).long(), "one N"),
        (torch.zeros(3, 4), torch.zeros(3, 2), torch.zeros(2).long(), r"labels must be \(3,\)"),
        (torch.zeros(3, 4), torch.zeros(3, 2), torch.tensor([0, 1, 2]), r"0\.\.1 .*found 0\.\.2"),
    ],
)
def test_features_refuse_what_does_not_fit(
    embeddings: Tensor, logits: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Features(embeddings, logits, labels)


def test_unknown_layer_is_named() -> None:
    with pytest.raises(ValueError, match="unknown layer 'pixels'"):
        View.from_features(torch.zeros(1, 2), torch.zeros(1, 2)).layer("pixels")
