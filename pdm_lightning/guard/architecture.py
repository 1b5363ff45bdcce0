"""How a classifier is built, by name, out of three closed lists: this project's ResNet, torchvision's, timm's.

A file can name an entry of these lists and nothing else: what it says is looked up, never imported.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pdm_lightning.errors import nearest
from pdm_lightning.guard.checks import (
    Check,
    GuardFileError,
    flag,
    listing,
    number,
    one_of,
    record,
    text,
    whole,
)
from pdm_lightning.guard.preprocessing import MAX_SIDE
from pdm_lightning.models import Classifier, ResNet, WrappedClassifier
from pdm_lightning.models.resnet import PreActivationBlock

SOURCES = ("resnet", "torchvision", "timm", "own")
MAX_CLASSES = 100_000
_CLASSES = whole(2, MAX_CLASSES)
_GIVEN: dict[str, tuple[Check, Any]] = {
    "transform_input": (flag, False),
    "aux_logits": (flag, True),
    "image_size": (whole(1, MAX_SIDE), 224),
}
"""What torchvision gives some networks along with its own weights, and what they are without: told where it differs."""


def _of_torchvision(value: Any, where: str) -> dict[str, Any]:
    there = value if isinstance(value, Mapping) else {}
    given = {name: check for name, (check, _) in _GIVEN.items() if name in there}
    return record(num_classes=_CLASSES, **given)(value, where)  # type: ignore[no-any-return]


_ARGUMENTS: dict[str, Check] = {
    "resnet": record(
        depth=whole(8, 1202),
        in_channels=whole(1, 4),
        widths=listing(whole(1, 4096), 3, 3),
        preact=flag,
        leak=number(0, 1),
    ),
    "torchvision": _of_torchvision,
    "timm": record(num_classes=_CLASSES, in_chans=whole(1, 4)),
    "own": record(),
}
_NETWORK = record(source=one_of(SOURCES), name=text(), arguments=lambda value, where: value)


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Parameters
    ----------
    source : str
        "resnet" (this project's), "torchvision", "timm", or "own": a network of the user's, which has to be handed
        over again when a guard is loaded.
    name : str
        As the library lists it: "resnet18". Free for "resnet" and "own".
    arguments : mapping
        resnet: depth, in_channels, widths, preact, leak. torchvision: num_classes and, where they are
        not as the library builds the network without weights, transform_input, aux_logits, image_size. timm:
        num_classes, in_chans. own: none.

    Raises
    ------
    GuardFileError
        For a source or name that is in no list, or other arguments.
    """

    source: str
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = _NETWORK(
            {"source": self.source, "name": self.name, "arguments": dict(self.arguments)}, "architecture"
        )
        _ARGUMENTS[self.source](told["arguments"], "architecture.arguments")
        if self.source in ("torchvision", "timm"):
            known = names(self.source)
            if self.name not in known:
                raise GuardFileError(
                    f"architecture: {self.source} lists no {self.name!r}{nearest(self.name, known)}"
                )

    @classmethod
    def named(cls, word: str, classes: int, channels: int, network: nn.Module | None = None) -> Architecture:
        """Of ``torchvision/resnet18`` or ``timm/vit_tiny_patch16_224``, for so many classes and channels.

        Where the network is there already, what its library has given it beside its weights is read off it.
        """
        source, _, name = word.partition("/")
        if source not in ("torchvision", "timm"):
            raise GuardFileError(f"architecture {word!r}: write torchvision/NAME or timm/NAME")
        if source == "timm":
            return cls(source, name, {"num_classes": classes, "in_chans": channels})
        more = {key: getattr(network, key, usual) for key, (_, usual) in _GIVEN.items()}
        more = {key: value for key, value in more.items() if value != _GIVEN[key][1]}
        return cls(source, name, {"num_classes": classes, **more})

    def build(self) -> nn.Module:
        """Make the network, its weights random; `GuardFileError` for "own" and where the library refuses."""
        if self.source == "own":
            raise GuardFileError(
                "the classifier is a network of the user's own: hand it over, Guard.load(path, model=network), or "
                "--import my_package:make"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of defaults that will change
                if self.source == "resnet":
                    return ResNet(**self.arguments)
                if self.source == "torchvision":
                    return _torchvision().get_model(self.name, weights=None, **self.arguments)  # type: ignore[no-any-return]
                return _timm().create_model(self.name, pretrained=False, **self.arguments)  # type: ignore[no-any-return]
        except (TypeError, ValueError, AssertionError) as error:
            raise GuardFileError(
                f"architecture {self.source}/{self.name} cannot be built: {error}"
            ) from error

    def on_meta(self) -> nn.Module | None:
        """Make the network without any memory for weights; None where it cannot be made so."""
        try:
            with torch.device("meta"):
                return self.build()
        except (NotImplementedError, RuntimeError):  # something asks for a value while it is built
            return None

    def check(self, network: nn.Module) -> None:
        """Raise `GuardFileError` unless a reader of a file, who has only this, will build such a network."""
        if not _alike(self.on_meta() or self.build(), network):
            raise GuardFileError(
                f"architecture {self.source}/{self.name} does not rebuild this network, so that no file of it could be "
                "read: take it for a network of your own (--import, or architecture='own')"
            )

    def to_json(self) -> dict[str, Any]:
        """Give source, name and arguments as JSON holds them."""
        return {"source": self.source, "name": self.name, "arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Architecture:
        """Take over what `to_json` gives; `GuardFileError` for anything else."""
        told = _NETWORK(value, where)
        if not isinstance(told["arguments"], dict):
            raise GuardFileError(f"{where}.arguments: an object needed")
        return cls(**told)


def names(source: str) -> list[str]:
    """Names of the classifiers that torchvision or timm lists; `GuardFileError` where timm is not installed."""
    if source == "torchvision":
        return list(_torchvision().list_models(module=_torchvision()))
    return list(_timm().list_models())


def _torchvision() -> Any:
    import torchvision.models

    return torchvision.models


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise GuardFileError(
            "this classifier is one of timm's, which is not installed: pip install timm"
        ) from None
    return timm


def recognise(classifier: Classifier, channels: int) -> Architecture:
    """Find the entry of the lists that a classifier's network is; "own" where it is none.

    Parameters
    ----------
    classifier : Classifier
    channels : int
        Of its images.
    """
    network = network_of(classifier)
    if type(network) is ResNet:
        return Architecture("resnet", f"resnet{network.depth}", _resnet_arguments(network))
    library = type(network).__module__.partition(".")[0]
    if library == "timm":
        name = (getattr(network, "pretrained_cfg", None) or {}).get("architecture", "")
        candidates: Iterable[str] = [name] if name in names("timm") else []
    elif library == "torchvision":
        builders = {name: _torchvision().get_model_builder(name).__module__ for name in names("torchvision")}
        candidates = [name for name, module in builders.items() if module == type(network).__module__]
    else:
        candidates = []
    for name in candidates:
        found = Architecture.named(f"{library}/{name}", classifier.num_classes, channels, network)
        twin = found.on_meta()
        if twin is not None and _alike(twin, network):
            return found
    return Architecture("own", type(network).__name__[:200])


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same layers and tensors; a part that was taken out leaves None, or nothing."""
    first, second = (re.sub(r"\n *\(\w+\): None(?=\n)", "", repr(network)) for network in (one, other))
    return first == second and shapes(one) == shapes(other)


def network_of(classifier: Classifier) -> nn.Module:
    """The network inside: the backbone, or the module that was wrapped."""
    inner = classifier.module if isinstance(classifier, WrappedClassifier) else classifier.backbone
    assert isinstance(inner, nn.Module)
    return inner


def shapes(module: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor of a module's state."""
    return {name: (tuple(value.shape), value.dtype) for name, value in module.state_dict().items()}


def _resnet_arguments(network: ResNet) -> dict[str, Any]:
    first = {stage: getattr(network, stage)[0] for stage in ("stage1", "stage2", "stage3")}
    widths: list[Tensor] = [block.conv2.weight for block in first.values()]
    return {
        "depth": network.depth,
        "in_channels": network.in_channels,
        "widths": [len(weight) for weight in widths],
        "preact": isinstance(first["stage1"], PreActivationBlock),
        "leak": float(first["stage1"].act.negative_slope),
    }
