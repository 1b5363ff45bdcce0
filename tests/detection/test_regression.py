"""What a regression over layers learns from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detection import Features
from detection.regression import MIN_FOOLED, examples, regress


def features(predicted: Tensor, labels: Tensor, embeddings: Tensor | None = None) -> Features:
    """Features whose logits predict what is given."""
    logits = torch.nn.functional.one_hot(predicted, 3).float()
    return Features(torch.zeros(len(labels), 2) if embeddings is None else embeddings, logits, labels)


def test_negatives_are_classified_correctly_and_positives_are_not() -> None:
    labels = torch.arange(60) % 3
    wrong = torch.arange(60) % 4 == 0
    seen = features(torch.where(wrong, (labels + 1) % 3, labels), labels)
    right, fooled = examples(seen, seen, "LID")
    assert right.tolist() == (~wrong).nonzero().flatten().tolist()
    assert fooled.tolist() == wrong.nonzero().flatten().tolist()


def test_a_misclassified_training_image_teaches_nothing() -> None:
    """Training images that the model gets wrong look like adversarial ones: they are no clean examples."""
    labels = torch.zeros(80, dtype=torch.int64)
    wrong = torch.arange(80) < 40
    near = torch.where(wrong[:, None], 5.0, 0.0) + torch.linspace(0, 1, 80)[:, None].expand(-1, 2)
    attacked = features(torch.ones(80, dtype=torch.int64), labels, torch.full((80, 2), 5.0) + near % 1)

    def learn(rows: Tensor) -> dict[str, Tensor]:
        train = features(wrong.long()[rows], labels[rows], near[rows])
        return regress("LID", train, attacked, lambda f: {}, lambda f, _: f.embeddings.double())

    whole, right = learn(torch.arange(80)), learn((~wrong).nonzero().flatten())
    assert all(torch.equal(whole[name], right[name]) for name in ("weights", "bias"))


def test_too_few_of_either_are_an_error() -> None:
    labels = torch.zeros(MIN_FOOLED + 5, dtype=torch.int64)
    wrong = torch.arange(len(labels)) < MIN_FOOLED - 1
    seen, sure = features(wrong.long(), labels), features(labels, labels)
    with pytest.raises(ValueError, match=f"fools the classifier on {MIN_FOOLED - 1} of"):
        examples(sure, seen, "LID")
    with pytest.raises(ValueError, match="is right on 0 of"):
        examples(features(labels + 1, labels), features(labels + 1, labels), "LID")
