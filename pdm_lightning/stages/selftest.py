"""Stage ``selftest``: does an attack find what is known to be there?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attacks import Attack, AttackResult, NoAttack, frozen
from attacks.reference import Linear, Padded, Unflagged, around, hide, reachable
from pdm_lightning.data import to_unit
from pdm_lightning.devices import strict_float32
from pdm_lightning.seeding import derive
from pdm_lightning.stages import hands
from pdm_lightning.stages.context import Context, write_json

if TYPE_CHECKING:
    from pdm_lightning.study.plan import Node

DIGITS = (3, 8)
"""The two digits that the reference tells apart."""
MARGIN = 4.0
"""Median margin of the reference: cross-entropy does not saturate."""
PULLS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)
"""How far the reference's images may be moved to its boundary, for a small ball."""
SURE = 0.8
"""Share of what the strongest attack can do that is asked for."""
SEARCHED = 200
"""Points at the radius that a random search tries."""
LOOKED_AT = 256
"""Test images among which those to hide something near are looked for."""
GRADIENTS, MOST, LEAST = 4000, 16, 4
"""Gradients that looking for hidden images may take, for one after the other, and how many images at most and least."""


def build(node: Node, folder: Path, context: Context) -> None:
    """Set the attack of a crafting on a linear classifier, and on classifiers that hide an adversarial image.

    ``selftest.json``: ``known`` with the ``rate`` of successes on ``n`` images of the linear classifier, the
    ``expected`` one, of the strongest attack there can be, and ``nearer``, the share of images whose margin the attack
    lowered; for an attack in a ball ``hidden`` with ``found`` of ``n``
    images, ``random``, those that a random search found, and ``skipped``, images for which none could be hidden.
    """
    device = torch.device("cpu")
    model = node.parents["train"]
    attack, seed = hands.attack_of(node, context), derive(node.spec["seed"], "selftest")
    with strict_float32():
        found = {"known": known_rate(attack, node.spec["images"], seed)}
        if in_ball(attack):
            data = context.data(model)
            order = data.test_order(LOOKED_AT)
            x, y = to_unit(data.test[0][order]).to(device), data.test[1][order]
            classifier = context.classifier(model, device)
            with torch.no_grad():
                right = torch.nonzero(classifier(x).argmax(dim=1) == y).flatten()[: affordable(attack)]
            found["hidden"] = find_hidden(attack, classifier, x[right], order[right], seed)
    write_json(folder / "selftest.json", found)


def in_ball(attack: Attack) -> bool:
    """Whether an attack keeps inside a ball of a radius above 0."""
    return bool(getattr(attack, "eps", None))


def affordable(attack: Attack) -> int:
    """Images to hide something near: fewer for a slow attack."""
    return max(LEAST, min(MOST, GRADIENTS // max(attack.max_passes(2) or GRADIENTS, 1)))


def reference(margin: float = MARGIN) -> tuple[Linear, Tensor, Tensor]:
    """The linear classifier, by least squares on scikit-learn's threes and eights, with their images and labels.

    Its logits are scaled to a median margin. Only images that it gets right are returned, (N, 1, 8, 8) in [0, 1].
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = (bunch.target == DIGITS[0]) | (bunch.target == DIGITS[1])
    x = torch.from_numpy(bunch.images[chosen] / 16)
    y = torch.from_numpy(bunch.target[chosen] == DIGITS[1]).long()
    table = torch.cat([x.flatten(1), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    sign = 2 * y.to(x) - 1
    ridge = table.T @ table + torch.eye(table.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(ridge, table.T @ sign)
    margins = (table @ weight) * sign
    weight = (weight * margin / margins.median()).float()
    right = margins > 0
    return Linear(weight[:-1].clone(), float(weight[-1])).eval(), x[right, None].float(), y[right]


def known_rate(attack: Attack, images: int, seed: int) -> dict[str, Any]:
    """Success of an attack on the linear classifier, beside what the strongest attack could do.

    In a ball the reference is one of which about half of the images are in reach with `SURE` of what can be done, and
    many of the others in no way; see `_hard`. A confidence that is asked for is one of the reference's own margins.
    """
    confidence = float(getattr(attack, "confidence", 0.0))
    model, x, y = reference(max(MARGIN, confidence))
    if in_ball(attack):
        model, x, y = _hard(attack, model, x, y)
    x, y, expected = x[:images], y[:images], 0.0
    if not isinstance(attack, NoAttack):
        lead, fall = _needed(attack, model, x, y)
        expected = float((fall > lead + confidence).double().mean())
    result = _run(attack, model, _extremes(model), x, y, torch.arange(len(x)), seed)
    nearer = _lead(model, result.x_adv, y) < _lead(model, x, y)
    shares = {"rate": float(result.success.double().mean()), "nearer": float(nearer.double().mean())}
    return shares | {"expected": expected, "n": len(x)}


def _hard(attack: Attack, model: Linear, x: Tensor, y: Tensor) -> tuple[Linear, Tensor, Tensor]:
    """A classifier, images (n, 1, 8, 8) and labels of which about half are in reach of the attack's ball.

    All of class 0, whose boundary is shifted away from them; where a ball is too small for that, they are moved
    towards the boundary first, on straight lines to one point of it. Images that take more than `SURE` of what can be
    reached are left out: there, a step size decides.
    """
    mine, centre = x[y == 0], _boundary(model, x, y)
    zeros = torch.zeros(len(mine), dtype=torch.int64)
    for pull in PULLS:
        moved = torch.lerp(mine, centre, pull)
        lead, fall = _needed(attack, model, moved, zeros)
        shift = float((SURE * fall - lead).median())
        if shift >= 0:
            break
    lead = lead + shift
    scale = MARGIN / float(lead.median())
    shifted = Linear(scale * model.weight.detach(), scale * (float(model.bias.detach()) - shift)).eval()
    kept = (lead <= SURE * fall) | (lead > fall)
    return shifted, moved[kept], zeros[kept]


def _extremes(model: Linear) -> tuple[Tensor, Tensor]:
    """The image of each class that lies furthest from the boundary, (2, 1, 8, 8), and the labels."""
    side = round(len(model.weight) ** 0.5)
    corners = torch.stack([model.weight < 0, model.weight > 0]).to(model.weight)
    return corners.view(2, 1, side, side), torch.arange(2)


def _needed(attack: Attack, model: Linear, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) margins of the labels, and by how much any attack of this ball, or of none, can lower them."""
    eps = float(attack.eps) if in_ball(attack) else float("inf")  # type: ignore[attr-defined]
    return _lead(model, x, y), reachable(model, x, y, str(getattr(attack, "norm", "linf")), eps)


@torch.no_grad()
def _lead(model: Linear, x: Tensor, y: Tensor) -> Tensor:
    """(n,) float64 margins of the labels."""
    return (model(x)[:, 1] - model(x)[:, 0]).double() * (2 * y - 1)


@torch.no_grad()
def _boundary(model: Linear, x: Tensor, y: Tensor) -> Tensor:
    """(1, 8, 8) where the line between the means of the two classes meets the boundary."""
    means = torch.stack([x[y == label].mean(dim=0) for label in (0, 1)])
    below, above = (model(means)[:, 1] - model(means)[:, 0]).tolist()
    return torch.lerp(means[0], means[1], below / (below - above))


def _run(
    attack: Attack,
    module: nn.Module,
    references: tuple[Tensor, Tensor],
    x: Tensor,
    y: Tensor,
    index: Tensor,
    seed: int,
) -> AttackResult:
    """Attack two classes; what an attack on a detector holds has one that never raises an alarm."""
    if getattr(attack, "loss", None) == "dlr":
        module = Padded(module)
    given: Any = module
    if "detector" in attack.needs:
        with torch.no_grad():
            embedded = module.embed_and_logits(references[0])[0]  # type: ignore[operator]
        given = Unflagged(module, embedded, references[1])
    return attack(given, x, y, y_target=1 - y if attack.targeted else None, index=index, seed=seed)


def find_hidden(attack: Attack, classifier: nn.Module, x: Tensor, index: Tensor, seed: int) -> dict[str, int]:
    """Hide one adversarial image near each image, and let the attack look for it (Zimmermann et al. 2022).

    Parameters
    ----------
    attack : Attack
        Has ``eps``.
    classifier : nn.Module
        Has ``embed_and_logits(x)``; it is left as it was.
    x : Tensor
        (n, C, H, W) images in [0, 1].
    index : Tensor
        (n,) int64, their numbers.
    seed : int

    Returns
    -------
    dict of str to int
        ``found`` of ``n``, ``random``: images at which one of `SEARCHED` random points was a success, and ``skipped``.
    """
    counts = {"found": 0, "n": 0, "random": 0, "skipped": 0}
    with frozen(classifier):
        for image, number in zip(x.split(1), index.tolist(), strict=True):
            told = _look_for(attack, classifier, image, number, seed)
            for name, count in told.items():
                counts[name] += count
    return counts


def _look_for(attack: Attack, classifier: nn.Module, image: Tensor, number: int, seed: int) -> dict[str, int]:
    """The counts of one image (1, C, H, W)."""
    norm, eps = str(getattr(attack, "norm", "linf")), float(attack.eps)  # type: ignore[attr-defined]
    found = hide(classifier, image, norm, eps, seed, number)
    if found is None:
        return {"skipped": 1}
    hidden, outer = found
    label = torch.zeros(1, dtype=torch.int64)
    references = torch.cat([image, outer]), torch.tensor([0, 1])
    result = _run(attack, hidden, references, image, label, torch.tensor([number]), seed)
    generator = torch.Generator().manual_seed(derive(seed, f"random search {number}"))
    with torch.no_grad():
        luck = hidden(around(image, norm, eps, SEARCHED, generator)).argmax(dim=1).any()
    return {"found": int(result.success.sum()), "n": 1, "random": int(luck)}
