"""Boxes that follow poses from one frame to the next, between detections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..results import PoseResult

__all__ = ["boxes_around", "overlapping"]

Array = NDArray[np.float64]

_SURE = 0.2  # smallest score of a keypoint that a box follows
_LEAST = 3  # keypoints that a box follows; with fewer it stays where it is
_MARGIN = np.array([0.15, 0.13])  # of the width and height of the keypoints, for what is beyond
_FLOOR = 0.06  # of the longer side, for a pose as thin as a line
_SHRINK = 0.05  # of its size that a side of a box may move inwards per frame
_CLOSE = 0.1  # IoU of two boxes from which on a pose may be that of the other person
_SAME = 0.1  # mean distance of two poses, in body sizes, below which they are one person's


def boxes_around(result: PoseResult) -> tuple[Array, Array]:
    """Return boxes (N, 4) xyxy and scores (N,) for the next frame, from the poses in this one.

    A box grows with its keypoints at once and shrinks slowly, since a keypoint that is unsure in
    one frame comes back in the next. It stays where it is if nearly nothing of the person is
    sure, and if its pose is that of somebody in front, which top-down networks find in the box of
    whoever is hidden. Only a box that has left the image is lost.
    """
    points = result.keypoints.astype(np.float64)  # (N, K, 2)
    sure = (result.keypoint_scores > _SURE) & np.isfinite(points).all(axis=2)  # (N, K)
    before = result.bboxes.astype(np.float64)
    follows = (sure.sum(axis=1) >= _LEAST) & ~_hidden(points, sure, result)
    low = np.where(sure[..., None], points, np.inf).min(axis=1, initial=np.inf)  # (N, 2)
    high = np.where(sure[..., None], points, -np.inf).max(axis=1, initial=-np.inf)
    low, high = (np.where(follows[:, None], side, 0) for side in (low, high))
    size = high - low
    margin = np.maximum(size * _MARGIN, _FLOOR * size.max(axis=1, keepdims=True, initial=0)) + 1
    inwards = _SHRINK * (before[:, 2:] - before[:, :2])
    low = np.minimum(low - margin, before[:, :2] + inwards)
    high = np.maximum(high + margin, before[:, 2:] - inwards)
    moved = np.where(follows[:, None], np.concatenate([low, high], axis=1), before)
    height, width = result.image_size
    boxes = moved.clip(0, [width, height, width, height])
    inside = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(axis=1)
    return boxes[inside], result.bbox_scores[inside].astype(np.float64)


def overlapping(result: PoseResult) -> bool:
    """Tell whether people are so close that boxes had better be detected than follow poses."""
    boxes = result.bboxes.astype(np.float64)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)  # (N, N)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    close = shared > _CLOSE * (area[:, None] + area[None] - shared)
    return bool(np.triu(close, 1).any())


def _hidden(points: Array, sure: NDArray[np.bool_], result: PoseResult) -> NDArray[np.bool_]:
    """Tell whose pose (N,) is nearly that of somebody with a better one."""
    sides = (result.bboxes[:, 2:] - result.bboxes[:, :2]).astype(np.float64)
    size = np.sqrt(sides.prod(axis=1)).clip(1)  # (N,)
    quality = np.where(sure, result.keypoint_scores, 0).mean(axis=1)
    hidden = np.zeros(len(points), bool)
    order = np.argsort(-quality, kind="stable")
    for rank, i in enumerate(order):
        for j in order[:rank]:
            both = sure[i] & sure[j]
            if hidden[j] or both.sum() < _LEAST:
                continue
            apart = np.linalg.norm(points[i, both] - points[j, both], axis=1).mean()
            hidden[i] |= apart < _SAME * min(size[i], size[j])
    return hidden
