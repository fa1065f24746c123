"""Image to network input: the exact crop, and normalisation.

The crop reproduces OpenCV 4's fixed-point bilinear `warpAffine` to the bit (positions in 1/32
pixel, zeros outside the image), on the CPU and on CUDA alike: that is what the published
numbers were computed with. It is cut from uint8 pixels and normalised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .device import upload
from .geometry import invert_matrices
from .images import ImageSource, load_image
from .zoo.config import PretrainedCfg

__all__ = ["ImageSource", "TopDownCrop", "build_transform", "load_image", "warp_crops", "warp_many"]

_UNITS = 1024  # per pixel, of source positions
_FAR = 2.0**40  # limit of source positions: beyond every image, far from overflow
_Whole = TypeVar("_Whole", int, NDArray[np.int64])
_LANE = 20  # bits per channel of a packed pixel
_HALVES = 512 * (1 + (1 << _LANE) + (1 << 2 * _LANE))  # rounds all three lanes
_RIM = 2  # black pixels around a packed image
_CROPS_PER_LAUNCH = 64  # a bound on memory: 50 to 100 bytes for each of their pixels
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
    if image.device.type != "cpu":
        return warp_many([image], [matrices], size)
    rows, columns = _source_positions([matrices], size)
    straight = _are_straight(rows, columns)
    packed = _packed_image(image)
    height, width = image.shape[:2]
    crops = image.new_empty((len(rows), 3, *size))
    # one crop at a time stays in the cache
    parts = (crops, torch.from_numpy(rows), torch.from_numpy(columns))
    for crop, row, column in zip(*(part.split(1) for part in parts)):
        _sample(packed, _first(width), height, width, row, column, straight, out=crop)
    return crops


def warp_many(
    images: Sequence[Tensor],
    matrices: Sequence[NDArray[np.float64] | Tensor],
    size: tuple[int, int],
) -> Tensor:
    """Cut the crops of several images together: the same bits as `warp_crops`, for GPUs.

    What keeps a GPU waiting is the number of operations. Each image costs two here, and all else
    is done once. It takes 14 bytes of memory for each pixel of the images.

    Args:
        images: at least one, uint8 RGB `(H, W, 3)`, all on one device.
        matrices: of each image, as `warp_crops` takes them.
        size: (h, w) of the crops.

    Returns:
        uint8 `(N, 3, h, w)` on the images' device, in order.
    """
    rows, columns = _source_positions(matrices, size)
    straight = _are_straight(rows, columns)
    rim = (0, 0, _RIM, _RIM, _RIM, _RIM)
    pixels = torch.cat([F.pad(image, rim).flatten(0, 1) for image in images])  # (P, 3)
    packed = pixels.new_zeros(len(pixels), dtype=torch.int64)
    _pack(pixels, out=packed)
    del pixels

    count, (h, w) = len(rows), size
    frames = np.repeat(_frames(images), [len(m) for m in matrices], axis=0)  # (N, 3)
    flat = [rows.reshape(count, 2 * h), columns.reshape(count, 2 * w), frames]
    table = upload(np.concatenate(flat, axis=1), packed.device)  # one copy to the device
    crops = packed.new_empty((count, 3, h, w), dtype=torch.uint8)
    for out, part in zip(crops.split(_CROPS_PER_LAUNCH), table.split(_CROPS_PER_LAUNCH)):
        row, column, frame = part.split([2 * h, 2 * w, 3], dim=1)
        row, column = row.view(len(out), 2, h), column.view(len(out), 2, w)
        first, height, width = frame[:, :, None, None].unbind(1)  # (n, 1, 1) each
        _sample(packed, first, height, width, row, column, straight, out=out)
    return crops


def _source_positions(
    matrices: Sequence[NDArray[np.float64] | Tensor], size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what each row `(N, 2, h)` and column `(N, 2, w)` adds to the source (x, y).

    The unit is 1/1024 pixel; half of the 1/32 step that remains is already added to the rows.
    """
    arrays = [m.cpu().numpy() if isinstance(m, Tensor) else m for m in matrices]
    inverse = invert_matrices(np.concatenate(arrays))[:, :, :, None]  # (N, 2, 3, 1)
    height, width = size
    rows = (inverse[:, :, 1] * np.arange(height) + inverse[:, :, 2]) * _UNITS
    columns = inverse[:, :, 0] * np.arange(width) * _UNITS
    return _rounded(rows) + 16, _rounded(columns)


def _rounded(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(positions).clip(-_FAR, _FAR).astype(np.int64)


def _are_straight(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> bool:
    """Whether in all crops x depends on the column alone and y on the row alone."""
    return not (np.ptp(rows[:, 0], axis=-1).any() or columns[:, 1].any())


def _first(width: _Whole) -> _Whole:
    """Return the index of the upper left pixel in a packed image with its rim."""
    return _RIM * (width + 2 * _RIM) + _RIM


def _frames(images: Sequence[Tensor]) -> NDArray[np.int64]:
    """Return `_first` among images that are packed one after the other, height and width, (M, 3)"""
    height, width = np.array([image.shape[:2] for image in images]).T
    ends = np.cumsum((height + 2 * _RIM) * (width + 2 * _RIM))
    return np.stack([np.append(0, ends[:-1]) + _first(width), height, width], axis=1)


def _packed_image(image: Tensor) -> Tensor:
    """Return an image `(H, W, 3)` packed, with a black rim around it, flat."""
    height, width = image.shape[:2]
    packed = image.new_zeros((height + 2 * _RIM, width + 2 * _RIM), dtype=torch.int64)
    # in strips, because adding uint8 to int64 makes an int64 copy of what is added, and copies of
    # 30 MB scatter a process's memory: it grew by as much per photo of 12 megapixels
    rows = max(1, _STRIP // width)
    inner = packed[_RIM:-_RIM, _RIM:-_RIM]
    for strip, part in zip(inner.split(rows), image.split(rows)):
        _pack(part, out=strip)
    return packed.flatten()


def _pack(pixels: Tensor, out: Tensor) -> None:
    """Write RGB `(..., 3)` into zeros `(...)`, one int64 per pixel.

    Red has the lowest of three lanes of 20 bits: room for 8 bits times weights up to 1024.
    """
    out += pixels[..., 2]
    for channel in (1, 0):
        out <<= _LANE
        out += pixels[..., channel]


def _sample(
    packed: Tensor,
    first: int | Tensor,
    height: int | Tensor,
    width: int | Tensor,
    rows: Tensor,
    columns: Tensor,
    straight: bool,
    *,
    out: Tensor,
) -> None:
    """Write the crops `(n, 3, h, w)` at the positions `(n, 2, h)` + `(n, 2, w)`.

    Args:
        packed: images with their rims, flat.
        first: index of the upper left pixel of the crops' image, or `(n, 1, 1)` for each crop.
        height, width: its size, likewise.
        rows, columns: see `_source_positions`.
        straight: see `_are_straight`.
        out: the crops.
    """
    x = rows[:, 0, : 1 if straight else None, None] + columns[:, 0, None]
    y = rows[:, 1, :, None] + columns[:, 1, None, : 1 if straight else None]
    x, y = x >> 5, y >> 5  # 1/32 pixel
    right, below = x & 31, y & 31
    left, above = 32 - right, 32 - below
    # what is farther away than the rim is as black as the rim
    x = (x >> 5).clamp_(min=-_RIM).clamp_(max=width)
    y = (y >> 5).clamp_(min=-_RIM).clamp_(max=height)
    line = width + 2 * _RIM
    index = y * line + (x + first)

    def between(index: Tensor) -> Tensor:
        """Return the pixels mixed with those to their right."""
        here = packed.index_select(0, index.flatten()).view(index.shape).mul_(left)
        beside = packed[1:].index_select(0, index.flatten()).view(index.shape)
        return here.add_(beside.mul_(right))

    total = between(index).mul_(above)
    total += between(index.add_(line)).mul_(below)
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

    def many(
        self, images: Sequence[Tensor], matrices: Sequence[NDArray[np.float64] | Tensor]
    ) -> Tensor:
        """Return the same for several images together, which saves a GPU waiting."""
        return self.normalise(warp_many(images, matrices, self.size))

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
