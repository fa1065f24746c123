"""Augmentation of the pixels of a crop: colours, and a grid of holes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["drop_grid", "jitter_colors"]


def jitter_colors(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation by up to 0.4 and hue by up to 0.2, in any order.

    Args:
        image: uint8 (3, H, W).
    """
    from torchvision.transforms import functional

    changes = (
        (functional.adjust_brightness, rng.uniform(0.6, 1.4)),
        (functional.adjust_contrast, rng.uniform(0.6, 1.4)),
        (functional.adjust_saturation, rng.uniform(0.6, 1.4)),
        (functional.adjust_hue, rng.uniform(-0.2, 0.2)),
    )
    for i in rng.permutation(len(changes)):
        adjust, amount = changes[i]
        image = adjust(image, amount)
    return image


def drop_grid(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Blacken a grid of squares, half as long as the grid's step of 10 to 40 pixels (GridMask).

    Args:
        image: uint8 (3, H, W).
    """
    unit = int(rng.integers(10, 41))
    hole = max(1, unit // 2)
    shifts = rng.integers(0, unit - hole + 1, 2).tolist()
    rows, columns = (
        (torch.arange(length) - shift) % unit < hole
        for length, shift in zip(image.shape[1:], shifts)
    )
    return image * ~(rows[:, None] & columns[None])
