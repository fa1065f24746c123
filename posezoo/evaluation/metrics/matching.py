"""COCO's keypoint matching for a whole data set at once: OKS, partners, precision and recall.

pycocotools walks image by image, threshold by threshold and person by person. Here images with
equally many people are matched together, at all thresholds and for all ranges of areas; only
the detections of an image come one after the other, as the rule demands. Sums run in
pycocotools' order, so that results agree to the last bit.

Letters: `I` images, `D` detections and `G` people of each of them, `N` and `P` those of all
images, `K` keypoints, `T` thresholds of OKS, `A` ranges of areas, `R` recall points.

People are `Annotations`, those of an image in a row, images ascending; detections are `Results`,
in the same order and best first within an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.coco import Annotations, Results

__all__ = ["Matches", "curves", "match"]

Array = NDArray[Any]

_PAIRS = 4096  # of detection and person per block: temporaries stay in the cache


@dataclass(frozen=True, kw_only=True)
class Matches:
    """What became of the detections: `is_match` and `is_ignored` `(A, T, N)`; who is ignored
    counts neither as right nor as wrong. `num_people (A,)` are to be found.
    """

    is_match: Array
    is_ignored: Array
    num_people: Array


def match(
    people: Annotations,
    found: Results,
    sigmas: Sequence[float],
    thresholds: Array,
    area_ranges: Sequence[tuple[float, float]],
) -> Matches:
    """Give each detection, best first, a partner at each threshold and for each area range.

    A detection takes the free person of highest OKS, the later one among equals; people to
    ignore (not counted, or outside the range) only if no other is left. Crowds stay free. Whoever
    takes a person to ignore is ignored, and so is a detection without partner outside the range.
    """
    ranges = np.asarray(area_ranges, dtype=np.float64)
    people_ignored = ~people.is_counted | _outside(people.areas, ranges)  # (A, P)
    person_of = np.full((len(ranges), len(thresholds), len(found.scores)), -1)  # row of the partner
    spread = (np.asarray(sigmas, dtype=np.float64) * 2) ** 2  # (K,)
    for detections, persons in _blocks(people.image_ids, found.image_ids):
        oks = _oks(people, found, spread, detections, persons)
        _match_block(
            oks, detections, persons, thresholds, people.is_crowd, people_ignored, person_of
        )
    nobody = np.zeros((len(ranges), 1), dtype=bool)  # what row -1 finds
    rows = np.arange(len(ranges))[:, None, None]
    is_ignored = np.concatenate([people_ignored, nobody], axis=1)[rows, person_of]
    is_ignored |= (person_of < 0) & _outside(found.areas, ranges)[:, None]
    return Matches(
        is_match=person_of >= 0,
        is_ignored=is_ignored,
        num_people=np.count_nonzero(~people_ignored, axis=1),
    )


def _outside(areas: Array, ranges: Array) -> Array:
    """Return `(A, ...)`: whether areas are outside each (smallest, largest)."""
    smallest, largest = ranges.T[:, :, None]
    outside: Array = (areas < smallest) | (areas > largest)
    return outside


def _blocks(people_ids: Array, found_ids: Array) -> Iterator[tuple[Array, Array]]:
    """Yield rows of detections `(I, D)` and people `(I, G)` of images that have both.

    Where an image has fewer than `D` detections the rows are -1.
    """
    with_people, first_person, num_people = _runs(people_ids)
    with_found, first_found, num_found = _runs(found_ids)
    _, a, b = np.intersect1d(with_people, with_found, assume_unique=True, return_indices=True)
    first_person, num_people = first_person[a], num_people[a]
    first_found, num_found = first_found[b], num_found[b]
    for g in np.unique(num_people).tolist():
        alike = np.flatnonzero(num_people == g)
        alike = alike[np.argsort(num_found[alike], kind="stable")]  # little to fill up
        size = max(1, _PAIRS // (g * int(num_found[alike].max())))
        for start in range(0, len(alike), size):
            images = alike[start : start + size]
            row = np.arange(int(num_found[images].max()))
            detections = np.where(
                row < num_found[images, None], first_found[images, None] + row, -1
            )  # (I, D)
            yield detections, first_person[images, None] + np.arange(g)  # (I, G)


def _runs(image_ids: Array) -> tuple[Array, Array, Array]:
    """Return the ids, the first row and the number of rows of each image."""
    return np.unique(image_ids, return_index=True, return_counts=True)


def _oks(
    people: Annotations, found: Results, spread: Array, detections: Array, persons: Array
) -> Array:
    """Return OKS `(I, D, G)`, -1 where there is no detection.

    OKS is the mean of exp(-d² / (2 area (2 sigma)²)) over the labelled keypoints. For people
    without any, d is the distance to the box grown by its own size on every side, and the mean
    runs over all keypoints. People with equally many labelled keypoints are computed together.
    """
    (count, depth), width = detections.shape, persons.shape[1]
    rows = persons.ravel()  # (I * G,)
    theirs = np.repeat(detections, width, axis=0)  # (I * G, D)
    truth = people.keypoints[rows]  # (I * G, K, 3)
    is_labelled = truth[..., 2] > 0
    numbers = is_labelled.sum(axis=1)
    areas = people.areas[rows] + np.spacing(1)
    oks = np.empty((len(rows), depth))
    for n in np.unique(numbers).tolist():
        those = np.flatnonzero(numbers == n)
        them = theirs[those][:, :, None]  # (S, D, 1)
        if n == 0:
            x, y = (found.keypoints[them[:, :, 0], :, axis] for axis in (0, 1))  # (S, D, K)
            dx, dy = _beyond_box(x, y, people.bboxes_xywh[rows[those]])
            divisor = spread
        else:
            labels = np.nonzero(is_labelled[those])[1].reshape(-1, 1, n)
            dx, dy = (
                found.keypoints[them, labels, axis] - truth[those[:, None, None], labels, axis]
                for axis in (0, 1)
            )  # (S, D, n)
            divisor = spread[labels]
        exponent = (dx**2 + dy**2) / divisor / areas[those, None, None] / 2
        oks[those] = np.exp(-exponent).sum(axis=-1) / exponent.shape[-1]
    oks[theirs < 0] = -1
    blocks: Array = oks.reshape(count, width, depth).transpose(0, 2, 1)
    return blocks


def _beyond_box(x: Array, y: Array, bboxes_xywh: Array) -> tuple[Array, Array]:
    """Return how far points `(S, D, K)` are outside boxes grown by their size on every side."""
    left, top, width, height = bboxes_xywh.T[:, :, None, None]
    beyond = [
        np.maximum(0, (low - size) - values) + np.maximum(0, values - (low + size * 2))
        for values, low, size in ((x, left, width), (y, top, height))
    ]
    return beyond[0], beyond[1]


def _match_block(
    oks: Array,
    detections: Array,
    persons: Array,
    thresholds: Array,
    is_crowd: Array,
    people_ignored: Array,
    person_of: Array,
) -> None:
    """Write the partners of the detections of one block into `person_of (A, T, N)`."""
    # the number of people leads, so that the loops over it run along whole arrays
    oks = oks.transpose(2, 1, 0)  # (G, D, I)
    width, depth, _ = oks.shape
    order = np.argsort(oks, axis=0, kind="stable")
    rank = np.argsort(order, axis=0).astype(np.int32)  # the later of two equals ranks higher
    bonus = np.where(people_ignored[:, persons], 0, width).astype(np.int32)  # (A, I, G)
    bonus = bonus.transpose(2, 0, 1)  # (G, A, I)
    crowd = is_crowd[persons]  # (I, G)
    is_free = np.ones((width, len(bonus[0]), len(thresholds), oks.shape[2]), dtype=bool)
    for d in range(depth):
        is_near = oks[:, d, None] >= thresholds[:, None]  # (G, T, I)
        if not is_near.any():
            continue
        wish = (rank[:, d, None] + bonus)[:, :, None]  # (G, A, 1, I)
        best = np.where(is_near[:, None] & is_free, wish, np.int32(-1)).max(axis=0)  # (A, T, I)
        a, t, i = np.nonzero(best >= 0)
        g = order[best[a, t, i] % width, d, i]
        is_free[g, a, t, i] = crowd[i, g]
        person_of[a, t, detections[i, d]] = persons[i, g]


def curves(scores: Array, matches: Matches, recall_points: Array) -> tuple[Array, Array]:
    """Return precision `(A, T, R)` at the recall points and the largest recall `(A, T)`.

    Both are -1 for a range of areas in which there is nobody to find. `scores` are `(N,)`.
    """
    order = np.argsort(-scores, kind="stable")
    areas, thresholds, _ = matches.is_match.shape
    precision = np.full((areas, thresholds, len(recall_points)), -1.0)
    recall = np.full((areas, thresholds), -1.0)
    for a in np.flatnonzero(matches.num_people).tolist():
        for t in range(thresholds):
            precision[a, t], recall[a, t] = _curve(
                matches.is_match[a, t, order],
                matches.is_ignored[a, t, order],
                int(matches.num_people[a]),
                recall_points,
            )
    return precision, recall


def _curve(
    is_match: Array, is_ignored: Array, people: int, recall_points: Array
) -> tuple[Array, float]:
    """Return precision `(R,)` and the largest recall, for detections best first."""
    counted = ~is_ignored
    right = is_match & counted
    # precision only rises, and recall only grows, where a detection is right
    steps = np.flatnonzero(right)
    if len(counted) and not right[0]:
        steps = np.concatenate([[0], steps])
    hits = np.cumsum(right)[steps].astype(np.float64)
    misses = np.cumsum(~is_match & counted)[steps].astype(np.float64)
    recall = hits / people
    precision = hits / (misses + hits + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, recall_points, side="left")
    index = index[index < len(steps)]
    values = np.zeros(len(recall_points))
    values[: len(index)] = precision[index]
    return values, float(recall[-1]) if len(recall) else 0.0
