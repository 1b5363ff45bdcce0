"""A classifier that says which inputs not to trust: fit, save, load, score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detection import Detector, View
from detection.features import LAYERS
from pdm_lightning.devices import strict_float32
from pdm_lightning.guard import detectors, fitting
from pdm_lightning.guard.architecture import Architecture, recognise
from pdm_lightning.guard.checks import text
from pdm_lightning.guard.container import MAX_BYTES
from pdm_lightning.guard.picture import ImageError
from pdm_lightning.guard.preprocessing import Preprocessing
from pdm_lightning.guard.provenance import Provenance
from pdm_lightning.guard.rates import alarm_threshold, p_values
from pdm_lightning.guard.source import source_of, unit
from pdm_lightning.models import Classifier


@dataclass(frozen=True)
class Scored:
    """What a guard says of N images; everything on the CPU.

    Attributes
    ----------
    predicted : Tensor
        (N,) int64, the classes.
    probability : Tensor
        (N,) float64, softmax of the readout logits for that class: the classifier's own confidence, no calibration.
    score : Tensor
        (N,) float64, higher = less to be trusted; NaN where a layer that is read is not finite on an image.
    p_value : Tensor
        (N,) float64 in (0, 1]: how likely a clean image scores as much or more; its least where there is no score.
    flagged : Tensor
        (N,) bool: the score lies strictly above the threshold, or there is none.
    """

    predicted: Tensor
    probability: Tensor
    score: Tensor
    p_value: Tensor
    flagged: Tensor

    def __len__(self) -> int:
        return len(self.predicted)


@dataclass
class Guard:
    """A classifier, a fitted detector, and the threshold that turns scores into flags. Made by `fit` or `load`.

    Attributes
    ----------
    classifier : Classifier
        In eval mode.
    detector : Detector
    threshold, fpr : float
        Flagged is what scores strictly above; the false-positive rate that the validation images allowed for it.
    classes : list of str
    preprocessing : Preprocessing
    clean_scores : Tensor
        (V,) float64, ascending: scores of the clean validation images.
    provenance : Provenance
    network : Architecture
        How a file names the classifier's network.

    Examples
    --------
    >>> guard = Guard.load("guard.safetensors")                      # doctest: +SKIP
    >>> guard.score(["cat.png", "dog.jpg"]).flagged                  # doctest: +SKIP
    """

    classifier: Classifier
    detector: Detector
    threshold: float
    fpr: float
    classes: list[str]
    preprocessing: Preprocessing
    clean_scores: Tensor
    provenance: Provenance
    network: Architecture

    @classmethod
    def fit(
        cls,
        classifier: nn.Module,
        train: Any,
        validation: Any = None,
        *,
        held_out: Any = None,
        adversarial: Any = None,
        detector: Detector | str | None = None,
        fpr: float = 0.05,
        classes: Sequence[str] | int | None = None,
        preprocessing: Preprocessing | None = None,
        architecture: Architecture | str | None = None,
        embedding: str | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        name: str = "images",
        seed: int = 0,
        batch: int = 64,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> Guard:
        """Fit a detector on clean images, and freeze the threshold.

        Without `validation` the images are shared out by class: at most a quarter is held out, 10 / fpr or a quarter
        (at most 10,000) set bandwidth and threshold, and the others fit the detector. With it, all of `train` fits the
        detector, and what `validation` has beyond 10 / fpr and its half is held out. The rates hold for images like
        the validation images: take images that the classifier was *not* trained on, or new ones score higher.

        Parameters
        ----------
        classifier : nn.Module
            A `Classifier`, or any network from images to logits, which is wrapped. It is used, not copied, and left in
            eval mode: what changes it later changes what the guard says.
        train, validation, held_out : Tensor, (Tensor, Tensor), Dataset, DataLoader, list of paths or ImageData
            Clean images, (N, C, H, W) uint8 or float in [0, 1], with labels where there are any. Without labels, the
            classifier's own predictions stand in for them. An ImageData has all three.
        adversarial : as train, optional
            Attacked images with their true labels, for the detectors that are fitted on an attack.
        detector : Detector or str, optional
            To be fitted, or its name in `guard.detectors.CHOICES`; a KDE by default.
        fpr : float
            The share of clean images that may be flagged, in (0, 0.5].
        classes : sequence of str, or int, optional
            Names of the classes, in the order of the logits, or their number.
        preprocessing : Preprocessing, optional
            How image files become pixels; by default they are stretched to the size of the images given here.
        architecture : Architecture or str, optional
            "torchvision/resnet18", "timm/...", or "own"; by default it is found.
        embedding, mean, std : optional
            Of a network that is no `Classifier` yet: see `Classifier.wrap`.
        name : str
            What the images are, for the card: at most 200 printable characters.
        seed : int
            Of the sharing out.
        batch : int
            Images a pass.
        device : torch.device or str, optional
            Where to compute; where the classifier is by default.
        progress : bool
            Show how far it is.

        Raises
        ------
        ValueError
            In one line, for too few images for the rate, images or labels that do not fit, a detector that cannot be
            fitted so.
        """
        text()(name, "name")
        train, validation, held_out = fitting.unpack(data := train, validation, held_out)
        classes = getattr(data, "classes", None) if classes is None else classes
        count = classes if isinstance(classes, int) else len(classes) if classes else None
        settings = {"embedding": embedding, "mean": mean, "std": std}
        if not isinstance(classifier, Classifier):
            settings["num_classes"] = count
        model = fitting.as_classifier(classifier, **settings)
        labels = fitting.class_names(classes, model)
        for label in labels:
            text()(label, "classes")
        place = model.mean.device if device is None else torch.device(device)
        chosen = detectors.choose(detector, model)
        read = fitting.Reader(model.to(place), chosen.reads, place, batch, preprocessing, progress)
        alarm_threshold(
            torch.arange(10.0 / fpr + 1) if 0 < fpr < 1 else torch.zeros(0), fpr
        )  # before the work
        fitting.check_labels(chosen, read, train)
        parts = fitting.split(read, train, validation, held_out, fpr=fpr, seed=seed)
        made = fitting.learn(chosen, read, parts, adversarial, fpr=fpr, seed=seed, name=name)
        channels = made.preprocessing.channels
        network = fitting.architecture_of(architecture, model, channels, recognise)
        return cls(
            model,
            chosen,
            made.threshold,
            float(fpr),
            labels,
            made.preprocessing,
            made.clean_scores,
            made.provenance,
            network,
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.classifier.mean.device

    def to(self, device: torch.device | str) -> Guard:
        """Move the classifier; the detector follows what it scores. Returns itself."""
        self.classifier.to(device)
        return self

    def threshold_at(self, fpr: float) -> float:
        """Threshold of another false-positive rate, on the same clean scores; ValueError where they are too few."""
        return alarm_threshold(self.clean_scores, fpr)

    @torch.no_grad()
    def score(self, images: Any, *, threshold: float | None = None, batch: int = 64) -> Scored:
        """Score images.

        Parameters
        ----------
        images : Tensor, Dataset, DataLoader or list of paths
            (N, C, H, W) uint8 or float in [0, 1], of the guard's size; files are resized. Labels are passed over.
        threshold : float, optional
            In place of the guard's own.
        batch : int
            Images a pass.

        Raises
        ------
        ValueError
            For images of another shape.
        ImageError
            For a file that cannot be read.
        """
        source = source_of(images, self.preprocessing)
        found: list[tuple[Tensor, Tensor]] = []
        with strict_float32():
            for part in source.batches(batch):
                if source.failed:
                    break
                if tuple(part.images.shape[1:]) != self.preprocessing.shape:
                    shape = tuple(part.images.shape[1:])
                    raise ValueError(
                        f"images of {shape}: this guard takes {self.preprocessing.shape}, (C, H, W)"
                    )
                found.append(self._score(unit(part.images, self.device)))
        if source.failed:
            raise ImageError(": ".join(source.failed[0]))
        probabilities, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        probability, predicted = probabilities.max(dim=1)
        limit = self.threshold if threshold is None else threshold
        return Scored(predicted, probability, scores, p_values(scores, self.clean_scores), ~(scores <= limit))

    def _score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, K) and scores (N,) of one batch."""
        view = View.from_model(self.classifier, images, self.detector.reads)
        layers = [view.layer(name) for name in dict.fromkeys((*LAYERS, *self.detector.reads))]
        sound = torch.stack([torch.isfinite(layer).all(dim=1) for layer in layers]).all(dim=0)
        scores = torch.full((len(images),), math.nan, dtype=torch.float64)
        if bool(sound.any()):
            # a detector refuses all images for the sake of one
            seen = view if bool(sound.all()) else view.at(images[sound])
            scores[sound.cpu()] = self.detector.score(seen).double().cpu()
        return view.logits.double().softmax(dim=1).cpu(), scores

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, in one step: see `pdm_lightning.guard.files`.

        Raises
        ------
        ValueError
            Where the file would not give this guard again.
        """
        from pdm_lightning.guard.files import save

        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None, *, max_bytes: int = MAX_BYTES) -> Guard:
        """Read a file of `save`, on the CPU; a file makes no code run.

        Parameters
        ----------
        path : str or Path
        model : nn.Module, optional
            The network, or the `Classifier`, that the file's weights go into; needed where it is neither of this
            project nor of torchvision nor timm.
        max_bytes : int
            A larger file is refused.

        Raises
        ------
        GuardFileError
            In one line, for whatever is wrong with the file.
        FileNotFoundError
            Where there is none.
        """
        from pdm_lightning.guard.files import load

        return load(Path(path), model, max_bytes)
