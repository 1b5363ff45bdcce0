"""One pass of the classifier over clean images, and how they are shared out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detection import Detector, Features, View
from detection.features import LAYERS
from pdm_lightning.data import stratified_split
from pdm_lightning.devices import strict_float32
from pdm_lightning.guard.rates import images_for
from pdm_lightning.guard.source import Source, unit
from pdm_lightning.models import Classifier

MOST_HELD = 10_000
"""More validation, or held-out, images would not make a rate better known than it needs to be."""


@dataclass(frozen=True)
class Gathered:
    """What the classifier says of a source.

    Attributes
    ----------
    source : Source
    rows : Tensor
        (N,) int64, the numbers of the images that could be read.
    layers : dict of str to Tensor
        (N, d) float32 each, on the CPU.
    labels : Tensor or None
        (N,) int64; None where the source has none.
    fingerprint : str
        SHA-256 of pixels and labels.
    shape : tuple of int
        (C, H, W) of every image.
    """

    source: Source
    rows: Tensor
    layers: dict[str, Tensor]
    labels: Tensor | None
    fingerprint: str
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> Tensor:
        """(N,) int64: the labels, or the classifier's own predictions where there are none."""
        return self.layers["logits"].argmax(dim=1) if self.labels is None else self.labels

    def correct(self, places: Tensor) -> int:
        """Of the images at these places, so many are classified as labelled."""
        return int((self.layers["logits"].argmax(dim=1) == self.classes)[places].sum())

    def features(self, places: Tensor) -> Features:
        """Features of the images at these places."""
        part = {name: layer[places] for name, layer in self.layers.items()}
        embedding, logits = part.pop("embedding"), part.pop("logits")
        return Features(embedding, logits, self.classes[places], part)


@torch.no_grad()
def gather(
    classifier: Classifier,
    source: Source,
    layers: Sequence[str],
    device: torch.device,
    batch: int,
    report: Callable[[int], None] = lambda count: None,
) -> Gathered:
    """Pass all images of a source through the classifier once.

    Raises
    ------
    ValueError
        Where no image can be read, sizes differ, a label is no class, or an embedding is not finite.
    """
    names = list(dict.fromkeys((*LAYERS, *layers)))
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    rows, labels, shape = [], [], None
    pixels, given = hashlib.sha256(), hashlib.sha256()  # two, so that the size of a batch does not count
    with strict_float32():
        for part in source.batches(batch):
            if shape not in (None, tuple(part.images.shape[1:])):
                raise ValueError(
                    f"images of {shape} and {tuple(part.images.shape[1:])}: resize them to one size"
                )
            shape = tuple(part.images.shape[1:])
            view = View.from_model(classifier, unit(part.images, device), names)
            for name in names:
                found[name].append(view.layer(name).cpu())
            rows.append(part.rows)
            labels += [] if part.labels is None else [part.labels]
            pixels.update(part.images.contiguous().numpy().tobytes())
            given.update(b"" if part.labels is None else part.labels.numpy().tobytes())
            report(len(part.images))
    if shape is None:
        raise ValueError("none of the images can be read" if source.failed else "there are no images")
    if labels and len(labels) < len(rows):
        raise ValueError("some images have a label and some have none")
    tensors = {name: torch.cat(parts) for name, parts in found.items()}
    _check(tensors, labels := torch.cat(labels) if labels else None)  # type: ignore[assignment,arg-type]
    fingerprint = hashlib.sha256(pixels.digest() + given.digest()).hexdigest()
    return Gathered(source, torch.cat(rows), tensors, labels, fingerprint, shape)  # type: ignore[arg-type]


def _check(tensors: dict[str, Tensor], labels: Tensor | None) -> None:
    odd = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if odd:
        raise ValueError(f"the classifier's {odd[0]} is not finite on some images: its weights are broken")
    count = tensors["logits"].shape[1]
    if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise ValueError(
            f"labels reach {int(labels.min())}..{int(labels.max())}, the classifier has {count} classes"
        )


@torch.no_grad()
def scores(
    detector: Detector,
    classifier: Classifier,
    gathered: Gathered,
    places: Tensor,
    device: torch.device,
    batch: int,
) -> Tensor:
    """Score the images at these places, (M,) float64; a detector that looks at images has them read again."""
    with strict_float32():
        if not detector.needs_images:
            views = gathered.features(places).views(4096)
            return torch.cat([detector.score(view).double().cpu() for view in views])
        found = []
        for part in gathered.source.batches(batch, gathered.rows[places].tolist()):
            view = View.from_model(classifier, unit(part.images, device), detector.reads)
            found.append(detector.score(view).double().cpu())
        return torch.cat(found)


def share_out(classes: Tensor, fpr: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Share images out: kernels (at least a quarter), validation (10 / fpr at least), held out (a quarter at most).

    Parameters
    ----------
    classes : Tensor
        (N,) int64; each part has the classes in about these proportions.
    fpr : float
        The rate that the threshold shall hold.
    seed : int

    Returns
    -------
    tuple of Tensor
        Places of the three parts, ascending, disjoint, together 0..N-1.

    Raises
    ------
    ValueError
        Where there are too few images for the rate, or for the classes.
    """
    n, needed = len(classes), images_for(fpr)
    held = min(n // 4, MOST_HELD)
    validation = max(needed, held)
    rest = n - validation - held
    if n < 2 * needed:
        raise ValueError(
            f"{n} clean images are too few for a false-positive rate of {fpr:g}: {2 * needed} needed, {needed} of them "
            f"to set the threshold; give more, or raise the rate to {_affordable(n)}"
        )
    if rest < (count := len(classes.unique())):
        raise ValueError(
            f"{n} clean images of {count} classes leave {rest} to fit the detector: give more images"
        )
    kept, out = stratified_split(classes, held, seed)
    inner, cut = stratified_split(classes[kept], validation, seed + 1)
    return kept[inner], kept[cut], out


def halves(n: int, fpr: float, seed: int) -> tuple[Tensor, Tensor]:
    """Share validation images out, when they are given by themselves: as many for the threshold as needed, or half."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    count = min(n, max(images_for(fpr), n // 2))
    return order[:count].sort().values, order[count:].sort().values


def _affordable(n: int) -> str:
    """The rate that n images are enough for."""
    from pdm_lightning.guard.rates import ceiling

    return f"{ceiling(20 / n):g}" if n >= 40 else "no rate worth having: 40 images at the very least"
