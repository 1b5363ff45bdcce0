"""What detectors share: layers in float64, learnt tensors that travel, and checks of options."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from detection.base import Detector
from detection.features import Features, View


class Learner(Detector):
    """A detector whose learnt values are tensors with names.

    A subclass gives its arguments to attributes of the same name, says what `fit` learns in `_names`, hands it to
    `_learn` and gets it back from `_recall`.
    """

    def __init__(self) -> None:
        self._learnt: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Names of the tensors that `fit` learns."""

    def __repr__(self) -> str:
        options = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in inspect.signature(type(self)).parameters
        )
        return f"{type(self).__name__}({options})"

    def _learn(self, tensors: Mapping[str, Tensor]) -> Self:
        # rounding depends on the order in memory: scores before and after a save are equal only in one order
        self._learnt = {name: tensors[name].detach().contiguous() for name in self._names}
        return self

    def _recall(self, device: torch.device | None = None) -> dict[str, Tensor]:
        """What was learnt; moved to a device once, since an attack scores there thousands of times."""
        if not self._learnt:
            raise RuntimeError(
                f"this {type(self).__name__} has learnt nothing yet: call fit or load_state_dict first"
            )
        if device is not None and any(tensor.device != device for tensor in self._learnt.values()):
            self._learnt = {name: tensor.to(device) for name, tensor in self._learnt.items()}
        return self._learnt

    def state_dict(self) -> dict[str, Tensor]:
        """What `fit` learnt as ``<class>.<name>``, contiguous copies on the CPU; RuntimeError before `fit`."""
        return {
            f"{type(self).__name__}.{name}": tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self._recall().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        """Take over a state of `state_dict`; ValueError for one of another detector or of other layers."""
        mine = {f"{type(self).__name__}.{name}": name for name in self._names}
        odd = sorted(mine.keys() ^ state.keys())
        if odd:
            what = f"{odd[0]} {'absent' if odd[0] in mine else 'unknown'}"
            raise ValueError(
                f"this is no state of {type(self).__name__} with these options, {what}: fit the detector again"
            )
        self._learnt = {name: state[key].clone() for key, name in mine.items()}
        return self

    def _layer(self, source: Features | View, name: str, which: str, width: int | None = None) -> Tensor:
        """Layer of features or view, (N, d) float64 (autograd casts the gradient back).

        Raises
        ------
        ValueError
            Where it is not finite, or not as wide as the layer that the detector was fitted on.
        """
        points = source.layer(name)
        if width is not None and points.shape[1] != width:
            raise ValueError(
                f"{type(self).__name__}: layer {name!r} is {points.shape[1]} wide and was {width} wide at fit: "
                "score the model that the detector was fitted on"
            )
        # a sum is cheap, and finite only without NaN or infinity; it may overflow, hence the count
        if not torch.isfinite(points.sum()):
            bad = int((~torch.isfinite(points)).any(dim=1).sum())
            if bad:
                raise ValueError(
                    f"{type(self).__name__}: {bad} of {len(points)} {which} rows of layer {name!r} are not "
                    "finite: the model has diverged, train it again"
                )
        return points.double()

    def _check_classes(self, classes: Tensor, rows: int, count: int) -> None:
        if classes.shape != (rows,) or (rows and not 0 <= int(classes.min()) <= int(classes.max()) < count):
            raise ValueError(
                f"{type(self).__name__}: {rows} rows need one class each in 0..{count - 1}, got {tuple(classes.shape)}"
            )


def layer_names(layers: Sequence[str]) -> tuple[str, ...]:
    """Check the option `layers`: at least one name, none twice; ValueError otherwise."""
    names = () if isinstance(layers, str) else tuple(layers)
    if not names or len(set(names)) < len(names) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"layers must be a list of different layer names, got {layers!r}")
    return names


def whole(name: str, value: int, least: int) -> int:
    """Check an option that counts something; ValueError below `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def positive(name: str, value: float) -> float:
    """Check an option that measures something; ValueError unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    return float(value)


def every_class(labels: Tensor, count: int, who: str) -> list[Tensor]:
    """Row numbers of each class, 0..count-1; ValueError where a class has none."""
    groups = [(labels == c).nonzero().flatten() for c in range(count)]
    empty = [c for c, rows in enumerate(groups) if not len(rows)]
    if empty:
        raise ValueError(
            f"{who}: no training images of class {few(empty)}: every class of the model needs training images"
        )
    return groups


def few(numbers: Sequence[int], most: int = 5) -> str:
    """Some numbers in words, the first ones where there are many: ``3, 4, 5, 6, 7 and 990 more``."""
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more
