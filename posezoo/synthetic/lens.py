"""From light to a photograph: exposure, colours, blur, noise, sharpening, few pixels, JPEG."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["develop", "soften"]

_REACH = 4  # pixels of a blur to each side


def soften(pictures: Tensor, sigmas: Tensor) -> Tensor:
    """Blur pictures (B, 3, H, W) by Gaussians of standard deviations (B,), 0 to about 3 pixels."""
    steps = torch.arange(-_REACH, _REACH + 1.0)
    kernels = torch.exp(-steps.square() / (2 * sigmas[:, None].clamp(min=0.05) ** 2))
    kernels = kernels / kernels.sum(1, keepdim=True)  # (B, 2 * reach + 1)
    return _filter(_filter(pictures, kernels[:, None, :]), kernels[:, :, None])


def _filter(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Filter each picture (B, 3, H, W) with its own kernel (B, h, w)."""
    count, channels, height, width = pictures.shape
    pads = [kernels.shape[2] // 2] * 2 + [kernels.shape[1] // 2] * 2
    padded = F.pad(pictures, pads, mode="replicate").reshape(1, count * channels, *_padded(pictures, pads))
    weight = kernels.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weight, groups=count * channels).reshape(count, channels, height, width)


def _padded(pictures: Tensor, pads: list[int]) -> tuple[int, int]:
    return pictures.shape[2] + 2 * pads[2], pictures.shape[3] + 2 * pads[0]


def develop(rng: np.random.Generator, light: Tensor, size: tuple[int, int]) -> Tensor:
    """Return pictures (B, 3, H, W) of a size, uint8, of linear light (B, 3, h, w)."""
    count = len(light)

    def draw(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.asarray(values)).float().reshape(count, -1, 1, 1)

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
    blur = np.where(rng.random(count) < 0.4, rng.uniform(0.2, 1.1, count), 0.05)
    sharp = draw(np.where(rng.random(count) < 0.25, rng.uniform(0.2, 1.5, count), 0))
    soft = soften(picture, torch.from_numpy(np.where(sharp.flatten() > 0, 1.0, blur)).float())
    picture = torch.where(sharp > 0, picture + sharp * (picture - soft), soft)
    noise = torch.from_numpy(rng.standard_normal((count, 3, *size), np.float32))
    shared = noise[:, :1] * draw(rng.random(count) < 0.5)
    amount = draw(np.where(rng.random(count) < 0.6, rng.uniform(0.004, 0.04, count), 0))
    picture = picture + amount * (noise + shared)
    return _compressed(rng, (picture.clamp(0, 1) * 255).round().byte())


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


def _compressed(rng: np.random.Generator, pictures: Tensor) -> Tensor:
    """Store pictures as JPEG of some quality, most of them, and read them again."""
    result = pictures.clone()
    for i in np.flatnonzero(rng.random(len(pictures)) < 0.7):
        buffer = io.BytesIO()
        image = Image.fromarray(pictures[i].permute(1, 2, 0).numpy())
        image.save(buffer, "JPEG", quality=int(rng.integers(35, 96)))
        result[i] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return result
