"""Two stored results image by image, whichever studies they come from; nothing is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from detection.differences import Difference, paired_proportions
from detection.joint import joint_hits, worst_case
from pdm_lightning.matching import places
from pdm_lightning.stages import features
from pdm_lightning.stages.compare import Scores, auc_difference, common, joint_difference, nothing
from pdm_lightning.store import Artifact, CorruptArtifact, Store

#: Files that hold the numbers of a row, by the kind of its artifact.
_MEASURED = {"score": "score.json", "clean": "clean.json", "worst": "worst.json"}
#: The way from a result to the training of the classifier that was judged, by role.
_WAYS = {"score": ("detector", "features", "train"), "clean": ("features", "train")}

#: What can be compared image by image, as ``results.csv`` names it; of rates also at a false-positive rate.
_WHOLE = ("accuracy", "auc", "auc_all")
_RATES = ("joint_success", "detected", "misclassified_rate", "robust_accuracy", "false_alarms")
NOTHING = "nothing is kept image by image of such a metric"
RESAMPLES = 10
"""Times ``evaluate.bootstrap``, as in the table of differences: a p-value needs more resamples than an interval."""


class NotPaired(Exception):
    """Why two results cannot be compared image by image."""


class Stored:
    """A result that a store holds, and what it was made of.

    Parameters
    ----------
    store : Store
    artifact : Artifact
        Of kind ``score``, ``clean`` or ``worst``.
    """

    def __init__(self, store: Store, artifact: Artifact) -> None:
        self.store, self.artifact = store, artifact

    @classmethod
    def find(cls, stores: Sequence[Store], key: str, metric: str, value: float) -> Stored:
        """The result of a row.

        Parameters
        ----------
        stores : sequence of Store
            Where to look, the first that holds it counts.
        key, metric, value : str, str, float
            The row's.

        Raises
        ------
        NotPaired
            Where no store holds it whole, it has nothing image by image, or it says something else than the row.
        """
        if metric not in _WHOLE and metric.partition("@")[0] not in _RATES:
            raise NotPaired(NOTHING)
        found = next((one for store in stores for one in cls._held(store, key)), None)
        if found is None:
            raise NotPaired("the artifact is not in the store, or damaged")
        if found.measured(metric) != value:
            raise NotPaired("the store holds another result than results.csv")
        return found

    @classmethod
    def _held(cls, store: Store, key: str) -> Iterator[Stored]:
        for kind in _MEASURED if key else ():
            try:
                yield cls(store, store.open(kind, key))
            except (FileNotFoundError, CorruptArtifact):
                continue

    def measured(self, metric: str) -> float | None:
        """What it says of a metric itself."""
        told = self.artifact.json(_MEASURED[self.artifact.kind]).get(metric)
        return told["value"] if isinstance(told, dict) else told

    def parent(self, *way: str) -> Artifact:
        """What it was made of, along a way of roles, each of which is the kind of its artifact, too."""
        found = self.artifact
        for kind in way:
            found = self._open(kind, found.manifest["parents"].get(kind, ""))
        return found

    def _open(self, kind: str, key: str) -> Artifact:
        try:
            return self.store.open(kind, key)
        except (FileNotFoundError, CorruptArtifact) as error:
            raise NotPaired("what the artifact was made of is gone, or damaged") from error

    @cached_property
    def data(self) -> dict[str, Any]:
        """The data set that it was measured on: settings and fingerprint."""
        if self.artifact.kind == "worst":
            attacked = self._open("score", next(iter(self.artifact.manifest["parents"].values())))
            return Stored(self.store, attacked).data
        data: dict[str, Any] = self.parent(*_WAYS[self.artifact.kind]).manifest["spec"]["data"]
        return data


def difference(metric: str, a: Stored, b: Stored) -> Difference:
    """A minus B of a metric, on the test images that both were measured on.

    Parameters
    ----------
    metric : str
        As ``results.csv`` names it: ``accuracy``, ``auc``, ``auc_all``, ``misclassified_rate``, ``robust_accuracy``;
        ``joint_success``, ``detected``, ``robust_accuracy`` and ``false_alarms`` at a false-positive rate.
    a, b : Stored

    Returns
    -------
    Difference
        Of the AUC as in `pdm_lightning.stages.compare`: over images that are fooled in both (``auc_all``: all that
        both attacked), with the larger of both studies' ``evaluate.min_n`` and `RESAMPLES` times their resamples.
        Of a rate as in `detection.differences.paired_proportions`: over the images that both attacked; of ``detected``
        those that are fooled in both, of the robust accuracies all images tried, of ``accuracy`` and ``false_alarms``
        all test images.

    Raises
    ------
    NotPaired
        Where the test sets, or the images tried, are not the same, or the metric has nothing image by image.
    """
    if a.data != b.data:
        raise NotPaired("the data sets are not the same")
    kinds, (name, _, fpr) = {a.artifact.kind, b.artifact.kind}, metric.partition("@")
    if kinds == {"clean"} and name == "accuracy":
        return paired_proportions(*_right(a, b))
    if kinds == {"worst"} and name == "joint_success":
        return _worst(a, b, f"hits@{fpr}")
    if kinds != {"score"}:
        raise NotPaired(NOTHING)
    if name == "false_alarms":
        return paired_proportions(*(_alarms(one, fpr) for one in (a, b)))
    return _scored(name, fpr, a, b)


def _spec(a: Stored, b: Stored) -> dict[str, Any]:
    """How scores are compared: as strictly as the stricter of both."""
    specs = [one.artifact.manifest["spec"] for one in (a, b)]
    bootstrap, min_n = (max(spec[key] for spec in specs) for key in ("bootstrap", "min_n"))
    return {"bootstrap": RESAMPLES * bootstrap, "min_n": min_n}


def _scored(name: str, fpr: str, a: Stored, b: Stored) -> Difference:
    """A metric of two ``score`` artifacts."""
    spec = _spec(a, b)
    first, second = common([a.artifact, b.artifact])
    if name == "auc":
        return auc_difference(first, second, spec)
    if name == "auc_all":
        return auc_difference(_all_kept(first), _all_kept(second), spec)
    if name == "misclassified_rate":
        return paired_proportions(first["fooled"], second["fooled"])
    limit_a, limit_b = (_limit(one, fpr) for one in (a, b))
    if name == "joint_success":
        return joint_difference(first, second, limit_a, limit_b, spec["min_n"])
    if name == "robust_accuracy":
        return _robust(a, b, (limit_a, limit_b), rejecting=bool(fpr))
    fooled = first["fooled"] & second["fooled"]
    if limit_a is None or limit_b is None or int(fooled.sum()) < spec["min_n"]:
        return nothing(int(fooled.sum()))
    return paired_proportions(first["adversarial"][fooled] > limit_a, second["adversarial"][fooled] > limit_b)


def _all_kept(one: Scores) -> Scores:
    """The scores, as if every attack had succeeded: failures are kept."""
    return one | {"fooled": torch.ones_like(one["fooled"])}


def _limit(one: Stored, fpr: str) -> float | None:
    """The alarm's threshold that was frozen for a false-positive rate; None where there is none."""
    limit: float | None = one.artifact.json("score.json")["thresholds"].get(fpr)
    return limit


def _robust(
    a: Stored, b: Stored, limits: tuple[float | None, float | None], *, rejecting: bool
) -> Difference:
    """Robust accuracy over all images tried: those that a model gets wrong without any attack are lost to it."""
    tried = [one.artifact.json("score.json")["candidates"] for one in (a, b)]
    if tried[0] != tried[1]:
        raise NotPaired(f"not the same images were tried: {tried[0]} and {tried[1]}")
    runs = [load_file(one.artifact.file("scores.safetensors")) for one in (a, b)]
    images = torch.cat([run["index"] for run in runs]).unique()
    kept = []
    for run, limit in zip(runs, limits, strict=True):
        if rejecting and limit is None:
            return nothing(tried[0])
        right = _kept(run, limit) if rejecting and limit is not None else ~run["fooled"]
        every = torch.zeros(
            tried[0], dtype=torch.bool
        )  # an image that neither model gets right is lost to both
        every[: len(images)] = torch.isin(images, run["index"][right])
        kept.append(every)
    return paired_proportions(*kept)


def _kept(run: Scores, limit: float) -> Tensor:
    """(N,) bool: passes when clean, and is no joint success when attacked."""
    return (run["clean"] <= limit) & ~joint_hits(run["fooled"], run["adversarial"], limit)


def _right(a: Stored, b: Stored) -> list[Tensor]:
    """(N,) bool for each: which test images are classified correctly."""
    tests = [features.read(one.parent("features"))["test"] for one in (a, b)]
    if not torch.equal(tests[0].labels, tests[1].labels):
        raise NotPaired("the test sets are not the same")
    return [test.predicted == test.labels for test in tests]


def _alarms(one: Stored, fpr: str) -> Tensor:
    """(N,) bool: which clean test images are flagged."""
    limit = _limit(one, fpr)
    if limit is None:
        raise NotPaired("there is no threshold")
    alarms: Tensor = load_file(one.parent("detector").file("scores.safetensors"))["test"] > limit
    return alarms


def _worst(a: Stored, b: Stored, hits: str) -> Difference:
    """Joint successes of the worst case over attacks, on the images that all attacks of both tried."""
    runs = [load_file(one.artifact.file("worst.safetensors")) for one in (a, b)]
    if any(hits not in run for run in runs):
        raise NotPaired("there is no threshold")
    images, _ = worst_case([run["index"] for run in runs], [run[hits] for run in runs])
    return paired_proportions(*(run[hits][places(run["index"], images)] for run in runs))
