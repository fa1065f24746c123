"""Predictions for an image to COCO result rows: rescoring, OKS-NMS, rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.categories import PERSON
from ...errors import DataError, InputError
from ...results import rescore
from ...skeletons import Skeleton

__all__ = ["coco_results", "oks_nms", "rescore"]

Array = NDArray[Any]


def oks_nms(
    keypoints: Array,
    scores: Array,
    areas: Array,
    sigmas: Sequence[float],
    threshold: float = 0.9,
) -> NDArray[np.int64]:
    """Return the people to keep, best first: those not too similar to a better kept one.

    Args:
        keypoints: `(N, K, 2)` in image pixels.
        scores: `(N,)`; among equal scores the later person comes first.
        areas: `(N,)` padded box areas in square pixels.
        sigmas: `(K,)` of the data set.
        threshold: largest OKS with a kept person; the area in it is the mean of both.
    """
    offsets = keypoints[:, None] - keypoints[None]  # (N, N, K, 2)
    distances = offsets[..., 0] ** 2 + offsets[..., 1] ** 2  # (N, N, K)
    spread = (np.asarray(sigmas) * 2) ** 2
    mean_areas = (areas[:, None] + areas[None]) / 2 + np.spacing(1)  # (N, N)
    oks = np.exp(-(distances / spread / mean_areas[..., None] / 2)).mean(axis=-1)
    is_similar = oks.astype(np.float32) > np.float32(threshold)  # float32 as upstream stores it
    kept: list[int] = []
    dropped = np.zeros(len(scores), dtype=bool)
    for i in np.argsort(scores, kind="stable")[::-1].tolist():
        if not dropped[i]:
            kept.append(i)
            dropped |= is_similar[i]
    return np.array(kept, dtype=np.int64)


def coco_results(
    *,
    image_id: int,
    box_ids: Array,
    keypoints: Array,
    keypoint_scores: Array,
    bbox_scores: Array,
    areas: Array,
    skeleton: Skeleton,
    bboxes: Array | None = None,
    digits: int | None = None,
    category: int = PERSON,
) -> list[dict[str, Any]]:
    """Turn the predictions for one image into result rows: unique boxes, rescoring, OKS-NMS.

    Args:
        image_id: COCO id.
        box_ids: `(N,)`; of boxes with one id the first counts (shards of a run overlap).
        keypoints: `(N, K, 2)` in image pixels.
        keypoint_scores: `(N, K)`.
        bbox_scores: `(N,)`.
        areas: `(N,)` of the padded boxes with the network's aspect ratio, square pixels.
        skeleton: decides the keypoint fields; whole body is split into five.
        bboxes: `(N, 4)` xyxy, written as xywh where mmpose 1.x does (it scores sizes by them).
        category: id of the category of people.
        digits: to which keypoints, their scores and boxes are rounded when written (the score
            of the person gets two more); None writes them as they are.

    Returns:
        Rows of JSON types, best score first.

    Raises:
        DataError: a number is NaN or infinite.
        InputError: the arrays do not belong together.
    """
    _require_fit(image_id, skeleton, box_ids, keypoints, keypoint_scores, bbox_scores, areas)
    first = np.unique(box_ids, return_index=True)[1]
    scores = rescore(keypoint_scores[first], bbox_scores[first])
    kept = oks_nms(keypoints[first], scores, areas[first], skeleton.sigmas)
    fields = skeleton.coco_fields
    kept, scores = first[kept], scores[kept]
    people = np.concatenate([keypoints, keypoint_scores[..., None]], axis=2)[kept]  # (N, K, 3)
    xywh = None
    if bboxes is not None:
        xywh = np.concatenate([bboxes[:, :2], bboxes[:, 2:] - bboxes[:, :2]], axis=1)[kept]
    if digits is not None:
        people, scores = people.astype(np.float64).round(digits), scores.round(digits + 2)
        xywh = None if xywh is None else xywh.round(digits)
    rows = []
    for i, (points, score) in enumerate(zip(people, scores.tolist())):
        row: dict[str, Any] = {"image_id": int(image_id), "category_id": category}
        for field, (start, stop) in fields.items():
            row[field] = points[start:stop].ravel().tolist()
        row["score"] = score
        if xywh is not None:
            row["bbox"] = xywh[i].tolist()
        rows.append(row)
    return rows


def _require_fit(
    image_id: int,
    skeleton: Skeleton,
    box_ids: Array,
    keypoints: Array,
    keypoint_scores: Array,
    bbox_scores: Array,
    areas: Array,
) -> None:
    n, k = len(box_ids), skeleton.num_keypoints
    expected = {
        "box_ids": (box_ids, (n,)),
        "keypoints": (keypoints, (n, k, 2)),
        "keypoint_scores": (keypoint_scores, (n, k)),
        "bbox_scores": (bbox_scores, (n,)),
        "areas": (areas, (n,)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise InputError(f"{name} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise DataError(
                f"image {image_id}: {name} holds NaN or infinity; the network or its input is "
                "damaged, and a score from it would mean nothing"
            )
