"""Image to network input: the exact crop, and normalisation.

The crop reproduces OpenCV 4's fixed-point bilinear `warpAffine` to the bit (positions in 1/32
pixel, zeros outside the image), on the CPU and on CUDA alike: that is what the published
numbers were computed with. It is cut from uint8 pixels and normalised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .device import upload
from .geometry import invert_matrices
from .images import ImageSource, load_image
from .zoo.config import PretrainedCfg

__all__ = ["ImageSource", "TopDownCrop", "build_transform", "load_image", "warp_crops"]

_UNITS = 1024  # per pixel, of source positions
_FAR = 2.0**40  # limit of source positions: beyond every image, far from overflow
_LANE = 20  # bits per channel of a packed pixel
_HALVES = 512 * (1 + (1 << _LANE) + (1 << 2 * _LANE))  # rounds all three lanes
_CROPS_PER_LAUNCH = 32
_STRIP = 1 << 19  # pixels that are packed at a time


def warp_crops(
    image: Tensor, matrices: NDArray[np.float64] | Tensor, size: tuple[int, int]
) -> Tensor:
    """Cut `N` crops out of an image, bit for bit as OpenCV 4 does.

    Args:
        image: uint8 RGB `(H, W, 3)`.
        matrices: maps `(N, 2, 3)` from image to input pixels, with or without rotation. Keep
            them on the CPU: positions are computed there, so that every device agrees.
        size: (h, w) of the crops.

    Returns:
        uint8 `(N, 3, h, w)` on the image's device, 0 outside the image.
    """
    rows, columns = _source_positions(matrices, size)
    straight = not (np.ptp(rows[:, 0], axis=-1).any() or columns[:, 1].any())
    packed = _pack(image)
    parts = [upload(part, image.device) for part in (rows, columns)]
    crops = image.new_empty((len(rows), 3, *size))
    # one crop at a time stays in a CPU's cache; a GPU wants few launches
    step = _CROPS_PER_LAUNCH if image.is_cuda else 1
    for crop, row, column in zip(*(part.split(step) for part in (crops, *parts))):
        _sample(packed, row, column, straight, out=crop)
    return crops


def _source_positions(
    matrices: NDArray[np.float64] | Tensor, size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what each row `(N, 2, h)` and column `(N, 2, w)` adds to the source (x, y).

    The unit is 1/1024 pixel; half of the 1/32 step that remains is already added to the rows.
    """
    if isinstance(matrices, Tensor):
        matrices = matrices.cpu().numpy()
    inverse = invert_matrices(matrices)[:, :, :, None]  # (N, 2, 3, 1)
    height, width = size
    rows = (inverse[:, :, 1] * np.arange(height) + inverse[:, :, 2]) * _UNITS
    columns = inverse[:, :, 0] * np.arange(width) * _UNITS
    return _rounded(rows) + 16, _rounded(columns)


def _rounded(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(positions).clip(-_FAR, _FAR).astype(np.int64)


def _pack(image: Tensor) -> Tensor:
    """Pack RGB `(H, W, 3)` into one int64 per pixel, with a black rim of two pixels.

    Red has the lowest of three lanes of 20 bits: room for 8 bits times weights up to 1024.
    """
    packed = image.new_zeros((image.shape[0] + 4, image.shape[1] + 4), dtype=torch.int64)
    # in strips, because adding uint8 to int64 makes an int64 copy of what is added, and copies of
    # 30 MB scatter a process's memory: it grew by as much per photo of 12 megapixels
    rows = max(1, _STRIP // image.shape[1])
    for inner, part in zip(packed[2:-2, 2:-2].split(rows), image.split(rows)):
        inner += part[:, :, 2]
        for channel in (1, 0):
            inner <<= _LANE
            inner += part[:, :, channel]
    return packed


def _sample(packed: Tensor, rows: Tensor, columns: Tensor, straight: bool, out: Tensor) -> None:
    """Write the crops `(n, 3, h, w)` at the positions `(n, 2, h)` + `(n, 2, w)`.

    In `straight` crops x depends on the column alone and y on the row alone.
    """
    height, width = packed.shape
    x = rows[:, 0, : 1 if straight else None, None] + columns[:, 0, None]
    y = rows[:, 1, :, None] + columns[:, 1, None, : 1 if straight else None]
    x, y = x >> 5, y >> 5  # 1/32 pixel
    index = ((y >> 5).clamp(-2, height - 4) + 2) * width + ((x >> 5).clamp(-2, width - 4) + 2)
    right, below = x & 31, y & 31
    left, above = 32 - right, 32 - below
    flat = packed.flatten()

    def pixels(offset: int) -> Tensor:
        return flat[offset:].index_select(0, index.flatten()).view(index.shape)

    total = (pixels(0) * left + pixels(1) * right) * above
    total += (pixels(width) * left + pixels(width + 1) * right) * below
    total += _HALVES
    for channel in range(3):
        # the conversion to uint8 cuts off the lanes above
        out[:, channel] = total >> (channel * _LANE + 10)


class TopDownCrop:
    """Cut persons out of an image and normalise them for the network.

    `size` is (H, W) of the network input, `mean` and `std` are RGB in 0-1 units. Crops are
    normalised as (x / 255 - mean) / std; outside the image is black before that.
    """

    def __init__(
        self,
        size: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        self.size = size
        self.mean = mean
        self.std = std

    def __call__(self, image: Tensor, matrices: NDArray[np.float64] | Tensor) -> Tensor:
        """Return float32 `(N, 3, H, W)` on the image's device.

        `image` is uint8 RGB `(H, W, 3)`, `matrices` `(N, 2, 3)` map it to input pixels.
        """
        return self.normalise(warp_crops(image, matrices, self.size))

    def normalise(self, crops: Tensor) -> Tensor:
        """Return uint8 crops (N, 3, H, W) as the network takes them, float32."""
        scaled = crops.float().div_(255)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std)):
            scaled[:, channel].sub_(mean).div_(std)
        return scaled


def build_transform(cfg: PretrainedCfg) -> TopDownCrop | Callable[[Image.Image], Tensor]:
    """Return the evaluation transform of a configuration.

    Pose models get a `TopDownCrop`; classifiers get timm's resize, centre crop and
    normalisation of a Pillow image, `(3, H, W)`.
    """
    if cfg.task != "classification":
        return TopDownCrop(cfg.input.size, cfg.input.mean, cfg.input.std)
    from timm.data import create_transform

    return create_transform(
        input_size=(3, *cfg.input.size),
        is_training=False,
        interpolation=cfg.input.interpolation,
        mean=cfg.input.mean,
        std=cfg.input.std,
        crop_pct=cfg.input.crop_pct,
    )
