"""Image squeezers (Xu et al. 2018): fewer bits, the median of a window, non-local means."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

AT_ONCE = 2**22
"""Numbers of windows that are sorted at a time: 16 MiB, and twice that for their order."""


def reduce_bits(x: Tensor, bits: int) -> Tensor:
    """Round pixels in [0, 1] to 2^bits levels: round(x (2^b - 1)) / (2^b - 1), halves to the even level."""
    levels = 2**bits - 1
    return (x * levels).round() / levels


def mirror(x: Tensor, before: int, after: int) -> Tensor:
    """Continue images (N, C, H, W) beyond their edges by their mirror image, edge pixels doubled."""
    for dim in (2, 3):
        size = x.shape[dim]
        # period 2 size, rising and falling: right for borders wider than the image, too
        place = torch.arange(-before, size + after, device=x.device) % (2 * size)
        x = x.index_select(dim, torch.minimum(place, 2 * size - 1 - place))
    return x


def median(x: Tensor, window: int) -> Tensor:
    """Median of a square window around each pixel of (N, C, H, W), channel by channel.

    In an even window the pixel stands right and below of the middle, and the upper of the two middle values counts:
    as in `scipy.ndimage.median_filter`, which the paper's code calls.
    """
    wide = mirror(x, window // 2, window - 1 - window // 2)
    rows = max(1, AT_ONCE // max(1, x[:, :, 0].numel() * window**2))
    found = []
    for top in range(0, x.shape[2], rows):
        strip = wide[:, :, top : top + rows + window - 1]
        windows = strip.unfold(2, window, 1).unfold(3, window, 1).flatten(4)
        found.append(windows.sort(dim=4).values[..., window * window // 2])
    return torch.cat(found, dim=2)


def non_local_means(x: Tensor, search: int, patch: int, strength: float) -> Tensor:
    """Average of the pixels of a search window, weighted by how alike their surroundings are.

    w = exp(-d / h^2), d the mean squared difference of two patches over pixels and channels

    Buades, Coll & Morel (2005) as in OpenCV's ``fastNlMeansDenoising``, but in float and on RGB as it is; the
    paper's ``fastNlMeansDenoisingColored`` splits lightness and colour first.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) in [0, 1].
    search, patch : int
        Odd sides of the windows, in pixels.
    strength : float
        h > 0 in levels of 256.

    Returns
    -------
    Tensor
        (N, C, H, W).
    """
    reach, half, scale = search // 2, patch // 2, (strength / 255) ** 2
    wide = mirror(x, reach + half, reach + half)
    high, across = x.shape[2] + 2 * half, x.shape[3] + 2 * half
    centre = wide[:, :, reach : reach + high, reach : reach + across]
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for down in range(search):
        for right in range(search):
            other = wide[:, :, down : down + high, right : right + across]
            apart = functional.avg_pool2d(
                (centre - other).square().mean(dim=1, keepdim=True), patch, stride=1
            )
            weight = (-apart / scale).exp()
            total += weight * other[:, :, half : half + x.shape[2], half : half + x.shape[3]]
            weights += weight
    return total / weights
