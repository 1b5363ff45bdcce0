"""Two stored results image by image: on toy stores, against values counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detection import auc
from detection.differences import mcnemar, paired_difference
from pdm_lightning.stages.paired import NotPaired, Stored, difference
from pdm_lightning.store import Store

DATA = {"_target_": "digits", "size": 8, "fingerprint": "f"}
LIMITS = {"0.05": 0.5, "0.01": None}


class Toy:
    """A store of one trained model with its detector; ``seed`` tells models apart."""

    def __init__(self, root: Path, seed: int, data: Mapping[str, Any] = DATA, right: str = "") -> None:
        self.store, self.seed = Store(root), seed
        self.train = self.put("train", {"seed": seed, "data": dict(data)}, {}, lambda folder: None)
        self.features = self.put("features", {}, {"train": self.train}, lambda f: self._features(f, right))
        clean = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]) + seed
        self.detector = self.put(
            "detector",
            {},
            {"features": self.features},
            lambda folder: save_file({"test": clean}, folder / "scores.safetensors"),
        )

    def put(
        self, kind: str, spec: dict[str, Any], parents: dict[str, str], write: Callable[[Path], Any]
    ) -> str:
        def build(folder: Path) -> None:
            write(folder)
            (folder / "x.txt").write_text("x")

        return self.store.get(kind, spec, parents, build).key

    def _features(self, folder: Path, right: str) -> None:
        """One image a character of two classes; ``1`` where it is classified correctly."""
        labels = torch.arange(len(right)) % 2
        hit = torch.tensor([char == "1" for char in right], dtype=torch.bool)
        logits = torch.nn.functional.one_hot(torch.where(hit, labels, 1 - labels), 2).float()
        tensors = {"embeddings": logits.clone(), "logits": logits, "labels": labels}
        sets = ("train", "validation", "test")
        save_file(
            {f"{s}.{k}": v.clone() for s in sets for k, v in tensors.items()}, folder / "features.safetensors"
        )

    def clean(self, value: float) -> Stored:
        told = {"accuracy": {"value": value}, "dbi": 0.5}
        key = self.put(
            "clean",
            {},
            {"features": self.features},
            lambda f: (f / "clean.json").write_text(json.dumps(told)),
        )
        return Stored.find([self.store], key, "accuracy", value)

    def score(self, tensors: dict[str, Tensor], *, candidates: int = 10, n: int = 1, name: str = "a") -> str:
        def write(folder: Path) -> None:
            save_file(
                {key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "scores.safetensors"
            )
            told = {"thresholds": LIMITS, "candidates": candidates, "auc": {"value": 0.5}}
            (folder / "score.json").write_text(json.dumps(told))

        spec = {"bootstrap": 20, "min_n": n, "name": name}
        return self.put("score", spec, {"detector": self.detector}, write)

    def scored(self, tensors: dict[str, Tensor], **more: Any) -> Stored:
        return Stored(self.store, self.store.open("score", self.score(tensors, **more)))


def run(index: list[int], clean: list[float], adversarial: list[float], fooled: str) -> dict[str, Tensor]:
    return {
        "index": torch.tensor(index),
        "clean": torch.tensor(clean),
        "adversarial": torch.tensor(adversarial),
        "fooled": torch.tensor([char == "1" for char in fooled]),
    }


#: Images 0 to 5 and 9; those of B in another order, without 5 and 9, and with 7.
A = run(
    [0, 1, 2, 3, 4, 5, 9], [0.1, 0.6, 0.2, 0.1, 0.3, 0.1, 0.2], [0.9, 0.4, 0.3, 0.7, 0.2, 0.1, 0.1], "1111011"
)
B = run([7, 4, 3, 2, 1, 0], [0.1, 0.1, 0.2, 0.3, 0.2, 0.1], [0.2, 0.9, 0.4, 0.8, 0.3, 0.2], "110111")


@pytest.fixture
def toys(tmp_path: Path) -> tuple[Toy, Toy]:
    """Two models in two stores."""
    return Toy(tmp_path / "a", 0, right="110110"), Toy(tmp_path / "b", 1, right="101110")


# Images in both: 0 1 2 3 4. A fooled: 1 1 1 1 0; flagged (above .5): 1 0 0 1 0; joint: 0 1 1 0 0.
# B fooled: 1 1 1 0 1; flagged: 0 0 1 0 1; joint: 1 1 0 0 0. Fooled in both: 0 1 2.
@pytest.mark.parametrize(
    ("metric", "only_a", "only_b", "n"),
    [
        ("joint_success@0.05", 1, 1, 5),
        ("misclassified_rate", 1, 1, 5),
        ("detected@0.05", 1, 1, 3),
        # 10 images tried, unfooled by A: 4; by B: 3. Joint successes or flagged when clean of A (.6 of image 1):
        # 1 2 5 9; kept: 0 3 4. Of B: 7 1 0; kept: 4 3 2
        ("robust_accuracy", 1, 1, 10),
        ("robust_accuracy@0.05", 1, 1, 10),
        # clean test images above .5: A has .6 and .8; B, which adds 1, all five
        ("false_alarms@0.05", 0, 3, 5),
    ],
)
def test_rates_by_hand(toys: tuple[Toy, Toy], metric: str, only_a: int, only_b: int, n: int) -> None:
    found = difference(metric, toys[0].scored(A), toys[1].scored(B))
    assert found.n == n and found.value == pytest.approx((only_a - only_b) / n)
    # the interval of Bonett and Price, and McNemar's p of b and c discordant images
    first, second = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = 1.959964 * ((first + second - (first - second) ** 2) / (n + 2)) ** 0.5
    assert found.low == pytest.approx(first - second - half, abs=1e-6)
    assert found.high == pytest.approx(first - second + half, abs=1e-6)
    assert found.p == {(1, 1): 1.0, (0, 3): 0.25}[only_a, only_b]


def test_auc_on_the_images_fooled_in_both(toys: tuple[Toy, Toy]) -> None:
    found = difference("auc", toys[0].scored(A), toys[1].scored(B))
    a = (torch.tensor([0.1, 0.6, 0.2]), torch.tensor([0.9, 0.4, 0.3]))
    b = (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.2, 0.3, 0.8]))
    assert found.value == pytest.approx(auc(*a) - auc(*b)) and found.n == 3
    assert found == paired_difference(*a, *b, resamples=200)
    # A: .9 beats all three, .4 and .3 two each; B: .2 beats one and ties with one, .3 two and one, .8 all three
    assert found.value == pytest.approx(7 / 9 - 7 / 9)


def test_auc_with_failures_kept(toys: tuple[Toy, Toy]) -> None:
    found = difference("auc_all", toys[0].scored(A), toys[1].scored(B))
    a = (torch.tensor([0.1, 0.6, 0.2, 0.1, 0.3]), torch.tensor([0.9, 0.4, 0.3, 0.7, 0.2]))
    b = (torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.8, 0.4, 0.9]))
    assert found.n == 5 and found.value == pytest.approx(auc(*a) - auc(*b))


def test_accuracy_is_paired_by_test_image(toys: tuple[Toy, Toy]) -> None:
    """110110 and 101110: A alone is right on one image, B alone on one."""
    found = difference("accuracy", toys[0].clean(4 / 6), toys[1].clean(4 / 6))
    hits = (torch.tensor([1, 1, 0, 1, 1, 0]).bool(), torch.tensor([1, 0, 1, 1, 1, 0]).bool())
    assert (found.value, found.n, found.p) == (0.0, 6, mcnemar(*hits))


def test_the_stricter_of_both_decides_what_is_too_few(toys: tuple[Toy, Toy]) -> None:
    strict = toys[1].scored(B, n=4)
    for metric in ("auc", "detected@0.05"):
        found = difference(metric, toys[0].scored(A), strict)
        assert (found.value, found.n) == (None, 3)
    assert difference("auc_all", toys[0].scored(A), strict).value is not None
    assert difference("joint_success@0.01", toys[0].scored(A), strict).value is None


def test_worst_cases(toys: tuple[Toy, Toy]) -> None:
    """Joint successes of images 0 to 3 and 1 to 4, in common 1 2 3: A hits 1 and 2, B hits 3."""
    found = []
    for toy, index, hits in ((toys[0], [0, 1, 2, 3], "1110"), (toys[1], [4, 3, 2, 1], "1100")):
        tensors = {"index": torch.tensor(index), "hits@0.05": torch.tensor([char == "1" for char in hits])}
        parents = {"a0": toy.score(A)}
        key = toy.put("worst", {}, parents, lambda f, t=tensors: save_file(t, f / "worst.safetensors"))  # type: ignore[misc]
        found.append(Stored(toy.store, toy.store.open("worst", key)))
    told = difference("joint_success@0.05", *found)
    assert told.n == 3 and told.value == pytest.approx(2 / 3 - 1 / 3)
    with pytest.raises(NotPaired, match="no threshold"):
        difference("joint_success@0.01", *found)


def test_other_data_are_not_paired(tmp_path: Path) -> None:
    a = Toy(tmp_path / "a", 0, right="11")
    b = Toy(tmp_path / "b", 1, DATA | {"fingerprint": "another"}, right="11")
    with pytest.raises(NotPaired, match="data sets are not the same"):
        difference("auc", a.scored(A), b.scored(A))
    with pytest.raises(NotPaired, match="data sets are not the same"):
        difference("accuracy", a.clean(1.0), b.clean(1.0))


def test_other_images_tried_are_not_paired_where_they_count(toys: tuple[Toy, Toy]) -> None:
    a, b = toys[0].scored(A, candidates=10), toys[1].scored(B, candidates=20)
    with pytest.raises(NotPaired, match="not the same images were tried: 10 and 20"):
        difference("robust_accuracy", a, b)
    assert difference("joint_success@0.05", a, b).n == 5


def test_what_a_row_names_is_found_or_said_to_be_gone(toys: tuple[Toy, Toy]) -> None:
    key = toys[1].score(B)
    stores = [toys[0].store, toys[1].store]
    assert Stored.find(stores, key, "auc", 0.5).artifact.key == key
    for others, name, value, why in (
        (stores[:1], "auc", 0.5, "not in the store"),
        (stores, "auc", 0.6, "another result"),
        (stores, "dbi", 0.5, "nothing is kept image by image"),
        (stores, "distortion", 0.5, "nothing is kept image by image"),
    ):
        with pytest.raises(NotPaired, match=why):
            Stored.find(others, key, name, value)
    with pytest.raises(NotPaired, match="not in the store"):
        Stored.find(stores, "", "auc", 0.5)


def test_damage_and_lost_parents(toys: tuple[Toy, Toy]) -> None:
    import shutil

    first, second = toys[0].scored(A), toys[1].scored(B)
    shutil.rmtree(toys[0].store.path("features", toys[0].features))
    with pytest.raises(NotPaired, match="made of is gone"):
        difference("auc", first, second)
    path = second.artifact.file("scores.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NotPaired, match="damaged"):
        Stored.find([toys[1].store], second.artifact.key, "auc", 0.5)
