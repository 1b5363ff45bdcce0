"""Classifier and detector as one graph, from images to logits, embedding, score and flag: for ONNX and torch.export."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detection import Detector
from detection.features import LAYERS, tapped
from detection.graph import scorer
from pdm_lightning.durable import regular, sync
from pdm_lightning.models import Classifier

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OUTPUTS = ("logits", "embedding", "score", "flag")
"""What a graph gives: (N, K) and (N, d) float32, (N,) float64 and (N,) bool."""
EXTERNAL = 3 * 2**29
"""Bytes of weights and kernels beyond which an ONNX file has them in another beside it: 1.5 GiB of ONNX's 2."""


class Watched(nn.Module):
    """A classifier with a detector that watches it, out of plain tensor operations.

    Parameters
    ----------
    classifier : Classifier
        Copied; its copy is put on the CPU and into eval mode.
    detector : Detector
        Fitted; one of those that `detection.graph.EXPORTABLE` names.
    threshold : float
        Scores strictly above it are flagged, and those that are NaN.

    Raises
    ------
    ValueError
        For another detector, or a threshold that is not finite.
    """

    threshold: Tensor

    def __init__(self, classifier: Classifier, detector: Detector, threshold: float) -> None:
        super().__init__()
        if not math.isfinite(threshold):
            raise ValueError(f"the threshold must be a finite score, got {threshold!r}")
        self.scorer, self.layers = scorer(detector), [n for n in detector.reads if n not in LAYERS]
        self.classifier = copy.deepcopy(classifier).cpu().eval().requires_grad_(False)
        # a number would be compared in float32
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map images (N, C, H, W) float32 in [0, 1] to the four `OUTPUTS`."""
        with tapped(self.classifier, self.layers) as caught:
            embeddings, logits = self.classifier.embed_and_logits(images)
        score = self.scorer({"embedding": embeddings, "logits": logits, **caught})
        return logits, embeddings, score, ~(score <= self.threshold)  # what has no score is flagged


def export_program(
    classifier: Classifier,
    detector: Detector,
    threshold: float,
    example: Tensor,
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    fpr: float | None = None,
) -> Path:
    """Write classifier and detector as a `torch.export` program, for ``torch.export.load(path).module()(images)``.

    Parameters
    ----------
    classifier : Classifier
    detector : Detector
        Fitted; one of those that `detection.graph.EXPORTABLE` names.
    threshold : float
        Scores strictly above it are flagged.
    example : Tensor
        (N, C, H, W) float images in [0, 1]; the batch is free, C, H and W stay.
    path : str or Path
        Ends in ``.pt2``.
    classes : sequence of str, optional
        Names of the K classes, kept beside the graph as is all that follows.
    fpr : float, optional
        False-positive rate of the threshold.

    Returns
    -------
    Path
        The file. `metadata` says what else lies in it: ``torch.export.load(path, extra_files={"metadata.json": ""})``.

    Raises
    ------
    ValueError
        For arguments that do not fit together, a detector without a graph, or a path that does not end in ``.pt2``.
    RuntimeError
        Where PyTorch cannot follow the classifier.
    """
    path = _ending(path, ".pt2")
    program = _program(classifier, detector, threshold, example)
    told = metadata(classifier, detector, threshold, classes, fpr)
    with _whole(path) as new:
        torch.export.save(program, new, extra_files={"metadata.json": json.dumps(told)})
    return path


def export_onnx(
    classifier: Classifier,
    detector: Detector,
    threshold: float,
    example: Tensor,
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    fpr: float | None = None,
) -> Path:
    """Write classifier and detector as one ONNX graph: ``images`` in, the four `OUTPUTS` out.

    Parameters and errors as in `export_program`, with a path that ends in ``.onnx``. What `metadata` says is in
    ``metadata_props``. Beyond `EXTERNAL` bytes weights and kernels lie in ``<path>.data``, which must stay
    beside the file. In onnxruntime outputs equal PyTorch's within 1e-4: logits and embeddings of their largest value,
    scores of their own size or 1, flags but for scores that close to the threshold. A density whose bandwidth is far
    below the distances multiplies what rounding does to the embedding; given the graph's own, it is right to 1e-9.

    Raises
    ------
    ImportError
        Without the packages of the extra ``export``.
    """
    path = _ending(path, ".onnx")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"export needs {' and '.join(missing)}: pip install 'pdm-lightning[export]'")
    told = metadata(classifier, detector, threshold, classes, fpr)
    program = _program(classifier, detector, threshold, example)
    with _quiet():
        made: Any = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=list(OUTPUTS), verbose=False
        )
    if made is None:
        raise RuntimeError("PyTorch wrote no ONNX graph: install a newer torch and onnxscript")
    made.model.metadata_props.update(told)
    size = sum(
        t.numel() * t.element_size() for t in (*program.state_dict.values(), *program.constants.values())
    )
    with _whole(path) as new:
        made.save(str(new), external_data=size > EXTERNAL)
    return path


def metadata(
    classifier: Classifier,
    detector: Detector,
    threshold: float,
    classes: Sequence[str] | None = None,
    fpr: float | None = None,
) -> dict[str, str]:
    """What is written beside a graph.

    Returns
    -------
    dict of str to str
        ``version`` of this package, ``detector`` with its options, ``threshold`` as the shortest decimals that give the
        same float64, ``classes``, a JSON list, and ``fpr``; the last two where they are given.

    Raises
    ------
    ValueError
        Where there are not as many names as classes, or for a rate outside [0, 1).
    """
    from pdm_lightning import __version__

    told = {"version": __version__, "detector": repr(detector), "threshold": repr(float(threshold))}
    if classes is not None:
        if len(classes) != classifier.num_classes:
            raise ValueError(
                f"{len(classes)} class names for {classifier.num_classes} classes: give one each"
            )
        told["classes"] = json.dumps(list(classes))
    if fpr is not None:
        if not 0 <= fpr < 1:
            raise ValueError(f"the false-positive rate must lie in [0, 1), got {fpr}")
        told["fpr"] = repr(float(fpr))
    return told


def _program(
    classifier: Classifier, detector: Detector, threshold: float, example: Tensor
) -> ExportedProgram:
    if example.dim() != 4 or not example.is_floating_point() or not len(example):
        raise ValueError(
            f"the example must be (N, C, H, W) float, got {tuple(example.shape)} {example.dtype}"
        )
    if not bool(((example >= 0) & (example <= 1)).all()):
        raise ValueError("the example's pixels must lie in [0, 1]: divide by 255")
    # of one image alone the batch would be taken for a constant
    images = example.detach().cpu().float().repeat(2 if len(example) == 1 else 1, 1, 1, 1)
    watched = Watched(classifier, detector, threshold)
    try:
        with _quiet(), torch.no_grad():
            watched.classifier.locate(images)  # a graph cannot look for what a first pass would
            return torch.export.export(
                watched, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
    except Exception as error:  # whatever a network of the user's own does in its forward
        first = (str(error).strip().splitlines() or [""])[0]
        raise RuntimeError(
            f"PyTorch cannot follow the classifier ({type(error).__name__}: {first}): its forward must be tensor "
            "operations that do not look at the values, for any batch"
        ) from error


def _ending(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"the file must end in {suffix}, got {path.name!r}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}: make it first")
    return path


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a path to write; what was written, and what lies beside it, takes the place of `path` when all is there.

    An ONNX file names the one of its weights, so that both are written under their own names, in a folder beside.
    """
    path = regular(path)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder, path.name)
        for made in sorted(Path(folder).iterdir(), reverse=True):  # the weights first
            sync(made)
            made.replace(path.with_name(made.name))
    sync(path.parent)


class _quiet(warnings.catch_warnings):
    """Exporters talk of their own matters."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        self.before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        return entered

    def __exit__(self, *error: Any) -> None:
        logging.disable(self.before)
        super().__exit__(*error)
