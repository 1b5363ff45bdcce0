"""The classifier: centre, embed, head, readout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pdm_lightning.models.wrapped import WrappedClassifier


class Classifier(nn.Module):
    """A backbone with a linear head that takes images in [0, 1] and gives readout logits.

    Reverse cross-entropy trains the smallest raw logit onto the true class: with ``readout="reverse"`` the
    readout logits are -o. Everything outside training sees the readout alone.

    Parameters
    ----------
    backbone
        Maps centred images (N, C, H, W) to embeddings (N, d).
    embedding_dim
        d.
    num_classes
        K, at least 2.
    readout
        "direct" (o) or "reverse" (-o).
    mean, std
        Centring and scale of the pixels, one number or one a channel: the backbone sees (x - mean) / std.

    Raises
    ------
    ValueError
        If `readout` is unknown, K < 2, a mean is not finite, or a std not positive and finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        embedding_dim: int,
        num_classes: int,
        readout: str = "direct",
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
    ) -> None:
        super().__init__()
        self._setup(num_classes, readout, mean, std)
        self.backbone = backbone
        self.head = nn.Linear(embedding_dim, num_classes)
        # He's variance for a layer without an activation after it; small biases would only add noise
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")
        nn.init.zeros_(self.head.bias)

    def _setup(
        self, num_classes: int, readout: str, mean: float | Sequence[float], std: float | Sequence[float]
    ) -> None:
        if readout not in ("direct", "reverse"):
            raise ValueError(f"readout {readout!r} is unknown: choose direct or reverse")
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {num_classes}: use other data")
        try:
            shift, scale = (torch.as_tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in (mean, std))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"mean {mean!r}, std {std!r}: give numbers, one each or one a channel"
            ) from error
        if not bool(torch.isfinite(shift).all()):
            raise ValueError(f"mean {mean} is not finite: give the centre of the pixels")
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise ValueError(f"std {std} is not positive and finite: give the scale of the pixels")
        self.num_classes, self.readout = num_classes, readout
        # not in the state: they belong to the config, and a weights file stays weights
        self.register_buffer("mean", shift, persistent=False)
        self.register_buffer("std", scale, persistent=False)

    @staticmethod
    def wrap(
        module: nn.Module,
        embedding: str | None = None,
        num_classes: int | None = None,
        readout: str = "direct",
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> WrappedClassifier:
        """Make a classifier of any network.

        Parameters
        ----------
        module
            Maps images (N, C, H, W) to logits (N, K), or to an object with ``logits`` (a Hugging Face image model), in
            float32 or float64. Of probabilities the logits are taken that a softmax made them of, or their logarithm.
            It is used, not copied; several threads may pass images through at a time.
        embedding
            Name of a layer as in ``module.named_modules()``, e.g. "avgpool"; its output is flattened. None: the input
            of the last linear layer (or convolution of one pixel) that runs and leads to the logits, found on the
            first pass; the mean over positions, where the layer looks at several and the logits are their mean.
        num_classes
            K. None: the outputs of the linear layer that was registered last.
        readout
            Of the network's output: "direct", or "reverse" for one that was trained with reverse cross-entropy.
        mean, std
            Centring and scale of the pixels in front of the network, one number or one a channel; none by default.

        Raises
        ------
        ValueError
            If there is no such layer, no linear one, or the network is TorchScript, quantised, or of float16 or
            bfloat16. On the first pass: if the embedding is not found, or K is another.

        Examples
        --------
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> z, logits = Classifier.wrap(net).embed_and_logits(torch.rand(5, 1, 8, 8))
        >>> z.shape, logits.shape
        (torch.Size([5, 8]), torch.Size([5, 3]))
        """
        from pdm_lightning.models.wrapped import WrappedClassifier

        return WrappedClassifier(module, embedding, num_classes, readout, mean, std)

    @property
    def tapped(self) -> tuple[str, ...]:
        """Names of the layers whose own output is looked at, and that a faster copy has to keep."""
        return ()

    @property
    def speaks(self) -> str:
        """The readout of what the weights alone put out: "direct" or "reverse"."""
        return self.readout

    def centre(self, x: Tensor) -> Tensor:
        """Scale images (N, C, H, W) in [0, 1] to what the backbone sees.

        Raises
        ------
        ValueError
            If mean or std are of another number of channels.
        """
        for value in (self.mean, self.std):
            if len(value) not in (1, x.shape[1]):
                raise ValueError(
                    f"mean and std have {len(value)} channels, the images {x.shape[1]}: give one number, or one a "
                    "channel"
                )
        return (x - self.mean) / self.std

    def locate(self, x: Tensor) -> None:
        """Find out beforehand what the first pass of images (N, C, H, W) would have to; here nothing."""

    def embed_and_raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give embeddings (N, d) and raw logits o (N, K): what the loss terms are made of."""
        z = self.backbone(self.centre(x))
        return z, self.head(z)

    def read(self, raw: Tensor) -> Tensor:
        """Turn raw logits into readout logits: o, or -o for a reverse readout."""
        return -raw if self.readout == "reverse" else raw

    def embed_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give embeddings (N, d) and readout logits (N, K)."""
        z, raw = self.embed_and_raw(x)
        return z, self.read(raw)

    def forward(self, x: Tensor) -> Tensor:
        """Give the readout logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.embed_and_logits(x)[1]

    def predict(self, x: Tensor) -> Tensor:
        """Give the predicted classes (N,) int64: argmax of the readout logits."""
        return self(x).argmax(dim=1)
