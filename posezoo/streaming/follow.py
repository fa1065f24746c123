"""Boxes that follow poses from one frame to the next, between detections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..results import PoseResult

__all__ = ["boxes_around"]

_SURE = 0.2  # smallest score of a keypoint that a box follows
_LEAST = 3  # keypoints that a person needs to be followed
_MARGIN = np.array([0.15, 0.13])  # of the width and height of the keypoints: what lies beyond them
_FLOOR = 0.06  # of the longer side, for a pose as thin as a line
_SHRINK = 0.05  # of its size that a side of a box may move inwards per frame
_SAME = 0.85  # IoU from which two boxes follow one person


def boxes_around(result: PoseResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return boxes (N, 4) xyxy and scores (N,) for the next frame, from the poses in this one.

    A box grows with its keypoints at once and shrinks slowly, since a keypoint that is unsure in
    one frame comes back in the next. People with fewer than three sure keypoints are lost, and of
    two boxes on one person the one with the lower score goes.
    """
    points = result.keypoints.astype(np.float64)  # (N, K, 2)
    sure = (result.keypoint_scores > _SURE) & np.isfinite(points).all(axis=2)  # (N, K)
    kept = np.flatnonzero(sure.sum(axis=1) >= _LEAST)
    if not len(kept):
        return np.zeros((0, 4)), np.zeros(0)
    points, sure = points[kept], sure[kept]
    low = np.where(sure[..., None], points, np.inf).min(axis=1)  # (N, 2)
    high = np.where(sure[..., None], points, -np.inf).max(axis=1)
    size = high - low
    margin = np.maximum(size * _MARGIN, _FLOOR * size.max(axis=1, keepdims=True)) + 1
    before = result.bboxes[kept].astype(np.float64)
    inwards = _SHRINK * (before[:, 2:] - before[:, :2])
    low = np.minimum(low - margin, before[:, :2] + inwards)
    high = np.maximum(high + margin, before[:, 2:] - inwards)
    height, width = result.image_size
    boxes = np.concatenate([low, high], axis=1).clip(0, [width, height, width, height])
    scores = result.bbox_scores[kept].astype(np.float64)
    quality = scores * np.where(sure, result.keypoint_scores[kept], 0).mean(axis=1)
    chosen = _distinct(boxes, quality)
    return boxes[chosen], scores[chosen]


def _distinct(boxes: NDArray[np.float64], quality: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices, in order, of boxes with an area that hardly overlap a better one."""
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(axis=1)
    chosen: list[int] = []
    for i in np.argsort(-quality, kind="stable").tolist():
        if not (sides[i] >= 2).all():
            continue
        shared = np.minimum(boxes[i, 2:], boxes[chosen, 2:]) - np.maximum(
            boxes[i, :2], boxes[chosen, :2]
        )
        both = shared.clip(0).prod(axis=1)
        if not (both / (area[i] + area[chosen] - both) > _SAME).any():
            chosen.append(i)
    return np.array(sorted(chosen), np.int64)
