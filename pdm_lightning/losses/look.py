"""One pass of a classifier over a batch, kept as far as a loss needs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pdm_lightning.losses.combined import CombinedLoss

if TYPE_CHECKING:
    from pdm_lightning.models import Classifier

Kept = dict[str, list[Tensor]]


@dataclass
class Sight:
    """What a classifier made of N images.

    Attributes
    ----------
    embeddings, logits
        (N, d) and raw (N, K).
    layers
        (N, d_l) each, feature maps averaged over their pixels: see :class:`pdm_lightning.losses.Outputs`.
    places
        Of each forward pass, what its logits were computed from, see there.
    """

    embeddings: Tensor
    logits: Tensor
    layers: dict[str, Tensor]
    places: dict[str, tuple[Tensor, ...]]

    def float(self) -> Sight:
        """The same in float32; the places stay, they are what gradients are taken at."""
        layers = {name: layer.float() for name, layer in self.layers.items()}
        return Sight(self.embeddings.float(), self.logits.float(), layers, self.places)


def look(
    classifier: Classifier,
    x: Tensor,
    taps: Sequence[str] = (),
    places: Sequence[str] = (),
    passes: int = 1,
) -> Sight:
    """Pass images through a classifier once.

    Parameters
    ----------
    classifier
        In the mode, and with the gradients, that the caller wants.
    x
        (N, C, H, W) in [0, 1]. Where "input" is a place and it is no leaf that requires gradients, a copy that does
        is looked at.
    taps, places
        As a :class:`pdm_lightning.losses.CombinedLoss` has them.
    passes
        Forward passes among which the images are divided evenly, in order.

    Raises
    ------
    ValueError
        If a layer is not there, does not run once a pass, or puts out no (N, ...) tensor.
    """
    modules = dict(classifier.named_modules())
    inner = {name: embedding_layer(classifier) if name == "embedding" else name for name in places}
    inner.pop("input", None)
    told = _unknown({*taps, *inner.values()}, modules)
    if told:
        raise ValueError(told)
    if "input" in places and not (x.requires_grad and x.is_leaf):
        x = x.detach().requires_grad_()
    classifier.locate(x)  # before the hooks: its passes are not looked at
    chunks = x.chunk(passes) if passes > 1 else (x,)
    with _kept(modules, taps, _pooled) as tapped, _kept(modules, set(inner.values()), _itself) as held:
        seen = [classifier.embed_and_raw(chunk) for chunk in chunks]
    z, raw = (torch.cat(parts) if passes > 1 else parts[0] for parts in zip(*seen, strict=True))
    _check_runs(tapped | held, [len(chunk) for chunk in chunks])
    layers = {name: torch.cat(parts) if passes > 1 else parts[0] for name, parts in tapped.items()}
    roots = {"input": (x,)} if "input" in places else {}
    return Sight(z, raw, layers, roots | {name: tuple(held[module]) for name, module in inner.items()})


def embedding_layer(classifier: nn.Module) -> str:
    """Name of the submodule whose output is the embedding; ValueError where it is no submodule's."""
    names = getattr(classifier, "tapped", ())
    if names:
        return str(names[0])
    if "backbone" not in dict(classifier.named_children()):
        raise ValueError(
            "layers: the embedding of this network is what goes into its head, where no gradient is taken: name the "
            "layer that puts it out, model.embedding=NAME"
        )
    return "backbone"


def unknown_layer(loss: CombinedLoss, modules: Collection[str]) -> str:
    """Say in a line which layer a loss names that is no submodule, given their names; "" where there is none."""
    return _unknown({*loss.taps, *loss.places} - {"input", "embedding"}, modules)


def check_layers(classifier: nn.Module, loss: CombinedLoss) -> None:
    """ValueError, in one line, where a loss names a layer that a classifier has not, or takes no gradient at."""
    told = unknown_layer(loss, dict(classifier.named_modules()))
    if told:
        raise ValueError(told)
    if "embedding" in loss.places:
        embedding_layer(classifier)


def _unknown(names: Collection[str], modules: Collection[str]) -> str:
    unknown = sorted(name for name in names if not name or name not in modules)
    if not unknown:
        return ""
    # the outermost ones are the stages that people mean
    some = sorted((name for name in modules if name), key=lambda name: name.count("."))[:12]
    return f"the classifier has no layer {unknown[0]!r}: choose e.g. {', '.join(('embedding', *some))}"


def _check_runs(kept: Kept, rows: list[int]) -> None:
    for name, parts in kept.items():
        if len(parts) != len(rows):
            raise ValueError(
                f"layer {name!r} ran {len(parts)} times in {len(rows)} passes: name one that runs once a pass"
            )
        if [len(part) for part in parts] != rows:
            raise ValueError(
                f"layer {name!r} puts out {len(parts[0])} rows of {rows[0]} images: name one with a row an image"
            )


@contextmanager
def _kept(
    modules: dict[str, nn.Module], names: Collection[str], keep: Callable[[Kept, str, Tensor], Tensor | None]
) -> Iterator[Kept]:
    """Have layers put out what `keep` makes of their outputs, if anything, as long as the context lasts."""
    kept: Kept = {name: [] for name in names}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        def look_at(_module: nn.Module, _inputs: Any, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor) or output.dim() < 2:
                raise ValueError(f"layer {name!r} puts out no (N, ...) tensor: name one that does")
            return keep(kept, name, output)

        return look_at

    handles = [modules[name].register_forward_hook(hook(name)) for name in kept]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _pooled(kept: Kept, name: str, output: Tensor) -> None:
    # a copy of rows, too: what follows may change them in place
    kept[name].append(output.flatten(2).mean(dim=2) if output.dim() > 2 else output.clone())


def _itself(kept: Kept, name: str, output: Tensor) -> Tensor:
    if not output.requires_grad:  # nothing before it is trained
        output = output.detach().requires_grad_()
    # what follows gets a copy: a change in place would leave the gradient at another place than was named
    kept[name].append(output)
    return output.clone()
