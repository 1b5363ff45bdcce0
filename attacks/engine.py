"""The gradient engine: a classifier made ready for attack, as fast as its graph and the machine allow."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks.checks import check_count
from attacks.folding import fold
from attacks.target import frozen

# how far the logits of a prepared copy may lie from the original's: so much or, for large ones, that share of them
TOLERANCE, ROUNDING = 1e-4, 2e-6
# adversarial images may lie further apart than the clean ones on which the difference is measured
SAFETY = 4
# measured passes of each candidate, of which the fastest counts, and the gain below which the simpler one is kept
ROUNDS, GAIN = 3, 0.03
# candidates that were so many times slower than the best are not measured again
HOPELESS = 1.15
SIZES = {"cpu": (16, 32, 64, 128), "cuda": (64, 256, 1024)}


@dataclass(frozen=True)
class Setup:
    """How gradient passes are run; nothing of it changes what an attack finds, beyond rounding.

    Parameters
    ----------
    fold : bool
        Batch norms folded into the layers before them.
    channels_last : bool
        Convolutions in channels-last layout.
    micro_batch : int or None
        Images whose forward and backward pass run together; None: all that an attack has in hand.
    cuda_graph : bool
        Replay a recorded CUDA graph (a GPU alone, and only with a `micro_batch`).
    """

    fold: bool = True
    channels_last: bool = False
    micro_batch: int | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.micro_batch is not None:
            check_count(self.micro_batch, "micro_batch")
        elif self.cuda_graph:
            raise ValueError("a CUDA graph has one shape: give a micro_batch with cuda_graph=True")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A target for attacks: gradients from a prepared copy, the verdict from the original.

    Attributes
    ----------
    module : nn.Module
        The prepared copy: frozen, in eval mode.
    exact : object
        The original; labels, success and predictions in an `AttackResult` are its own.
    setup : Setup
        How the copy was prepared.
    slack : float
        By how much a margin of two logits may differ from the original's.
    """

    module: nn.Module
    exact: Any
    setup: Setup
    slack: float = 0.0

    @property
    def micro_batch(self) -> int | None:
        """Images whose forward and backward pass run together."""
        return self.setup.micro_batch

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (n, K) of images (n, C, H, W), differentiable."""
        out: Tensor = self.module(x)
        return out


def prepare(
    model: nn.Module, example: Tensor | None = None, setup: Setup | None = None, *, keep: Collection[str] = ()
) -> Prepared:
    """Make a classifier ready for attack; it is not changed.

    Parameters
    ----------
    model : nn.Module
        Images to readout logits; in whatever mode, it is attacked in eval mode.
    example : Tensor, optional
        (n, C, H, W) images on the model's device: the copy's logits are held against the original's on them, and
        without a `setup` the fastest one is measured.
    setup : Setup, optional
        Default: measured where there is an `example`, else ``Setup()``.
    keep : collection of str
        Layers whose own output somebody looks at; see `fold`.

    Returns
    -------
    Prepared

    Warns
    -----
    RuntimeWarning
        The network cannot be folded, or its copy's logits differ by more than 1e-4: the batch norms stay. Without an
        `example` nothing is compared.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    >>> x = torch.rand(5, 1, 3, 3)
    >>> from attacks import FGSM
    >>> result = FGSM(eps=0.1)(prepare(net, x), x)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"prepare() needs an nn.Module, not {type(model).__name__}")
    if example is not None and not len(example):
        example = None
    if setup is None:
        setup = Setup() if example is None else fastest(model, example, keep=keep)[0]
    if setup.cuda_graph and example is None:
        raise ValueError("a CUDA graph is recorded on images: give prepare() an example")
    ready, slack, why = _arrange(model, setup, keep), 2 * TOLERANCE if setup.fold else 0.0, ""
    if setup.fold and ready is None:
        why = "this network's batch norms cannot be folded"
    elif setup.fold and ready is not None and example is not None:
        apart, limit = _difference(model, ready, example)
        slack = SAFETY * 2 * apart
        why = "" if apart <= limit else f"folding batch norms changes the logits by {apart:.1g}"
    if why:
        warnings.warn(f"{why}: they stay", RuntimeWarning, stacklevel=2)
        setup, slack = replace(setup, fold=False), 0.0
        ready = _arrange(model, setup, keep)
    if ready is None:  # cannot even be copied
        ready = model
    if setup.cuda_graph and example is not None:
        ready = _Graphed(ready, example, setup.micro_batch or len(example))
    return Prepared(ready, model, setup, slack)


def fastest(
    model: nn.Module,
    example: Tensor,
    candidates: Iterable[Setup] | None = None,
    *,
    keep: Collection[str] = (),
) -> tuple[Setup, float]:
    """Measure gradient passes, candidate after candidate in turns, and find the fastest setup.

    Parameters
    ----------
    model : nn.Module
    example : Tensor
        (n, C, H, W) as many images as an attack will have in hand.
    candidates : iterable of Setup, optional
        From the simplest to the most special; default: layouts and micro-batches that fit the device. A later one
        wins only where it is faster by 3 %.
    keep : collection of str
        See `fold`.

    Returns
    -------
    setup : Setup
    seconds : float
        Of a gradient pass of one image.
    """
    tried = list(setups(example) if candidates is None else candidates)
    ready = [prepare(model, example if s.cuda_graph else None, s, keep=keep) for s in tried]
    times = [math.inf] * len(tried)
    with torch.enable_grad():
        for _ in range(ROUNDS + 1):  # the first warms up, and may count: it is never the fastest
            for i, target in enumerate(ready):
                if times[i] <= HOPELESS * min(times) or times[i] == math.inf:
                    times[i] = min(times[i], pass_seconds(target, example))
    best = 0
    for i, seconds in enumerate(times):
        if seconds < (1 - GAIN) * times[best]:
            best = i
    return tried[best], times[best] / len(example)


def setups(example: Tensor, *, fold: bool = True) -> list[Setup]:
    """Candidates for images (n, C, H, W) on their device, the simplest first."""
    kind = "cuda" if example.is_cuda else "cpu"
    sizes = [None, *(size for size in SIZES[kind] if size < len(example))]
    found = [Setup(fold, layout, size) for layout in (False, True) for size in sizes]
    if example.is_cuda:
        whole = sorted({*(size for size in sizes if size), len(example)})
        found += [Setup(fold, layout, size, True) for layout in (False, True) for size in whole]
    return found


def pass_seconds(target: Prepared, x: Tensor) -> float:
    """Seconds of one gradient pass of all images (n, C, H, W), in the target's micro-batches."""
    started = time.perf_counter()
    total = x.new_zeros(())
    for part in x.split(target.micro_batch or len(x)):
        leaf = part.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target.logits(leaf).logsumexp(dim=1).sum(), leaf)
        total = total + gradient.sum()
    total.item()  # waits for the device
    return time.perf_counter() - started


def _arrange(model: nn.Module, setup: Setup, keep: Collection[str]) -> nn.Module | None:
    """A frozen copy in eval mode, folded and laid out; None where the network does not allow it."""
    try:
        with frozen(model):
            plain = copy.deepcopy(model)
        plain = plain.eval().requires_grad_(False)
        ready = fold(plain, keep) if setup.fold else plain
    except Exception:  # whatever a network's own layers raise
        return None
    # the layout of the weights decides: a convolution brings its input into it
    return ready.to(memory_format=torch.channels_last) if setup.channels_last else ready


def _difference(model: nn.Module, ready: nn.Module, example: Tensor) -> tuple[float, float]:
    """Largest difference of a network's and its copy's logits, and how large it may be."""
    with torch.no_grad(), frozen(model):
        expected = model(example)
        try:
            found = ready(example)
        except Exception:  # a forward that asks for what was folded away
            return math.inf, 0.0
    finite = expected.isfinite().all(dim=1)  # an image that the network itself fails on tells nothing
    if not finite.any():
        return 0.0, TOLERANCE
    apart = float((found - expected)[finite].abs().max())
    limit = max(TOLERANCE, ROUNDING * float(expected[finite].abs().max()))
    return (apart if math.isfinite(apart) else math.inf), limit


class _Graphed(nn.Module):
    """A module whose passes over one number of images are recorded once and replayed; fewer are filled up."""

    def __init__(self, module: nn.Module, example: Tensor, size: int) -> None:
        super().__init__()
        self.module, self.size = module, size
        sample = example[:1].expand(size, *example.shape[1:]).clone().requires_grad_()
        with frozen(module):
            self.replay: Any = torch.cuda.make_graphed_callables(copy.deepcopy(module), (sample,))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to logits (n, K); more images than recorded, or no gradient: without the graph."""
        count = len(x)
        if count > self.size or not x.requires_grad:
            return self.module(x)  # type: ignore[no-any-return]
        # what a replay returns is overwritten by the next: copies go in and out, for the gradient too
        filled = torch.cat([x, x[-1:].detach().expand(self.size - count, *x.shape[1:])]) * 1.0
        return self.replay(filled)[:count].clone()  # type: ignore[no-any-return]
