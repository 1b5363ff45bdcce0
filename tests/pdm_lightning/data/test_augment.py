from __future__ import annotations

import pytest
import torch

from pdm_lightning.data.augment import check_augment, crop_and_flip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(image: torch.Tensor, crop: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every window of the padded image (and its mirror image), by slow slicing."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * crop, width + 2 * crop, dtype=image.dtype)
    padded[:, crop : crop + height, crop : crop + width] = image
    found = {}
    for top in range(2 * crop + 1):
        for left in range(2 * crop + 1):
            window = padded[:, top : top + height, left : left + width]
            found[window.contiguous().numpy().tobytes()] = (top, left, False)
            if flip:
                found[window.flip(2).contiguous().numpy().tobytes()] = (top, left, True)
    return found


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (1, False), (0, True)])
def test_every_image_is_a_window_and_all_windows_occur(crop: int, flip: bool) -> None:
    image = torch.randint(1, 256, (3, 5, 6), generator=rng(1), dtype=torch.uint8)
    allowed = windows(image, crop, flip)
    out = crop_and_flip(image.expand(2000, -1, -1, -1), crop, flip, rng())
    assert out.dtype == torch.uint8 and out.shape == (2000, 3, 5, 6) and out.is_contiguous()
    counts = dict.fromkeys(allowed.values(), 0)
    for shown in out:
        counts[allowed[shown.numpy().tobytes()]] += 1
    mean = 2000 / len(counts)
    assert sum((n - mean) ** 2 / mean for n in counts.values()) < len(counts) + 4 * (2 * len(counts)) ** 0.5


def test_each_image_keeps_its_place_and_its_own_pixels() -> None:
    images = torch.arange(1, 5, dtype=torch.uint8)[:, None, None, None].expand(4, 2, 6, 6)
    out = crop_and_flip(images, 2, True, rng())
    assert [int(x.max()) for x in out] == [1, 2, 3, 4]
    assert all(set(x.unique().tolist()) <= {0, i} for i, x in enumerate(out, 1))


def test_dtype_does_not_change_the_draws() -> None:
    images = torch.randint(256, (20, 1, 8, 8), generator=rng(1), dtype=torch.uint8)
    assert torch.equal(
        crop_and_flip(images, 2, True, rng()).float(), crop_and_flip(images.float(), 2, True, rng())
    )


def test_nothing_to_do() -> None:
    images = torch.zeros(2, 1, 3, 3)
    assert crop_and_flip(images, 0, False, rng()) is images


def test_check_augment() -> None:
    assert check_augment(None) == (0, False)
    assert check_augment({"crop": 4, "flip": True}) == (4, True)
    for wrong, message in [
        ({"crop": -1}, r"crop=-1"),
        ({"crop": True}, r"crop=True"),
        ({"crop": 1.5}, r"crop=1\.5"),
        ({"flip": "yes"}, r"flip='yes'"),
        ({"rotate": 3}, "rotate"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_augment(wrong)
