"""What a predictor returns for one image: `PoseResult`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .skeletons import Skeleton

__all__ = ["PoseResult", "rescore"]

Array = NDArray[np.float32]

_THRESHOLD = float(np.float32(0.2))  # of a type with the scores, so that 0.2 does not count


def rescore(
    keypoint_scores: NDArray[Any], bbox_scores: NDArray[Any], threshold: float = 0.2
) -> NDArray[np.float64]:
    """Return the score of each person, `(N,)`.

    It is the box score times the mean of those keypoint scores `(N, K)` that exceed
    `threshold`, 0 if none does.
    """
    scores = np.asarray(keypoint_scores, dtype=np.float64)
    counts = scores > threshold
    sums = np.where(counts, scores, 0.0).sum(axis=1)  # (N,)
    means: NDArray[np.float64] = sums / np.maximum(counts.sum(axis=1), 1)
    return means * np.asarray(bbox_scores, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseResult:
    """The poses of `N` persons in one image, as float32 arrays.

    `keypoints (N, K, 2)` are (x, y) in image pixels, `keypoint_scores (N, K)` network
    confidences (no probabilities), `bboxes (N, 4)` xyxy in image pixels, `bbox_scores (N,)` the
    detector's confidences, `image_size` (H, W).

    Index with an integer, a slice, a mask or an array of indices to select persons; iterate to
    get them one by one, each as a result of length 1.

    Raises:
        InputError: an array whose shape does not fit the others or the skeleton.
    """

    keypoints: Array
    keypoint_scores: Array
    bboxes: Array
    bbox_scores: Array
    skeleton: Skeleton
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        count, k = len(self.bboxes), self.skeleton.num_keypoints
        shapes = {
            "keypoints": (count, k, 2),
            "keypoint_scores": (count, k),
            "bboxes": (count, 4),
            "bbox_scores": (count,),
        }
        for name, shape in shapes.items():
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise InputError(
                    f"{name} has shape {array.shape}, expected {shape} for {count} persons with "
                    f"the {k} keypoints of {self.skeleton.name!r}"
                )
            object.__setattr__(self, name, array)
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise InputError(f"image_size is {self.image_size!r}, expected (H, W) in pixels")

    def __len__(self) -> int:
        return len(self.bboxes)

    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> PoseResult:
        """Return the selected persons; an integer selects one and keeps the first axis."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"person {index} of a result with {len(self)} persons")
            index = [int(index)]
        if isinstance(index, list):
            index = np.asarray(index, dtype=None if index else np.intp)
        return dataclasses.replace(
            self,
            keypoints=self.keypoints[index],
            keypoint_scores=self.keypoint_scores[index],
            bboxes=self.bboxes[index],
            bbox_scores=self.bbox_scores[index],
        )

    def __iter__(self) -> Iterator[PoseResult]:
        return (self[i] for i in range(len(self)))

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return one row of a COCO result file per person.

        `keypoints` is flat [x, y, score, ...]; whole-body poses are split into the five lists
        that COCO-WholeBody uses. `score` is the box score times the mean of the keypoint scores
        above 0.2 (0 if there is none), `bbox` xywh. Numbers that are not finite, which JSON does
        not have, become 0: a keypoint with its score, a box with the score of its person.
        """
        fields = self.skeleton.coco_fields
        people = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], 2)  # (N, K, 3)
        people = np.where(np.isfinite(people).all(axis=2, keepdims=True), people, 0)
        boxes = np.concatenate([self.bboxes, self.bbox_scores[:, None]], 1)  # (N, 5)
        boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0)
        scores = rescore(people[..., 2], boxes[:, 4], _THRESHOLD).tolist()
        rows = []
        for points, (x1, y1, x2, y2), score in zip(people, boxes[:, :4].tolist(), scores):
            row: dict[str, Any] = {
                "image_id": image_id,
                "category_id": 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for field, (start, stop) in fields.items():
                row[field] = points[start:stop].reshape(-1).tolist()
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with names; numbers that are not finite become None."""
        return {
            "image_size": list(self.image_size),
            "skeleton": self.skeleton.name,
            "keypoint_names": list(self.skeleton.keypoint_names),
            "parts": {part: list(span) for part, span in self.skeleton.parts.items()},
            "persons": [
                {
                    "bbox": _plain(self.bboxes[i]),
                    "bbox_score": _plain(self.bbox_scores[i]),
                    "keypoints": _plain(self.keypoints[i]),
                    "keypoint_scores": _plain(self.keypoint_scores[i]),
                }
                for i in range(len(self))
            ],
        }

    def to_supervision(self) -> Any:
        """Return `supervision.KeyPoints` with the same persons, points and scores.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision() needs the package supervision: pip install 'posezoo[supervision]'"
            ) from error
        # by position: the third argument, the scores, has two names in the versions around
        return supervision.KeyPoints(self.keypoints, None, self.keypoint_scores)


def _plain(array: Any) -> Any:
    values = np.asarray(array).astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()
