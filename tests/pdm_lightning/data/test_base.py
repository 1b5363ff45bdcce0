from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdm_lightning.data.base import ImageData, balanced_order, stratified_split, to_unit


def split_of(
    n: int, classes: int = 2, shape: tuple[int, ...] = (1, 4, 5)
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(n, *shape, dtype=torch.uint8), torch.arange(n) % classes


def test_properties() -> None:
    data = ImageData("toy", split_of(6), split_of(2), split_of(4), ["a", "b"])
    assert data.num_classes == 2
    assert data.shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("test", "error", "message"),
    [
        ((torch.zeros(3, 1, 4, 5), torch.zeros(3).long()), TypeError, "uint8 images"),
        ((torch.zeros(3, 1, 4, 5, dtype=torch.uint8), torch.zeros(3)), TypeError, "int64 labels"),
        ((torch.zeros(3, 4, 5, dtype=torch.uint8), torch.zeros(3).long()), ValueError, r"\(N, C, H, W\)"),
        ((torch.zeros(3, 1, 5, 4, dtype=torch.uint8), torch.zeros(3).long()), ValueError, "as in train"),
        ((torch.zeros(3, 1, 4, 5, dtype=torch.uint8), torch.zeros(2).long()), ValueError, r"labels \(N,\)"),
        ((torch.zeros(0, 1, 4, 5, dtype=torch.uint8), torch.zeros(0).long()), ValueError, "is empty"),
        (
            (torch.zeros(1, 1, 4, 5, dtype=torch.uint8), torch.tensor([2])),
            ValueError,
            r"reach 2..2, 0..1 allowed",
        ),
        ((torch.zeros(1, 1, 4, 5, dtype=torch.uint8), torch.tensor([-1])), ValueError, "reach -1"),
    ],
)
def test_wrong_split_is_named(test: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"'toy', split test.*{message}"):
        ImageData("toy", split_of(6), split_of(2), test, ["a", "b"])


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        ImageData("toy", split_of(6, 1), split_of(2, 1), split_of(4, 1), ["a"])


def test_test_order_nests_and_is_balanced() -> None:
    data = ImageData("toy", split_of(6), split_of(2), split_of(400, 4), list("abcd"))
    order = data.test_order()
    assert order.sort().values.tolist() == list(range(400))
    assert torch.equal(data.test_order(100), order[:100])
    assert torch.equal(data.test_order(1000), order)
    assert len(data.test_order(0)) == 0
    for n in (20, 100, 300):
        counts = torch.bincount(data.test[1][order[:n]], minlength=4)
        assert (counts - n / 4).abs().max() <= 2
    with pytest.raises(ValueError, match="0 or more"):
        data.test_order(-1)


def test_balanced_order_is_random_within_a_class() -> None:
    labels = torch.arange(2000) % 2
    order = balanced_order(labels, 3)
    evens = order[labels[order] == 0]
    # a random order has as many ascents as descents: 999 neighbours, standard deviation about 9
    assert 440 < int((evens.diff() > 0).sum()) < 560
    assert torch.equal(order, balanced_order(labels, 3))
    assert not torch.equal(order, balanced_order(labels, 4))


def test_to_unit() -> None:
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    assert torch.equal(to_unit(images), torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert images.flatten().tolist() == [0, 51, 255]
    shown = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    assert to_unit(shown) is shown


def test_split_by_hand() -> None:
    # shares of 5 among 7, 2 and 1 images: 3.5, 1.0 and 0.5; the last may give nothing, so the first gives 4
    labels = torch.tensor([4] * 7 + [5] * 2 + [9])
    kept, cut = stratified_split(labels, 5, seed=0)
    assert torch.bincount(labels[cut], minlength=10)[[4, 5, 9]].tolist() == [4, 1, 0]
    assert len(kept) == 5


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.data())
def test_split_keeps_its_promises(values: list[int], data: st.DataObject) -> None:
    labels = torch.tensor(values)
    classes = len(set(values))
    if len(values) == classes:
        return
    size = data.draw(st.integers(1, len(values) - classes))
    kept, cut = stratified_split(labels, size, seed=7)
    assert len(cut) == size
    assert sorted(kept.tolist() + cut.tolist()) == list(range(len(values)))
    assert set(labels[kept].tolist()) == set(values)
    assert torch.equal(kept, kept.sort().values)


def test_split_is_stratified_and_seeded() -> None:
    labels = torch.tensor([0] * 300 + [1] * 100)
    _, cut = stratified_split(labels, 0.1, seed=1)
    assert torch.bincount(labels[cut]).tolist() == [30, 10]
    assert torch.equal(cut, stratified_split(labels, 40, seed=1)[1])
    assert not torch.equal(cut, stratified_split(labels, 40, seed=2)[1])


@pytest.mark.parametrize("size", [0, -1, 9, 10, 0.95])
def test_split_that_leaves_nothing(size: float) -> None:
    with pytest.raises(ValueError, match=r"data\.val_size from 1 to 8"):
        stratified_split(torch.arange(10) % 2, size, seed=0)
