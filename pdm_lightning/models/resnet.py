"""The 6n+2 residual networks of He et al. for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class _Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut: subsample, and pad with zero channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, leak: float) -> None:
        super().__init__()
        self.stride = stride
        self.extra = out_channels - in_channels
        self.conv1 = _conv(in_channels, out_channels, stride)
        self.conv2 = _conv(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        # in place: the input is always the fresh output of a batch norm or of an addition
        self.act = nn.LeakyReLU(leak, inplace=True)

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            # x[:, :, ::stride, ::stride], whose gradient would come back in another layout than the convolutions'
            x = F.avg_pool2d(x, 1, self.stride)
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return x


class PostActivationBlock(_Block):
    """conv - BN - act - conv - BN, plus shortcut, act (He et al. 2015)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, leak: float) -> None:
        super().__init__(in_channels, out_channels, stride, leak)
        self.bn1 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, ceil(H/stride), ceil(W/stride))."""
        out: Tensor = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(out)) + self.shortcut(x))


class PreActivationBlock(_Block):
    """BN - act - conv - BN - act - conv, plus shortcut (He et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, leak: float) -> None:
        super().__init__(in_channels, out_channels, stride, leak)
        self.bn1 = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, ceil(H/stride), ceil(W/stride))."""
        out: Tensor = self.conv1(self.act(self.bn1(x)))
        return self.conv2(self.act(self.bn2(out))) + self.shortcut(x)


class ResNet(nn.Module):
    """Residual network of depth 6n+2: stem, three stages of n blocks, global average pool to an embedding.

    Depth 56 with 3 channels and a linear head for 10 classes has 853,018 parameters, post- or pre-activation.

    Parameters
    ----------
    depth
        6n+2: 8, 14, 20, 32, 44, 56, 110.
    in_channels
        Channels of the images.
    widths
        Channels of the three stages; the last is the embedding's dimension.
    preact
        Pre-activation blocks (He et al. 2016) in place of post-activation ones.
    leak
        Negative slope of LeakyReLU.

    Raises
    ------
    ValueError
        If `depth` is not 6n+2 with n >= 1, or `widths` are not three positive, non-decreasing numbers.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        widths: Sequence[int] = (16, 32, 64),
        preact: bool = False,
        leak: float = 0.1,
    ) -> None:
        super().__init__()
        n, rest = divmod(depth - 2, 6)
        if n < 1 or rest:
            raise ValueError(f"depth {depth} is not 6n+2: choose 8, 14, 20, 32, 44, 56 or 110")
        if len(widths) != 3 or widths[0] < 1 or list(widths) != sorted(widths):
            raise ValueError(
                f"widths {list(widths)} are not three growing positive numbers: use [16, 32, 64]"
            )
        self.depth, self.in_channels, self.embedding_dim = depth, in_channels, widths[2]
        norm_act = [] if preact else [nn.BatchNorm2d(widths[0]), nn.LeakyReLU(leak, inplace=True)]
        self.stem = nn.Sequential(_conv(in_channels, widths[0]), *norm_act)
        block = PreActivationBlock if preact else PostActivationBlock
        self.stage1 = _stage(block, widths[0], widths[0], n, 1, leak)
        self.stage2 = _stage(block, widths[0], widths[1], n, 2, leak)
        self.stage3 = _stage(block, widths[1], widths[2], n, 2, leak)
        # post-activation blocks end in an activation, pre-activation blocks in an addition
        last = [nn.BatchNorm2d(widths[2]), nn.LeakyReLU(leak, inplace=True)] if preact else []
        self.final = nn.Sequential(*last)
        self._init(leak)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, for ``get_submodule`` and forward hooks."""
        return ("stem", "stage1", "stage2", "stage3")

    def forward(self, x: Tensor) -> Tensor:
        """Embed centred images (N, C, H, W), H and W >= 8, as (N, embedding_dim).

        Raises
        ------
        ValueError
            If the channels differ from `in_channels` or the images are smaller than 8x8.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < 8:
            raise ValueError(
                f"images of shape {tuple(x.shape)} do not fit: give (N, {self.in_channels}, H, W), H, W >= 8"
            )
        out = self.final(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return out.mean(dim=(2, 3))

    def _init(self, leak: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=leak, mode="fan_out", nonlinearity="leaky_relu")


def _stage(
    block: type[PostActivationBlock] | type[PreActivationBlock],
    in_channels: int,
    out_channels: int,
    n: int,
    stride: int,
    leak: float,
) -> nn.Sequential:
    first = block(in_channels, out_channels, stride, leak)
    return nn.Sequential(first, *(block(out_channels, out_channels, 1, leak) for _ in range(n - 1)))
