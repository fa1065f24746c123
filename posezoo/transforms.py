"""Image to network input: reading, the exact crop, normalisation.

The crop reproduces OpenCV 4's fixed-point bilinear `warpAffine` to the bit (positions in 1/32
pixel, zeros outside the image), on the CPU and on CUDA alike: that is what the published
numbers were computed with. It is cut from uint8 pixels and normalised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from .device import upload
from .errors import InputError
from .geometry import invert_matrices
from .zoo.config import PretrainedCfg

__all__ = ["TopDownCrop", "build_transform", "load_image", "warp_crops"]

ImageSource = np.ndarray | Image.Image | str | Path

_UNITS = 1024  # per pixel, of source positions
_FAR = 2.0**40  # limit of source positions: beyond every image, far from overflow
_LANE = 20  # bits per channel of a packed pixel
_HALVES = 512 * (1 + (1 << _LANE) + (1 << 2 * _LANE))  # rounds all three lanes
_CROPS_PER_LAUNCH = 32


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 `(H, W, 3)`.

    A file or Pillow image is turned upright by its EXIF orientation; the first frame counts.
    Palette, CMYK and grey become RGB, 16-bit grey is divided by 257, transparent pixels are
    laid over black (the colour outside the image in crops). An array must be uint8 RGB
    `(H, W, 3)` or grey `(H, W)` and is not copied if it can be used as it is.

    Raises:
        InputError: no such file, not an image, damaged or truncated, more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, or an array of another kind.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, (Image.Image, str, Path)):
        raise InputError(
            f"image is a {type(source).__name__}; give a path, a Pillow image or a uint8 RGB array "
            "(H, W, 3)"
        )
    where = "the given Pillow image" if isinstance(source, Image.Image) else str(source)
    try:
        if isinstance(source, Image.Image):
            return _from_pillow(source, where)
        with Image.open(source) as image:
            _check_pixels(image, where)
            return _from_pillow(image, where)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no image file at {where}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{where} is too large: {error}") from error
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise InputError(
            f"cannot read {where}: {error}; it is no image, or damaged or truncated"
        ) from error


def _check_pixels(image: Image.Image, where: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise InputError(
            f"{where} has {image.width} x {image.height} pixels, more than {limit}; "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        )


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    expected = "uint8 RGB (H, W, 3) or grey (H, W)"
    if array.dtype != np.uint8:
        hint = "multiply by 255, round and " if np.issubdtype(array.dtype, np.floating) else ""
        raise InputError(
            f"image array has dtype {array.dtype}, expected {expected}: {hint}use .astype(np.uint8)"
        )
    if array.size == 0:
        raise InputError(f"image array is empty: shape {array.shape}")
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)  # (H, W, 3)
    if array.ndim == 3 and array.shape[2] == 3:
        return np.require(array, requirements=["C", "W"])  # torch takes no others
    hints = {
        (3, 4): "drop the alpha channel with image[:, :, :3]",
        (3, 1): "drop the last axis with image[:, :, 0]",
    }
    hint = hints.get((array.ndim, array.shape[-1]), "give one image at a time")
    if array.ndim == 3 and array.shape[0] in (1, 3):
        hint = "channels come last: use image.transpose(1, 2, 0)"
    raise InputError(f"image array has shape {array.shape}, expected {expected}: {hint}")


def _from_pillow(image: Image.Image, where: str) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError(f"{where} holds floating-point pixels; convert it to 8 bit first")
    if image.mode.startswith("I"):
        return _from_16_bit(image, where)
    if "A" in image.getbands() or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _from_16_bit(image: Image.Image, where: str) -> NDArray[np.uint8]:
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise InputError(
            f"{where} holds values {pixels.min()} to {pixels.max()}, expected 16-bit grey "
            "(0 to 65535); convert it to 8 bit first"
        )
    return _from_array(((pixels + 128) // 257).astype(np.uint8))


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
    inner = packed[2:-2, 2:-2]
    inner += image[:, :, 2]
    for channel in (1, 0):
        inner <<= _LANE
        inner += image[:, :, channel]
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
