"""k-th neighbours against scikit-learn and pytorch-ood; deep k-nearest neighbours by hand."""

from __future__ import annotations

import pytest
import torch
from pytorch_ood.detector import KNN as Reference
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from detection import KNN, DkNN, Features, View
from detection import neighbours as module
from detection.neighbours import distances, draw, nearest

torch.set_num_threads(1)


def make(n: int = 90, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    points = torch.randn(n, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    return Features(
        points, torch.nn.functional.one_hot(labels, 3).float(), labels, {"body": points[:, :2] + 1}
    )


@pytest.mark.parametrize("k", [1, 7, 90])
def test_equals_scikit_learn(k: int) -> None:
    train, test = make(), make(seed=1)
    found = NearestNeighbors(n_neighbors=k).fit(train.embeddings.double().numpy())
    expected = found.kneighbors(test.embeddings.double().numpy())[0][:, -1]
    scores = KNN(k, normalize=False).fit(train, test).score(test.view())
    torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("normalize", [True, False])
def test_equals_pytorch_ood(normalize: bool) -> None:
    train, test = make(), make(seed=1)
    reference = Reference(None, k=5, normalize=normalize).fit_features(
        train.embeddings.double(), train.labels
    )
    scores = KNN(5, normalize=normalize).fit(train, test).score(test.view())
    torch.testing.assert_close(scores, reference.predict_features(test.embeddings.double()))


def test_normalized_features_have_no_length() -> None:
    train, test = make(), make(seed=1)
    detector = KNN(5).fit(train, test)
    longer = View.from_features(9 * test.embeddings, test.logits)
    torch.testing.assert_close(detector.score(longer), detector.score(test.view()), rtol=1e-6, atol=1e-6)
    zero = View.from_features(torch.zeros(1, 5), torch.zeros(1, 3))
    assert detector.score(zero).item() == pytest.approx(1)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = make(), make(seed=1)
    points, reference = test.embeddings.double(), train.embeddings.double()
    whole = nearest(points, reference, 6), distances(points, reference, nearest(points, reference, 6))
    monkeypatch.setattr(module, "BLOCK", 200)
    assert torch.equal(nearest(points, reference, 6), whole[0])
    torch.testing.assert_close(distances(points, reference, whole[0]), whole[1], rtol=0, atol=0)


def test_far_from_the_origin() -> None:
    points, reference = make(seed=1).embeddings.double() + 1e6, make().embeddings.double() + 1e6
    expected = (
        torch.cdist(points, reference, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values[:, :4]
    )
    torch.testing.assert_close(distances(points, reference, nearest(points, reference, 4)), expected)


def test_draw_is_seeded_and_by_class() -> None:
    groups = [torch.arange(0, 40), torch.arange(40, 43)]
    first, other = draw(groups, 5, 1), draw(groups, 5, 2)
    assert torch.equal(first, draw(groups, 5, 1)) and not torch.equal(first, other)
    assert len(set(first.tolist())) == 8 and (first[:5] < 40).all() and first[5:].tolist() == [40, 41, 42]


# on a line: class 0 at 0, 1, 2 and class 1 at 10, 11, 12
LINE = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def on_line(points: Tensor, predicted: Tensor, labels: Tensor | None = None) -> Features:
    logits = torch.nn.functional.one_hot(predicted, 2).float()
    return Features(points, logits, predicted if labels is None else labels, {"turned": 20 - points})


def test_dknn_by_hand() -> None:
    train = on_line(LINE, LABELS)
    # three neighbours; 5.5 has 2 at 3.5 and 10 at 4.5, then 1: two of class 0 and one of class 1
    validation = on_line(torch.tensor([[0.5], [11.5], [5.5], [5.5]]), torch.tensor([0, 1, 0, 1]))
    detector = DkNN(["embedding"], k=3, normalize=False).fit(train, validation)
    assert detector.state_dict()["DkNN.calibration"].tolist() == [0, 0, 1, 2]
    points = torch.tensor([[0.5], [5.5], [5.5], [0.5]])
    scores = detector.score(on_line(points, torch.tensor([0, 0, 1, 1])).view())
    # disagreement 0, 1, 2, 3; of four calibration counts 0, 2, 3, 4 are smaller
    expected = [0 / 4 + 0 / 15, 2 / 4 + 1 / 15, 3 / 4 + 2 / 15, 4 / 4 + 3 / 15]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))


def test_dknn_adds_layers_up() -> None:
    train = on_line(LINE, LABELS)
    validation = on_line(torch.tensor([[5.5], [0.5]]), torch.tensor([1, 0]))
    detector = DkNN(["embedding", "turned"], k=3, normalize=False).fit(train, validation)
    assert detector.state_dict()["DkNN.calibration"].tolist() == [0, 4]
    assert detector.reads == ("embedding", "turned", "logits")


def test_dknn_calibrates_on_true_labels_and_scores_predictions() -> None:
    train = on_line(LINE, LABELS)
    validation = on_line(torch.tensor([[0.5]]), torch.tensor([1]), labels=torch.tensor([0]))
    detector = DkNN(["embedding"], k=3, normalize=False).fit(train, validation)
    assert detector.state_dict()["DkNN.calibration"].tolist() == [0]
    assert detector.score(validation.view()).item() == pytest.approx(1 + 1 / 2)
    assert detector.score_as(validation.view(), torch.tensor([0])).item() == 0


def test_dknn_equals_scikit_learn() -> None:
    train, test = make(), make(seed=1)
    detector = DkNN(["embedding", "body"], k=9, normalize=False).fit(train, make(seed=2))
    counts = torch.zeros(90)
    for layer in ("embedding", "body"):
        found = NearestNeighbors(n_neighbors=9).fit(train.layer(layer).double().numpy())
        places = torch.from_numpy(found.kneighbors(test.layer(layer).double().numpy())[1])
        counts += (train.labels[places] != test.predicted[:, None]).sum(dim=1)
    calibration = detector.state_dict()["DkNN.calibration"]
    p = (calibration >= counts[:, None]).double().mean(dim=1)
    expected = 1 - p + counts.double() / 18 / 91
    torch.testing.assert_close(detector.score(test.view()), expected)


def test_too_few_training_images() -> None:
    train = make()
    with pytest.raises(ValueError, match=r"k=91 neighbours of 90 training images: lower detector\.k"):
        KNN(k=91).fit(train, train)
    with pytest.raises(ValueError, match="k=91 neighbours of 90"):
        DkNN(["embedding"], k=91).fit(train, train)
    with pytest.raises(ValueError, match="no validation image"):
        DkNN(["embedding"], k=3).fit(
            train, Features(torch.zeros(0, 5), torch.zeros(0, 3), torch.zeros(0).long())
        )


def test_state_of_other_normalisation_is_refused() -> None:
    train = make()
    with pytest.raises(ValueError, match="no state of KNN with these options"):
        KNN(5, normalize=False).load_state_dict(KNN(5).fit(train, train).state_dict())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 2.5}, {"k": True}, {"layer": ""}])
def test_hyper_parameters_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KNN(**wrong)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"layers": []}, {"layers": [""]}])
def test_hyper_parameters_of_dknn_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DkNN(**wrong)
