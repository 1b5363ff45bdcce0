"""Weights that a training starts from: read from a file without running any of it, and fitted into a network."""

from __future__ import annotations

import hashlib
import logging
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pdm_lightning.models.classifier import Classifier
from pdm_lightning.models.wrapped import WrappedClassifier

log = logging.getLogger(__name__)

State = dict[str, Tensor]

#: Where checkpoints keep the weights among other things.
_INSIDE = ("state_dict", "model_state_dict", "model", "network", "net")
_SAVED = "save the weights alone, with torch.save(net.state_dict(), ...)"
_MORE = f"holds other things than weights, and no code of a file is run: {_SAVED}"


def digest(path: str | Path) -> str:
    """Hash a file's content: "sha256:" and 64 hexadecimal digits.

    Raises
    ------
    ValueError
        If there is no such file, or it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with Path(path).expanduser().open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise ValueError(
            f"model.weights={path}: {error.strerror or error}: name a file of weights, DEFAULT or null"
        ) from error
    return f"sha256:{found.hexdigest()}"


def read(path: str | Path) -> tuple[State, str]:
    """Read weights from a safetensors file, or a checkpoint of PyTorch's (``weights_only``: no code of it runs).

    Returns
    -------
    state : dict of str to Tensor
    readout : {"direct", "reverse"}
        Of the network that these are the weights of; "direct" where the file does not say.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                told = (file.metadata() or {}).get("readout", "direct")
                if told not in ("direct", "reverse"):
                    raise _NoWeightsError("names a readout that is neither direct nor reverse")
                return {name: file.get_tensor(name) for name in file.keys()}, told  # noqa: SIM118
        _check_checkpoint(path)
        with warnings.catch_warnings():  # what is odd about a file is an error or nothing
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
        return _tensors(held), "direct"
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} {_MORE}") from error
    except _NoWeightsError as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # whatever a damaged file makes torch's reader raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as weights ({reason}): name a .safetensors or .pt file"
        ) from error


class _NoWeightsError(ValueError):
    """What is wrong with a checkpoint, to be told after its path."""


def _check_checkpoint(path: Path) -> None:
    """Refuse what `torch.load` would take more memory for than the file has bytes, and programs."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # of before PyTorch 1.6: storages as they are
            pickles = path.read_bytes()
        else:
            archive = zipfile.ZipFile(file)
            entries = archive.infolist()
            # torch.save compresses nothing, and no entry lies within another
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise _NoWeightsError(
                    "is compressed, which no file of torch.save is, and might become of any size"
                )
            if any(entry.filename.endswith("constants.pkl") for entry in entries):
                raise _NoWeightsError(
                    "holds a TorchScript program, and no code of a file is run: save the weights alone, with "
                    "torch.save(program.state_dict(), ...)"
                )
            pickles = b"".join(archive.read(entry) for entry in entries if entry.filename.endswith(".pkl"))
    if b"bytearray" in pickles:  # the one type of any size that weights_only makes out of a number
        raise _NoWeightsError(_MORE)


def _tensors(held: Any) -> State:
    for key in _INSIDE:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise _NoWeightsError(f"holds no table of weights{_instead(held)}")
    for name, value in held.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise _NoWeightsError(f"holds no plain numbers in {str(name)!r}: {_SAVED}")
    return {str(key): value for key, value in held.items()}


def _instead(held: Any) -> str:
    """Where the weights may be in what is no table of weights, and how to save them."""
    parts = held.items() if isinstance(held, Mapping) else ()
    tables = [key for key, part in parts if isinstance(part, Mapping) and _has_tensors(part.values())]
    if tables:
        some = " or ".join(repr(str(key))[:60] for key in tables[:3])
        return f", but one under {some}: save that alone, as torch.save(checkpoint[{str(tables[0])[:60]!r}], ...)"
    if _has_tensors(part for _, part in parts):
        other = next(str(key) for key, part in parts if not isinstance(part, Tensor))
        return f", for {other[:60]!r} in it is no tensor: save the weights alone, without it"
    return ": torch.save(net.state_dict(), ...) makes one"


def _has_tensors(values: Iterable[Any]) -> bool:
    return any(isinstance(value, Tensor) for value in values)


def load(
    classifier: Classifier, state: Mapping[str, Tensor], readout: str = "direct", *, fresh: bool = True
) -> None:
    """Put weights into a classifier, whose predictions are then those of the network that they come from.

    Keys may have a prefix (``module.``, ``model.``, ``net.``), which is found. A head of another number of classes
    keeps its fresh weights, and a warning says so. A head that was trained for the other readout changes its sign.

    Parameters
    ----------
    classifier
        Changed in place.
    state
        By name; those of a wrapped network are its own names.
    readout
        Of the network that these are the weights of.
    fresh
        Whether a head may stay fresh.

    Raises
    ------
    ValueError
        In one line, with the first names that do not fit.
    """
    target: nn.Module = classifier.module if isinstance(classifier, WrappedClassifier) else classifier
    own = target.state_dict()
    found, heads = fitted(own, state, classifier.num_classes)
    if heads and not fresh:
        raise ValueError(
            f"model.weights: {heads[0]} has {len(found[heads[0]])} classes, the data {classifier.num_classes}, and "
            "without a training a fresh head stays as it is: use weights of these classes, or a defence that trains"
        )
    if heads:
        log.warning(
            "model.weights: %s has %d classes, the data %d: it starts fresh",
            heads[0].rpartition(".")[0],
            len(found[heads[0]]),
            classifier.num_classes,
        )
    target.load_state_dict(
        versioned(target, own | {name: value for name, value in found.items() if name not in heads})
    )
    if not heads and readout != classifier.speaks:
        _turn(classifier)


def versioned(module: nn.Module, state: Mapping[str, Tensor]) -> State:
    """The weights with the versions of a module's layers, which a file has no place for and MNASNet asks for."""
    found = OrderedDict(state)
    found._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    return found


@torch.no_grad()
def _turn(classifier: Classifier) -> None:
    """Change the sign of the logits: a readout of the other kind gives the same again."""
    if isinstance(classifier, WrappedClassifier):
        raise ValueError(
            f"model.weights are not of a {classifier.speaks} readout, as the network is: use others"
        )
    classifier.head.weight.neg_()
    classifier.head.bias.neg_()


def fitted(own: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int) -> tuple[State, list[str]]:
    """Weights by the names of a network, and the names of those that are of a head of another number of classes.

    Raises
    ------
    ValueError
        If names or shapes do not fit.
    """
    prefix = _prefix(own, state)
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    missing, unknown = (
        {
            name for name in one if name not in other and not name.endswith("num_batches_tracked")
        }  # old ones lack it
        for one, other in ((own, found), (found, own))
    )
    if missing or unknown:
        both = {"missing": missing, "unknown": unknown}
        parts = [f"{len(names)} {what} ({_some(names)})" for what, names in both.items() if names]
        raise ValueError(f"model.weights do not fit the network: {' and '.join(parts)}: is it another arch?")
    apart = [name for name in own if name in found and found[name].shape != own[name].shape]
    heads = [name for name in apart if _is_head(own[name], found[name], classes)]
    wrong = [name for name in apart if name not in heads]
    if wrong:
        shapes = f"{tuple(found[wrong[0]].shape)} for {tuple(own[wrong[0]].shape)}"
        raise ValueError(
            f"model.weights do not fit the network: {len(wrong)} of another shape ({_some(wrong)}: {shapes}): "
            "is it another arch, or are the images of other channels or another size?"
        )
    return {name: value for name, value in found.items() if name in own}, heads


def _is_head(own: Tensor, found: Tensor, classes: int) -> bool:
    return own.dim() == found.dim() > 0 and len(own) == classes and own.shape[1:] == found.shape[1:]


def _prefix(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What stands before the network's own names in most of a checkpoint's."""
    shared: dict[str, int] = {}
    for name in state:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                prefix = "".join(f"{part}." for part in parts[:start])
                shared[prefix] = shared.get(prefix, 0) + 1
    return max(shared, key=lambda prefix: (shared[prefix], -len(prefix)), default="")


def _some(names: Sequence[str] | set[str]) -> str:
    first = sorted(names)[:3] if isinstance(names, set) else list(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")


def as_metadata(classifier: Classifier) -> dict[str, str]:
    """What a file of a classifier's weights says besides: the readout of the network alone."""
    return {"readout": classifier.speaks}
