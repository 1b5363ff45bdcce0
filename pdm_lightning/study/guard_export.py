"""``pdml export``: a guard as one ONNX graph, or as a program of ``torch.export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pdm_lightning.export import OUTPUTS, export_onnx, export_program
from pdm_lightning.guard import Guard
from pdm_lightning.study.guard_models import imported
from pdm_lightning.study.guard_output import writable
from pdm_lightning.study.guard_words import parse


def export(words: Sequence[str]) -> int:
    """Carry out ``pdml export``; return the exit status.

    Raises
    ------
    GuardFileError
        For a file that is no guard.
    ImportError, ValueError, RuntimeError
        As `pdm_lightning.export.export_onnx` and `export_program`.
    """
    given = parse("export", words)
    if given is None:
        return 0
    if not (given.onnx or given.program):
        raise ValueError(
            "export: nothing to write: name a file, as --onnx watched.onnx or --program watched.pt2"
        )
    for flag, word in (("--onnx", given.onnx), ("--program", given.program)):
        if word:
            writable(flag, word, [Path(given.file)])
    guard = Guard.load(given.file, imported(given.imported) if given.imported else None)
    # a batch of two: of one, torch.export would take the number of images for a constant
    example = torch.zeros(2, *guard.preprocessing.shape)
    for path, write in ((given.onnx, export_onnx), (given.program, export_program)):
        if path:
            parts = guard.classifier, guard.detector, guard.threshold, example
            written = write(*parts, Path(path), classes=guard.classes, fpr=guard.fpr)
            print(f"{written}: images {_shape(guard)} float32 in [0, 1] -> {', '.join(OUTPUTS)}")
    return 0


def _shape(guard: Guard) -> str:
    return f"(N, {', '.join(str(number) for number in guard.preprocessing.shape)})"
