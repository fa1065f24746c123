"""From light to a photograph: exposure, colours, blur, noise, sharpening, few pixels, JPEG."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .devices import sent

__all__ = ["compress", "develop", "soften"]

_REACH = 4  # pixels of a blur to each side


def soften(pictures: Tensor, sigmas: NDArray[np.float64]) -> Tensor:
    """Blur those pictures of (B, 3, H, W) whose standard deviation (B,) is above 0, up to about 3
    pixels; the others stay."""
    blurred = np.flatnonzero(sigmas > 0)
    if not len(blurred):
        return pictures
    chosen = sent(blurred)
    steps = torch.arange(-_REACH, _REACH + 1.0)
    deviations = sent(sigmas[blurred]).float()
    kernels = torch.exp(-steps.square() / (2 * deviations[:, None] ** 2))
    kernels = kernels / kernels.sum(1, keepdim=True)  # (b, 2 * reach + 1)
    found = pictures[chosen]
    for axis in (2, 3):
        pads = (0, 0, _REACH, _REACH) if axis == 2 else (_REACH, _REACH, 0, 0)
        padded = F.pad(found, pads, mode="replicate")
        found = torch.zeros_like(found)
        for i in range(2 * _REACH + 1):
            shifted = padded.narrow(axis, i, found.shape[axis])
            found.addcmul_(shifted, kernels[:, i, None, None, None])
    result = pictures.clone()
    result[chosen] = found
    return result


def develop(rng: np.random.Generator, light: Tensor, size: tuple[int, int]) -> Tensor:
    """Return pictures (B, 3, H, W) of a size, uint8, of linear light (B, 3, h, w)."""
    count = len(light)

    def draw(values: NDArray[np.float64]) -> Tensor:
        return sent(np.asarray(values)).float().reshape(count, -1, 1, 1)

    level = light.flatten(1).mean(1).reshape(-1, 1, 1, 1)
    automatic = (0.22 / level.clamp(0.02, 3)) ** draw(rng.uniform(0.2, 1.0, count))
    light = light * automatic * draw(np.exp(rng.normal(0, 0.22, count)))
    gamma = draw(rng.uniform(2.0, 2.5, count))
    picture = light.clamp(1e-4, 1) ** (1 / gamma)
    grey = picture.mean(1, keepdim=True)
    saturation = np.where(rng.random(count) < 0.05, 0, rng.normal(1, 0.22, count).clip(0.1, 1.6))
    picture = grey + (picture - grey) * draw(saturation)
    contrast = draw(rng.normal(1, 0.14, count).clip(0.5, 1.5))
    picture = (picture - 0.45) * contrast + 0.45 + draw(rng.normal(0, 0.05, count))
    picture = picture * draw(rng.normal(1, 0.05, (count, 3)))
    picture = F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
    picture = _coarsened(rng, picture)
    blur = np.where(rng.random(count) < 0.4, rng.uniform(0.3, 1.1, count), 0)
    sharp = np.where(rng.random(count) < 0.25, rng.uniform(0.2, 1.5, count), -1)
    soft = soften(picture, np.where(sharp > 0, 1.0, blur))
    picture = soft + draw((1 + sharp) * (sharp > 0)) * (picture - soft)
    noise = sent(rng.standard_normal((count, 3, *size), np.float32))
    colored = draw(rng.uniform(0, 0.7, count))
    amount = draw(np.where(rng.random(count) < 0.6, rng.exponential(0.016, count), 0))
    picture = picture + amount * (colored * noise + (1 - colored) * noise[:, :1])
    return (picture.clamp(0, 1) * 255).round().byte()


def _coarsened(rng: np.random.Generator, pictures: Tensor) -> Tensor:
    """Shrink and enlarge some pictures again: people that are small in their photo."""
    result = pictures.clone()
    height, width = pictures.shape[2:]
    chosen = rng.random(len(pictures)) < 0.35
    for i in np.flatnonzero(chosen):
        factor = np.exp(rng.uniform(-1.3, -0.1))
        small = max(12, int(height * factor)), max(12, int(width * factor))
        one = F.interpolate(
            pictures[i : i + 1], small, mode="bilinear", antialias=True, align_corners=False
        )
        mode = "bicubic" if rng.random() < 0.5 else "bilinear"
        result[i] = F.interpolate(one, (height, width), mode=mode, align_corners=False)[0]
    return result


def compress(rng: np.random.Generator, pictures: Tensor) -> Tensor:
    """Store pictures on the CPU as JPEG of some quality, most of them, and read them again."""
    result = pictures.clone()
    for i in np.flatnonzero(rng.random(len(pictures)) < 0.7):
        buffer = io.BytesIO()
        image = Image.fromarray(pictures[i].permute(1, 2, 0).numpy())
        image.save(buffer, "JPEG", quality=int(rng.integers(35, 96)))
        result[i] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return result
