"""Stage ``selftest``: does an attack find what is known to be there?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attacks import Attack, Look
from attacks.reference import Hidden, Linear, reachable
from pdm_lightning.data import to_unit
from pdm_lightning.devices import strict_float32
from pdm_lightning.models import Classifier
from pdm_lightning.seeding import derive
from pdm_lightning.stages import hands
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

DIGITS = (3, 8)
"""The two digits that the reference tells apart."""
INNER, SEARCHED = 200, 200
"""Points that the hidden class leaves out; points that a random search tries."""
GRADIENTS = 4000
"""Gradients that looking for hidden images may take, so that there are fewer images for a slow attack."""


@dataclass(frozen=True)
class Unflagged:
    """Any classifier, in the form of a watched one whose detector never raises an alarm."""

    module: nn.Module
    references: Tensor
    reference_labels: Tensor
    threshold: float = 1.0
    scale: float = 1.0

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, K)."""
        logits: Tensor = self.module(x)
        return logits

    def look(self, x: Tensor, classes: Tensor | None = None) -> Look:
        """Logits, scores of zero, and the pixels for an embedding."""
        logits = self.logits(x)
        return Look(logits, 0 * logits.double().sum(dim=1), x.flatten(1))

    def limits(self, quantile: float) -> Tensor:
        """(2,) ones: above every score."""
        return torch.ones(2, dtype=torch.float64, device=self.references.device)


def build(node: Node, folder: Path, context: Context) -> None:
    """Set the attack of a crafting on a linear classifier, and on classifiers that hide an adversarial image.

    ``selftest.json``: ``known`` with the ``rate`` of successes on ``n`` images of the linear classifier and the
    ``expected`` one, of the strongest attack there can be; for an attack in a ball ``hidden`` with ``found`` of ``n``
    images, ``random``, those that a random search found, and ``skipped``, images for which none could be hidden.
    """
    device = torch.device("cpu")
    model = node.parents["train"]
    attack, seed = hands.attack_of(node, context), derive(node.spec["seed"], "selftest")
    with strict_float32():
        found = {"known": known_rate(attack, node.spec["images"], seed)}
        if getattr(attack, "eps", None):
            data = context.data(model)
            order = data.test_order(256)
            x, y = to_unit(data.test[0][order]).to(device), data.test[1][order]
            classifier = context.classifier(model, device)
            with torch.no_grad():
                x = x[classifier(x).argmax(dim=1) == y]
            passes = attack.max_passes(2) or GRADIENTS
            most = max(4, min(16, GRADIENTS // max(passes, 1)))
            found["hidden"] = find_hidden(attack, classifier, x[:most], seed)
    write_json(folder / "selftest.json", found)


def reference() -> tuple[Linear, Tensor, Tensor]:
    """The linear classifier, by least squares on scikit-learn's threes and eights, with their images and labels.

    Its logits are scaled to a median margin of 4: cross-entropy does not saturate.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = (bunch.target == DIGITS[0]) | (bunch.target == DIGITS[1])
    x = torch.from_numpy(bunch.images[chosen] / 16)
    y = torch.from_numpy(bunch.target[chosen] == DIGITS[1]).long()
    table = torch.cat([x.flatten(1), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    ridge = table.T @ table + torch.eye(table.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(ridge, table.T @ (2 * y.to(x) - 1))
    margins = (table @ weight) * (2 * y.to(x) - 1)
    weight = (weight * 4 / margins.median()).float()
    return Linear(weight[:-1].clone(), float(weight[-1])).eval(), x[:, None].float(), y


def known_rate(attack: Attack, images: int, seed: int) -> dict[str, Any]:
    """Success of an attack on the linear classifier, beside what the strongest attack could do."""
    model, x, y = reference()
    with torch.no_grad():
        right = model(x).argmax(dim=1) == y
    x, y = x[right][:images], y[right][:images]
    with torch.no_grad():
        margin = (model(x)[:, 1] - model(x)[:, 0]) * (2 * y - 1)
    eps = getattr(attack, "eps", None)
    norm = str(getattr(attack, "norm", "linf"))
    fall = reachable(model, x, y, norm, float("inf") if eps is None else float(eps))
    wanted = margin.double() + float(getattr(attack, "confidence", 0.0))
    result = attack(_given(attack, model, x, y), x, y, seed=seed)
    expected = float((fall > wanted).double().mean())
    return {"rate": float(result.success.double().mean()), "expected": expected, "n": len(x)}


def _given(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Any:
    return Unflagged(model, x.flatten(1), y) if "detector" in attack.needs else model


def find_hidden(attack: Attack, classifier: Classifier, x: Tensor, seed: int) -> dict[str, int]:
    """Hide one adversarial image near each image, and let the attack look for it (Zimmermann et al. 2022).

    A linear classifier on the embedding separates one random point at the attack's radius from `INNER` others, at that
    radius and at half of it: so an adversarial image is there, and a sound attack on a sound network finds one, though
    few random points do.
    """
    counts = {"found": 0, "n": 0, "random": 0, "skipped": 0}
    norm, eps = str(getattr(attack, "norm", "linf")), float(attack.eps)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(seed % 2**31)
    for row in range(len(x)):
        image = x[row : row + 1]
        hidden = _hide(classifier, image, norm, eps, generator)
        if hidden is None:
            counts["skipped"] += 1
            continue
        label = torch.zeros(1, dtype=torch.int64)
        goal = torch.ones(1, dtype=torch.int64)
        given = _given(attack, hidden, torch.cat([image.flatten(1)] * 2), torch.cat([label, goal]))
        result = attack(given, image, label, index=torch.tensor([row]), seed=seed)
        tried = _around(image, norm, eps, SEARCHED, generator)
        with torch.no_grad():
            counts["random"] += int((hidden(tried).argmax(dim=1) == 1).any())
        counts["found"] += int(result.success.sum())
        counts["n"] += 1
    return counts


def _hide(
    classifier: Classifier, image: Tensor, norm: str, eps: float, generator: torch.Generator
) -> Hidden | None:
    near, far = (_around(image, norm, radius, INNER // 2, generator) for radius in (eps / 2, eps))
    inner = torch.cat([image, near, far])
    outer = _around(image, norm, eps, 1, generator)
    with torch.no_grad():
        z = classifier.embed_and_logits(torch.cat([inner, outer]))[0].double()
    centre, spread = z[:-1].mean(dim=0), z[:-1].std(dim=0).clamp(min=1e-6)
    from sklearn.svm import LinearSVC

    points = ((z - centre) / spread).clamp(-1e6, 1e6)
    truth = [0] * len(inner) + [1]
    fitted = LinearSVC(C=100.0, class_weight="balanced", max_iter=5000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether it converged is looked at in the gap
        fitted.fit(points.numpy(), truth)
    direction = torch.from_numpy(fitted.coef_[0]) / spread
    heights = z @ direction
    gap = float(heights[-1] - heights[:-1].max())
    if gap <= 1e-9:
        return None
    offset = float(heights[-1]) - gap / 2
    return Hidden(classifier, direction.float(), offset, 4 / gap).eval()


def _around(image: Tensor, norm: str, eps: float, count: int, generator: torch.Generator) -> Tensor:
    """(count, C, H, W) random points at a distance, as far as the box allows."""
    drawn = torch.randn(count, *image.shape[1:], generator=generator)
    if norm == "l2":
        step = eps * drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]
    else:
        step = eps * drawn.sign()
    return (image + step).clamp(0, 1)
