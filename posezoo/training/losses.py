"""Losses."""

from __future__ import annotations

from torch import Tensor

__all__ = ["heatmap_mse"]


def heatmap_mse(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over batch, keypoints and cells of weight * (heatmap - target)^2.

    Args:
        heatmaps: (B, K, h, w), computed in float32 or higher whatever their type.
        targets: (B, K, h, w).
        weights: (B, K), 0 for keypoints that are not labelled. They count in the mean.
    """
    heatmaps = heatmaps.float() if heatmaps.dtype.itemsize < 4 else heatmaps
    per_keypoint = (heatmaps - targets).square().mean((2, 3))  # (B, K)
    return (weights * per_keypoint).mean()
