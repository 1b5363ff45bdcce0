"""The validation images in two halves: one to set a detector with, one to judge it by."""

from __future__ import annotations

import torch
from torch import Tensor

from pdm_lightning.data.base import balanced_order, stratified_split
from pdm_lightning.seeding import derive


def halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cut validation images into two halves of the same class proportions.

    A bandwidth or threshold that was fitted to the very images that are scored would flatter the detector, so what
    is measured on validation images is measured on the second half, of a detector that has seen the first.

    Parameters
    ----------
    labels : Tensor
        (N,) int64, of the validation split.

    Returns
    -------
    fitting, judging : Tensor
        Numbers of images, int64, disjoint, together ``0..N-1``: ``fitting`` ascending, ``judging`` in the order in
        which images are attacked, every prefix of it balanced. Both are functions of the labels alone.

    Raises
    ------
    ValueError
        For too few images.
    """
    count = len(labels) // 2
    if count < 1 or count > len(labels) - len(labels.unique()):
        raise ValueError(
            f"{len(labels)} validation images of {len(labels.unique())} classes are too few to be halved: "
            "raise data.val_size"
        )
    fitting, judging = stratified_split(labels, count, derive(0, "validation halves"))
    order = balanced_order(labels[judging], derive(0, "validation order"))
    return torch.as_tensor(fitting), judging[order]
