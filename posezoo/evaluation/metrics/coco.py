"""COCO and COCO-WholeBody scores: predictions to result rows, result rows to AP and AR.

COCO: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; whole body: Jin et
al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020. Protocol of the published
tables: mmpose, whose scorer drops detections without any positive keypoint score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...datasets.coco import (
    PERSON,
    Annotations,
    Results,
    keypoint_fields,
    read_annotations,
    read_results,
)
from ...errors import DataError, InputError
from ...skeletons import Skeleton
from .cocoeval import FastCOCOeval
from .matching import Curves, Found, People, curves, match, oks_blocks

__all__ = [
    "CocoStats",
    "FastCOCOeval",
    "WholeBodyStats",
    "coco_results",
    "evaluate_coco",
    "evaluate_wholebody",
    "oks_nms",
    "rescore",
]

Array = NDArray[Any]
Source = str | Path | Mapping[str, Any] | Annotations
Rows = str | Path | Sequence[Mapping[str, Any]]

_MAX_DETECTIONS = 20  # per image, by score
_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of OKS
_RECALL_POINTS = np.linspace(0, 1, 101)
_AREA_RANGES = {"": (0, 1e10), "_m": (32**2, 96**2), "_l": (96**2, 1e10)}  # square pixels
_COLUMNS = ("Body", "Foot", "Face", "Hand", "Whole")


def rescore(keypoint_scores: Array, bbox_scores: Array, threshold: float = 0.2) -> Array:
    """Return the score of each person, `(N,)`.

    It is the box score times the mean of those keypoint scores `(N, K)` that exceed
    `threshold`, 0 if none does.
    """
    scores = np.asarray(keypoint_scores, dtype=np.float64)
    counts = scores > threshold
    sums = np.where(counts, scores, 0.0).sum(axis=1)  # (N,)
    return sums / np.maximum(counts.sum(axis=1), 1) * np.asarray(bbox_scores, dtype=np.float64)


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
    fields = keypoint_fields(skeleton)
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
        row: dict[str, Any] = {"image_id": int(image_id), "category_id": PERSON}
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


@dataclass(frozen=True, kw_only=True)
class CocoStats:
    """The ten COCO keypoint statistics as fractions, -1 where there is nobody to find.

    `_m` and `_l` are people of medium (32² to 96² square pixels) and large area. `removed`
    counts the detections left out because none of their keypoint scores was positive.
    """

    ap: float
    ap50: float
    ap75: float
    ap_m: float
    ap_l: float
    ar: float
    ar50: float
    ar75: float
    ar_m: float
    ar_l: float
    removed: int

    def to_dict(self) -> dict[str, float]:
        """Return the values under the names of the field: AP, AP50, …, AR_L, and removed."""
        values = dataclasses.asdict(self)
        removed = values.pop("removed")
        return {name.upper(): value for name, value in values.items()} | {"removed": removed}


@dataclass(frozen=True, kw_only=True)
class WholeBodyStats:
    """COCO-WholeBody statistics per part, and of all 133 keypoints."""

    body: CocoStats
    feet: CocoStats
    face: CocoStats
    left_hand: CocoStats
    right_hand: CocoStats
    whole: CocoStats

    def table(self) -> dict[str, float]:
        """Return the ten columns of the published tables; a hand is the plain mean of both."""
        columns = {"Body": self.body, "Foot": self.feet, "Face": self.face, "Whole": self.whole}
        row: dict[str, float] = {}
        for kind in ("ap", "ar"):
            values = {name: getattr(stats, kind) for name, stats in columns.items()}
            hands = [getattr(hand, kind) for hand in (self.left_hand, self.right_hand)]
            values["Hand"] = -1.0 if -1 in hands else sum(hands) / 2
            row |= {f"{name} {kind.upper()}": value for name, value in values.items()}
        return {f"{n} {k}": row[f"{n} {k}"] for n in _COLUMNS for k in ("AP", "AR")}

    def to_dict(self) -> dict[str, Any]:
        """Return the table columns and, below `parts`, the statistics of each part."""
        parts = {f.name: getattr(self, f.name).to_dict() for f in dataclasses.fields(self)}
        return {**self.table(), "parts": parts}


def evaluate_coco(
    ground_truth: Source,
    results: Rows,
    skeleton: Skeleton,
    *,
    detection_area: Literal["keypoints", "bbox"] = "keypoints",
) -> CocoStats:
    """Score result rows against COCO annotations, both as content or as a JSON file.

    Args:
        ground_truth: annotations of all images of the set, those without results too.
        results: rows of `image_id`, `category_id`, `keypoints`, `score` (and `bbox`).
        skeleton: decides the number of keypoints and the sigmas.
        detection_area: what decides whether an unmatched detection is medium or large: the box
            around its keypoints, or the `bbox` of the row (mmpose 1.x).

    Raises:
        DataError: a file is malformed, a number is not finite, an image is unknown, or nobody
            has labelled keypoints.
        InputError: the skeleton is one of whole body.
    """
    if len(skeleton.parts) > 1:
        raise InputError(f"skeleton {skeleton.name!r} has parts; use evaluate_wholebody")
    people = _read_people(ground_truth, skeleton)
    found = read_results(results, skeleton, people, with_bboxes=detection_area == "bbox")
    areas = _extents(found.keypoints) if found.bbox_areas is None else found.bbox_areas
    return _score(people, found, areas, skeleton, (0, skeleton.num_keypoints))


def evaluate_wholebody(ground_truth: Source, results: Rows, skeleton: Skeleton) -> WholeBodyStats:
    """Score whole-body rows part by part; arguments and errors as in `evaluate_coco`.

    Every part uses the person's score and segment area, the box around the body keypoints as
    the area of a detection, and the people with a labelled keypoint of that part.

    Quirk: the `*_valid` flags of the annotations are not consulted, as upstream does not.
    """
    spans = dict(skeleton.parts) | {"whole": (0, skeleton.num_keypoints)}
    parts = [field.name for field in dataclasses.fields(WholeBodyStats)]
    if set(spans) != set(parts):
        raise InputError(f"skeleton {skeleton.name!r} is not that of whole body; use evaluate_coco")
    people = _read_people(ground_truth, skeleton)
    found = read_results(results, skeleton, people, with_bboxes=False)
    areas = _extents(found.keypoints[:, slice(*skeleton.parts["body"])])
    # one after the other, a third of a second each: threads gain nothing, and a process that may
    # hold a CUDA context is not forked for less than a second
    return WholeBodyStats(
        **{part: _score(people, found, areas, skeleton, spans[part]) for part in parts}
    )


def _read_people(ground_truth: Source, skeleton: Skeleton) -> Annotations:
    people = read_annotations(ground_truth, skeleton)
    if not ((people.keypoints[:, :, 2] > 0).any(axis=1) & ~people.is_crowd).any():
        raise DataError(f"{people.source} holds nobody with labelled keypoints; AP is undefined")
    return people


def _extents(keypoints: Array) -> Array:
    """Return the areas of the boxes around keypoints `(N, K, 3)`, `(N,)`."""
    sides = keypoints[..., :2].max(axis=1) - keypoints[..., :2].min(axis=1)
    return sides[:, 0] * sides[:, 1]


def _score(
    people: Annotations, found: Results, areas: Array, skeleton: Skeleton, span: tuple[int, int]
) -> CocoStats:
    """Score a range of keypoints; `areas (N,)` are those of the detections."""
    part = slice(*span)
    is_positive = (found.keypoints[:, part, 2] > 0).any(axis=1)
    rows = _best_per_image(found, np.flatnonzero(is_positive))
    best = Found(
        image_ids=found.image_ids[rows],
        scores=found.scores[rows],
        areas=areas[rows],
        keypoints=found.keypoints[rows, part],
    )
    everybody = _everybody(people, part)
    blocks = oks_blocks(everybody, best, np.array(skeleton.sigmas[part]))
    matches = match(blocks, everybody, best, _THRESHOLDS, list(_AREA_RANGES.values()))
    return _statistics(curves(best, matches, _RECALL_POINTS), int((~is_positive).sum()))


def _everybody(people: Annotations, part: slice) -> People:
    """Return the people by image, those without label in `part` to be ignored."""
    order = np.argsort(people.image_ids, kind="stable")
    keypoints = people.keypoints[order, part]
    is_crowd = people.is_crowd[order]
    return People(
        image_ids=people.image_ids[order],
        bboxes_xywh=people.bboxes_xywh[order],
        areas=people.areas[order],
        keypoints=keypoints,
        is_crowd=is_crowd,
        is_ignored=is_crowd | ~(keypoints[:, :, 2] > 0).any(axis=1),
    )


def _statistics(by_area: Sequence[Curves | None], removed: int) -> CocoStats:
    """Average the curves of all, medium and large people."""
    values: dict[str, float] = {}
    for ending, found in zip(_AREA_RANGES, by_area):
        for kind in ("ap", "ar"):
            if found is None:
                each = np.full(len(_THRESHOLDS), -1.0)
            else:
                each = found.precision if kind == "ap" else found.recall
            values[kind + ending] = float(np.mean(each))
            if not ending:  # thresholds 0.50, 0.55, ..., 0.95
                values[f"{kind}50"], values[f"{kind}75"] = (float(np.mean(each[t])) for t in (0, 5))
    return CocoStats(**values, removed=removed)


def _best_per_image(found: Results, rows: Array) -> Array:
    """Return those of `rows` that are among the 20 best of their image, by image and score."""
    rows = rows[np.lexsort((-found.scores[rows], found.image_ids[rows]))]
    first, counts = np.unique(found.image_ids[rows], return_index=True, return_counts=True)[1:]
    rank = np.arange(len(rows)) - np.repeat(first, counts)
    return rows[rank < _MAX_DETECTIONS]
