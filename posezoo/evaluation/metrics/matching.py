"""COCO's keypoint matching for a whole data set at once: OKS, partners, precision and recall.

pycocotools walks image by image, threshold by threshold and person by person. Here images with
equally many people are matched together, at all thresholds and for all ranges of areas; only
the detections of an image come one after the other, as the rule demands. Sums run in
pycocotools' order, so that results agree to the last bit.

Letters: `I` images, `D` detections and `G` people of each of them, `N` and `P` those of all
images, `K` keypoints, `T` thresholds of OKS, `A` ranges of areas, `R` recall points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curves", "Found", "Matches", "OksBlock", "People", "curves", "match", "oks_blocks"]

Array = NDArray[Any]

_PAIRS = 4096  # of detection and person per block: temporaries stay in the cache


@dataclass(frozen=True, kw_only=True)
class People:
    """Annotated people, those of an image in a row, images ascending.

    `image_ids (P,)`; `bboxes_xywh (P, 4)`; `areas (P,)` of the segments; `keypoints (P, K, 3)`
    with v > 0 where labelled; `is_crowd (P,)`; `is_ignored (P,)`, neither right nor wrong.
    """

    image_ids: Array
    bboxes_xywh: Array
    areas: Array
    keypoints: Array
    is_crowd: Array
    is_ignored: Array


@dataclass(frozen=True, kw_only=True)
class Found:
    """Detections, those of an image in a row and best first, images ascending.

    `image_ids`, `scores` and `areas` are `(N,)`, `keypoints (N, K, 3)`.
    """

    image_ids: Array
    scores: Array
    areas: Array
    keypoints: Array


@dataclass(frozen=True, kw_only=True)
class OksBlock:
    """OKS `(I, D, G)` of the `detections (I, D)` and `people (I, G)` of some images.

    Both are rows of `Found` and `People`. Where an image has fewer than `D` detections the rows
    are -1, and so is OKS.
    """

    detections: Array
    people: Array
    oks: Array


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Who belongs to whom, -1 for nobody.

    `person_of (A, T, N)` are rows of `People`, `detection_of (A, T, P)` rows of `Found`;
    `is_ignored (A, T, N)` and `people_ignored (A, P)` count neither as right nor as wrong.
    """

    person_of: Array
    detection_of: Array
    is_ignored: Array
    people_ignored: Array


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Precision and scores `(T, R)` at the recall points, and the largest recall `(T,)`."""

    precision: Array
    scores: Array
    recall: Array


def oks_blocks(people: People, found: Found, sigmas: Array) -> Iterator[OksBlock]:
    """Yield OKS of all detections with all people, for every image that has both.

    OKS is the mean of exp(-d² / (2 area (2 sigma)²)) over the labelled keypoints. For people
    without any, d is the distance to the box grown by its own size on every side, and the mean
    runs over all keypoints.
    """
    spread = (np.asarray(sigmas, dtype=np.float64) * 2) ** 2  # (K,)
    with_people, first_person, num_people = _runs(people.image_ids)
    with_found, first_found, num_found = _runs(found.image_ids)
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
            persons = first_person[images, None] + np.arange(g)  # (I, G)
            oks = _oks(people, found, spread, detections, persons)
            yield OksBlock(detections=detections, people=persons, oks=oks)


def _runs(image_ids: Array) -> tuple[Array, Array, Array]:
    """Return the ids, the first row and the number of rows of each image."""
    return np.unique(image_ids, return_index=True, return_counts=True)


def _oks(people: People, found: Found, spread: Array, detections: Array, persons: Array) -> Array:
    """Return `(I, D, G)`. People with equally many labelled keypoints are computed together."""
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
    return oks.reshape(count, width, depth).transpose(0, 2, 1)


def _beyond_box(x: Array, y: Array, bboxes_xywh: Array) -> tuple[Array, Array]:
    """Return how far points `(S, D, K)` lie outside boxes grown by their size on every side."""
    left, top, width, height = bboxes_xywh.T[:, :, None, None]
    beyond = [
        np.maximum(0, (low - size) - values) + np.maximum(0, values - (low + size * 2))
        for values, low, size in ((x, left, width), (y, top, height))
    ]
    return beyond[0], beyond[1]


def match(
    blocks: Iterable[OksBlock],
    people: People,
    found: Found,
    thresholds: Array,
    area_ranges: Sequence[Sequence[float]],
) -> Matches:
    """Give each detection, best first, a partner at each threshold and for each area range.

    A detection takes the free person of highest OKS, the later one among equals; people to
    ignore only if no other is left. Crowds stay free. Whoever takes a person to ignore is
    ignored, and so is a detection without partner outside the range.
    """
    limits = np.minimum(thresholds, 1 - 1e-10)
    ranges = np.asarray(area_ranges, dtype=np.float64)
    people_ignored = people.is_ignored | _outside(people.areas, ranges)  # (A, P)
    shape = len(ranges), len(limits)
    person_of = np.full((*shape, len(found.scores)), -1)
    detection_of = np.full((*shape, len(people.areas)), -1)
    for block in blocks:
        _match_block(block, limits, people.is_crowd, people_ignored, person_of, detection_of)
    nobody = np.zeros((len(ranges), 1), dtype=bool)  # what row -1 finds
    rows = np.arange(len(ranges))[:, None, None]
    is_ignored = np.concatenate([people_ignored, nobody], axis=1)[rows, person_of]
    is_ignored |= (person_of < 0) & _outside(found.areas, ranges)[:, None]
    return Matches(
        person_of=person_of,
        detection_of=detection_of,
        is_ignored=is_ignored,
        people_ignored=people_ignored,
    )


def _outside(areas: Array, ranges: Array) -> Array:
    """Return `(A, ...)`: whether areas lie outside each (smallest, largest)."""
    smallest, largest = ranges.T[:, :, None]
    return (areas < smallest) | (areas > largest)


def _match_block(
    block: OksBlock,
    limits: Array,
    is_crowd: Array,
    people_ignored: Array,
    person_of: Array,
    detection_of: Array,
) -> None:
    """Write the partners of one block into `person_of (A, T, N)`, `detection_of (A, T, P)`."""
    # the number of people leads, so that the loops over it run along whole arrays
    oks = block.oks.transpose(2, 1, 0)  # (G, D, I)
    width, depth, _ = oks.shape
    order = np.argsort(oks, axis=0, kind="stable")
    rank = np.argsort(order, axis=0).astype(np.int32)  # the later of two equals ranks higher
    bonus = np.where(people_ignored[:, block.people], 0, width).astype(np.int32)  # (A, I, G)
    bonus = bonus.transpose(2, 0, 1)  # (G, A, I)
    crowd = is_crowd[block.people]  # (I, G)
    is_free = np.ones((width, len(bonus[0]), len(limits), oks.shape[2]), dtype=bool)
    for d in range(depth):
        is_near = oks[:, d, None] >= limits[:, None]  # (G, T, I)
        if not is_near.any():
            continue
        wish = (rank[:, d, None] + bonus)[:, :, None]  # (G, A, 1, I)
        best = np.where(is_near[:, None] & is_free, wish, np.int32(-1)).max(axis=0)  # (A, T, I)
        a, t, i = np.nonzero(best >= 0)
        g = order[best[a, t, i] % width, d, i]
        is_free[g, a, t, i] = crowd[i, g]
        person_of[a, t, block.detections[i, d]] = block.people[i, g]
        detection_of[a, t, block.people[i, g]] = block.detections[i, d]


def curves(found: Found, matches: Matches, recall_points: Array) -> list[Curves | None]:
    """Return the curves of each area range, None where there is nobody to find."""
    order = np.argsort(-found.scores, kind="stable")
    scores = found.scores[order]
    result: list[Curves | None] = []
    for a, ignored in enumerate(matches.people_ignored):
        number = int(np.count_nonzero(~ignored))
        if number == 0:
            result.append(None)
            continue
        rows = [
            _curve(person_of[order] >= 0, is_ignored[order], scores, number, recall_points)
            for person_of, is_ignored in zip(matches.person_of[a], matches.is_ignored[a])
        ]
        precision, values, recall = map(np.stack, zip(*rows))
        result.append(Curves(precision=precision, scores=values, recall=recall))
    return result


def _curve(
    is_match: Array, is_ignored: Array, scores: Array, people: int, recall_points: Array
) -> tuple[Array, Array, float]:
    """Return precision and scores `(R,)` and the largest recall, for detections best first."""
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
    values = np.zeros((2, len(recall_points)))
    values[0, : len(index)] = precision[index]
    values[1, : len(index)] = scores[steps[index]]
    return values[0], values[1], float(recall[-1]) if len(recall) else 0.0
