"""Penetration Distortion Maximization: training, attacking and detecting as one experiment framework."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(key: str, output: str = "outputs") -> Any:
    """Open a stored result.

    Parameters
    ----------
    key : str
        Key of an artifact as ``results.csv`` and ``pdml plan`` show it, or its beginning, or ``kind/key``.
    output : str
        The ``paths.output`` of the study.

    Returns
    -------
    Classifier, Detector or dict
        A ``train`` artifact as a classifier in eval mode, a ``detector`` artifact as a fitted detector, ``features``
        as `detection.Features` by split, ``craft``, ``score`` and ``tsne`` as dicts of tensors, ``clean`` as a dict.

    Raises
    ------
    FileNotFoundError
        Where no artifact has such a key.
    ValueError
        Where several have.
    """
    from pdm_lightning.stages.reading import read

    return read(key, output)
