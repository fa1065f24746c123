"""Keypoints to the heatmaps that a network should give."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gaussian_targets"]


def gaussian_targets(
    keypoints: Tensor, labelled: Tensor, size: tuple[int, int], *, sigma: float, rounded: bool
) -> tuple[Tensor, Tensor]:
    """Return heatmaps (B, K, h, w) and weights (B, K), float32, on the device of the keypoints.

    Args:
        keypoints: (B, K, 2), x and y in heatmap cells.
        labelled: (B, K), True where the keypoint is annotated.
        size: (h, w) of the heatmaps.
        sigma: of the Gaussians, in cells; their peak is 1.
        rounded: the MSRA form: the centre is floor(position + 0.5), and the Gaussian is cut off
            beyond 3 sigma in x or y. Otherwise the centre is the position, and nothing is cut.

    A keypoint whose square of 3 sigma is wholly outside the map gets weight 0.
    """
    centers = torch.floor(keypoints + 0.5)
    reach = torch.tensor(3 * sigma)
    limits = keypoints.new_tensor([size[1], size[0]])
    inside = ((centers + reach >= 0) & (centers - reach < limits)).all(-1)  # (B, K)
    weights = (labelled.bool() & inside).float()
    where = centers if rounded else keypoints
    waves = []
    for axis, length in ((0, size[1]), (1, size[0])):
        steps = torch.arange(length, device=keypoints.device) - where[..., axis, None]
        wave = torch.exp(-steps.square() / (2 * sigma**2))  # (B, K, length)
        waves.append(wave * (steps.abs() <= reach) if rounded else wave)
    heatmaps = waves[1][..., :, None] * waves[0][..., None, :]  # (B, K, h, w)
    return (heatmaps * weights[..., None, None]).float(), weights
