"""`Tracker`: who is who from one frame of a film to the next.

A person of a frame gets the id of the track that is most like it: a quarter of the likeness is OKS
with the track's last pose, three quarters are IoU with its last box, both moved on at the track's
speed. Pairs are taken from the most alike on; whoever is left begins a track. A track without a
person slows down, waits, and is found again by distance.

On ten rendered films of three people who cross, are missed, and leave and come back (7,184 persons
in frames; `benchmarks/tracks.py`) ids were switched 4 times, and nobody who came back got a new
one. Of the trackers in Roboflow's package, C-BIoU switched 0 ids and ByteTrack 8, but both lost all
31 who came back, and left 63 to 103 persons without an id; OC-SORT kept 23 of the 31 and switched
23. Their state cannot be saved by a public method. OKS has the smaller share because a top-down
network that looks for somebody behind somebody else often finds the pose of the one in front.
Optimal assignment instead of the greedy one changed nothing, and would need scipy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..results import PoseResult
from ..skeletons import Skeleton

__all__ = ["Tracker"]

Array = NDArray[np.float64]

_OKS_SHARE = 0.25
_MIN_LIKENESS = 0.1  # below it, only the distance counts
_MIN_SCORE = 0.3  # of keypoints that are compared
_MIN_POINTS = 3  # that both poses must have for OKS
_NEWEST = 0.4  # share of the last step in the speed of a track
_SLOWING = 0.9  # factor on the speed of a track for each frame without its person
_REACH = 2.0  # body sizes from where a lost person was, at most
_REACH_START = 0.25  # of it from one frame to the next
_REACH_GROWTH = 0.05  # more of it for each further frame without the person
_MAX_GROWTH = 2.0  # factor between the sizes of a lost person and of one found again


@dataclass
class _Track:
    """Box (4,), keypoints (K, 2) and scores (K,) when last seen; pixels a frame since then."""

    id: int
    box: Array
    keypoints: Array
    scores: Array
    velocity: Array
    is_moving: bool = False
    missed: int = 0

    def shift(self) -> Array:
        """Return how far (x, y) it should have come by now."""
        shift: Array = self.velocity * sum(_SLOWING**i for i in range(self.missed))
        return shift

    def see(self, box: Array, keypoints: Array, scores: Array) -> None:
        """Go on with a person of this frame."""
        step = (_center(box) - _center(self.box)) / self.missed
        share = _NEWEST if self.is_moving else 0.5
        self.velocity = (1 - share) * self.velocity + share * step
        self.box, self.keypoints, self.scores = box, keypoints, scores
        self.is_moving, self.missed = True, 0


class Tracker:
    """Give the people of a film ids that they keep, frame by frame.

    Only frames up to the present one are used, and the same frames give the same ids: 1, 2, … in
    the order in which people appear. Everybody in a frame has an id.

    Args:
        max_gap: frames that a person may be missed and still keep its id. 60 are 2.4 seconds at
            25 frames a second.

    Raises:
        InputError: `max_gap` is negative.
    """

    def __init__(self, max_gap: int = 60) -> None:
        if max_gap < 0:
            raise InputError(f"max_gap is {max_gap}; valid: frames, 0 or more")
        self.max_gap = max_gap
        self._tracks: list[_Track] = []
        self._next = 1

    def update(self, result: PoseResult) -> PoseResult:
        """Return the next frame's result with ids.

        Raises:
            InputError: another number of keypoints than in the frames before.
        """
        skeleton = result.skeleton
        if self._tracks and len(self._tracks[0].scores) != skeleton.num_keypoints:
            raise InputError(
                f"frames had {len(self._tracks[0].scores)} keypoints until now and have "
                f"{skeleton.num_keypoints}; use one tracker per film and model"
            )
        boxes = np.where(np.isfinite(result.bboxes), result.bboxes, 0).astype(np.float64)
        points = result.keypoints.astype(np.float64)
        is_point = np.isfinite(points).all(axis=2) & np.isfinite(result.keypoint_scores)
        points = np.where(is_point[..., None], points, 0)
        scores = np.where(is_point, result.keypoint_scores, 0).astype(np.float64)
        for track in self._tracks:
            track.missed += 1
        ids: NDArray[np.int64] = np.zeros(len(result), np.int64)
        shifts = self._shifts(result.image_size)
        for t, i in _pairs(_likeness(self._tracks, shifts, boxes, points, scores, skeleton)):
            ids[i] = self._tracks[t].id
            self._tracks[t].see(boxes[i], points[i], scores[i])
        for i in np.flatnonzero(ids == 0).tolist():
            ids[i] = self._next
            self._tracks.append(
                _Track(self._next, boxes[i], points[i], scores[i], velocity=np.zeros(2))
            )
            self._next += 1
        self._tracks = [track for track in self._tracks if track.missed <= self.max_gap]
        return dataclasses.replace(result, ids=ids)

    def _shifts(self, image_size: tuple[int, int]) -> Array:
        """Return how far (T, 2) each track should have come, at most to the edge of the image.

        Whoever has left comes back at the edge, whatever the speed was.
        """
        if not self._tracks:
            return np.zeros((0, 2))
        centers = _center(np.stack([track.box for track in self._tracks]))
        moved = centers + np.stack([track.shift() for track in self._tracks])
        shifts: Array = moved.clip(0, image_size[::-1]) - centers
        return shifts

    def state(self) -> dict[str, Any]:
        """Return what is known of the people, in plain JSON types, for `restore`."""
        return {
            "next": self._next,
            "tracks": [
                {
                    name: value.tolist() if isinstance(value, np.ndarray) else value
                    for name, value in vars(track).items()
                }
                for track in self._tracks
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another tracker's `state` was taken, with the same ids to come.

        Raises:
            DataError: not such a state.
        """
        try:
            tracks = [
                _Track(
                    id=int(track["id"]),
                    box=np.array(track["box"], np.float64),
                    keypoints=np.array(track["keypoints"], np.float64),
                    scores=np.array(track["scores"], np.float64),
                    velocity=np.array(track["velocity"], np.float64),
                    is_moving=bool(track["is_moving"]),
                    missed=int(track["missed"]),
                )
                for track in state["tracks"]
            ]
            for track in tracks:
                shapes = (track.box.shape, track.keypoints.shape, track.velocity.shape)
                if shapes != ((4,), (len(track.scores), 2), (2,)):
                    raise ValueError(f"shapes {shapes}")
            self._next, self._tracks = int(state["next"]), tracks
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a state as Tracker.state() returns it: {error}") from error


def _likeness(
    tracks: list[_Track],
    shifts: Array,
    boxes: Array,
    points: Array,
    scores: Array,
    skeleton: Skeleton,
) -> Array:
    """Return how much each track is like each person, (T, N) from 0 to 1."""
    if not tracks or not len(boxes):
        return np.zeros((len(tracks), len(boxes)))
    old_boxes = np.stack([track.box for track in tracks]) + np.tile(shifts, 2)
    span = slice(*skeleton.parts.get("body", (0, skeleton.num_keypoints)))
    old_points = np.stack([track.keypoints for track in tracks])[:, span] + shifts[:, None]
    old_scores = np.stack([track.scores for track in tracks])[:, span]
    areas = _areas(boxes)
    both = (old_scores[:, None] > _MIN_SCORE) & (scores[None, :, span] > _MIN_SCORE)  # (T, N, K)
    squares = ((old_points[:, None] - points[None, :, span]) ** 2).sum(axis=3)
    falloff = 2 * areas[:, None] * (2 * np.array(skeleton.sigmas[span])) ** 2  # (N, K)
    counts = both.sum(axis=2)
    oks = (np.exp(-squares / falloff) * both).sum(axis=2) / np.maximum(counts, 1)
    oks = np.where(counts >= _MIN_POINTS, oks, 0)
    likeness = _OKS_SHARE * oks + (1 - _OKS_SHARE) * _iou(old_boxes, boxes)
    near = _nearness(old_boxes, boxes, np.array([track.missed for track in tracks]))
    likely: Array = np.where(likeness >= _MIN_LIKENESS, likeness, _MIN_LIKENESS * near)
    return likely


def _nearness(old_boxes: Array, boxes: Array, missed: NDArray[np.int64]) -> Array:
    """Return 1 where a track is expected, 0 where its person cannot be by now, (T, N)."""
    sizes, old_sizes = np.sqrt(_areas(boxes)), np.sqrt(_areas(old_boxes))
    steps = np.linalg.norm(_center(old_boxes)[:, None] - _center(boxes), axis=2)
    reach = _REACH * np.minimum(1, _REACH_START + _REACH_GROWTH * (missed - 1))[:, None] * sizes
    ratio = old_sizes[:, None] / sizes
    is_alike = (ratio < _MAX_GROWTH) & (ratio > 1 / _MAX_GROWTH)
    nearness: Array = np.where(is_alike, np.maximum(1 - steps / reach, 0), 0)
    return nearness


def _pairs(likeness: Array) -> list[tuple[int, int]]:
    """Return pairs (track, person), the most alike first; each is in one pair at most."""
    left, pairs = likeness.copy(), []
    while left.size and left.max() > 0:
        t, i = divmod(int(left.argmax()), left.shape[1])
        pairs.append((t, i))
        left[t], left[:, i] = 0, 0
    return pairs


def _center(boxes: Array) -> Array:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _areas(boxes: Array) -> Array:
    """Return (N,) areas, at least 1 pixel."""
    areas: Array = np.maximum(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1), 1)
    return areas


def _iou(boxes: Array, others: Array) -> Array:
    """Return intersection over union of boxes xyxy, (T, N)."""
    first = np.maximum(boxes[:, None, :2], others[:, :2])
    last = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = np.prod(np.maximum(last - first, 0), axis=2)
    iou: Array = shared / (_areas(boxes)[:, None] + _areas(others) - shared)
    return iou
