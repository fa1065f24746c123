"""Strict reading of COCO annotations, detections and results as columns.

pycocotools takes almost any file and returns a number. Here a file that cannot give a right
one is refused. Only category 1, person, is read; rows of other categories are left out and
counted in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..skeletons import Skeleton
from .tables import Table, describe, load_json

__all__ = [
    "PERSON",
    "Annotations",
    "Detections",
    "Results",
    "keypoint_fields",
    "read_annotations",
    "read_detections",
    "read_results",
]

_LOGGER = logging.getLogger(__name__)

PERSON = 1  # category id of COCO
_PART_FIELDS = {
    "body": "keypoints",
    "feet": "foot_kpts",
    "face": "face_kpts",
    "left_hand": "lefthand_kpts",
    "right_hand": "righthand_kpts",
}


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The people of an annotation file, `P` rows in file order, and all its images.

    `bboxes_xywh` and `areas` (of the segment) are in image pixels; `keypoints` is
    `(P, K, 3)` with x, y and v, where v > 0 means labelled; `numbers` are the positions in
    the file's list.
    """

    source: str
    images: Table
    all_image_ids: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    bboxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    keypoints: NDArray[np.float64]

    def of_images(self, image_ids: Sequence[int]) -> Annotations:
        """Return the part about some images."""
        is_wanted = np.isin(self.image_ids, image_ids)
        keep = np.isin(self.all_image_ids, image_ids)
        rows = ("numbers", "ids", "image_ids", "bboxes_xywh", "areas", "is_crowd", "keypoints")
        return replace(
            self,
            images=self.images.select(keep),
            all_image_ids=self.all_image_ids[keep],
            **{name: getattr(self, name)[is_wanted] for name in rows},
        )


@dataclass(frozen=True, kw_only=True)
class Results:
    """Predicted people: `keypoints (N, K, 3)` with x, y and score; `bbox_areas` on request."""

    image_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    bbox_areas: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Person boxes of a detector; `numbers (N,)` are the positions in the file's list."""

    numbers: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    bboxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]


def keypoint_fields(skeleton: Skeleton) -> dict[str, tuple[int, int]]:
    """Map each keypoint field of COCO files to the range of keypoints it holds.

    Raises:
        DataError: COCO files have no fields for this skeleton.
    """
    covered = sum(stop - start for start, stop in skeleton.parts.values())
    if covered != skeleton.num_keypoints or not set(skeleton.parts) <= set(_PART_FIELDS):
        raise DataError(
            f"skeleton {skeleton.name!r} has the parts {', '.join(skeleton.parts)}; "
            f"COCO files hold {', '.join(_PART_FIELDS)}"
        )
    return {_PART_FIELDS[part]: span for part, span in skeleton.parts.items()}


def read_annotations(
    source: str | Path | Mapping[str, Any] | Annotations, skeleton: Skeleton
) -> Annotations:
    """Read the people of a COCO or COCO-WholeBody annotation file (or its content).

    What was read already is returned as it is.

    Raises:
        DataError: the file has another form, ids are not unique positive integers, an image
            is unknown, a field is missing, or a number is not finite or out of range.
    """
    if isinstance(source, Annotations):
        return source
    name, content = _content(source, "the annotations")
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= set(content):
        raise DataError(
            f"{name} is {describe(content)}; valid: COCO annotations, an object with the lists "
            "'images' and 'annotations'"
        )
    images = Table(content["images"], f"{name}: images")
    all_image_ids = images.integers("id", minimum=0)
    images.require_unique("id", all_image_ids)
    people = _only_people(Table(content["annotations"], f"{name}: annotations"))
    ids = people.integers("id", minimum=1)  # pycocotools takes id 0 for "not matched"
    people.require_unique("id", ids)
    image_ids = people.integers("image_id", minimum=0)
    people.require_known("image_id", image_ids, all_image_ids, name)
    bboxes = people.floats("bbox", (4,))
    _require_sizes(people, bboxes)
    annotations = Annotations(
        source=name,
        images=images,
        all_image_ids=all_image_ids,
        numbers=people.numbers,
        ids=ids,
        image_ids=image_ids,
        bboxes_xywh=bboxes,
        areas=people.floats("area", minimum=0),
        is_crowd=people.integers("iscrowd", minimum=0, maximum=1) == 1,
        keypoints=_keypoints(people, skeleton),
    )
    _require_consistent_counts(people, annotations.keypoints[:, slice(*skeleton.parts["body"])])
    return annotations


def read_detections(path: str | Path, annotations: Annotations) -> Detections:
    """Read a detection file: a list of `image_id`, `category_id`, `bbox` xywh and `score`.

    Raises:
        DataError: the list is empty or holds no person, an image is unknown, a field is
            missing, or a number is not finite or out of range.
    """
    table = Table(load_json(path), f"{path}: detections")
    if not len(table):
        raise DataError(f"{path} is an empty list; valid: at least one person box")
    people = _only_people(table)
    image_ids = people.integers("image_id", minimum=0)
    people.require_known("image_id", image_ids, annotations.all_image_ids, annotations.source)
    bboxes = people.floats("bbox", (4,))
    _require_sizes(people, bboxes)
    return Detections(
        numbers=people.numbers,
        image_ids=image_ids,
        bboxes_xywh=bboxes,
        scores=people.floats("score"),
    )


def read_results(
    source: str | Path | Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    annotations: Annotations,
    *,
    with_bboxes: bool,
) -> Results:
    """Read result rows, or a file of them, made for the images of `annotations`.

    Raises:
        DataError: there are no rows, an image is unknown, a field is missing, or a number is
            not finite (NaN predictions would score as perfect ones).
    """
    name, content = _content(source, "the results")
    table = Table(content, f"{name}: results")
    if not len(table):
        raise DataError(f"{name} is an empty list; valid: at least one result")
    people = _only_people(table)
    image_ids = people.integers("image_id", minimum=0)
    people.require_known("image_id", image_ids, annotations.all_image_ids, annotations.source)
    bbox_areas = None
    if with_bboxes:
        bboxes = people.floats("bbox", (4,))
        _require_sizes(people, bboxes)
        bbox_areas = bboxes[:, 2] * bboxes[:, 3]
    return Results(
        image_ids=image_ids,
        scores=people.floats("score"),
        keypoints=_keypoints(people, skeleton),
        bbox_areas=bbox_areas,
    )


def _content(source: Any, name: str) -> tuple[str, Any]:
    if isinstance(source, (str, Path)):
        return str(source), load_json(source)
    return name, source


def _only_people(table: Table) -> Table:
    is_person = table.integers("category_id", minimum=0) == PERSON
    others = len(table) - int(is_person.sum())
    if others == len(table):
        raise DataError(f"{table.place} holds no person (category_id {PERSON}) in {others} rows")
    if others:
        _LOGGER.warning("%s: %d rows of other categories are left out", table.place, others)
    return table.select(is_person) if others else table


def _require_sizes(table: Table, bboxes: NDArray[np.float64]) -> None:
    bad = (bboxes[:, 2:] < 0).any(axis=1)
    if bad.any():
        raise table.blame(int(bad.argmax()), "bbox", "x, y, width, height; no size below 0")


def _keypoints(table: Table, skeleton: Skeleton) -> NDArray[np.float64]:
    """Return `(N, K, 3)`, the fields of the file in the order of the skeleton."""
    columns = [
        table.floats(field, (3 * (stop - start),))
        for field, (start, stop) in keypoint_fields(skeleton).items()
    ]
    return np.concatenate(columns, axis=1).reshape(-1, skeleton.num_keypoints, 3)  # (N, K, 3)


def _require_consistent_counts(table: Table, body: NDArray[np.float64]) -> None:
    """Refuse `num_keypoints` that contradicts the keypoints about whether there are any."""
    if table.has("num_keypoints"):
        said = table.integers("num_keypoints", minimum=0) > 0
        bad = said != (body[:, :, 2] > 0).any(axis=1)
        if bad.any():
            raise table.blame(
                int(bad.argmax()), "num_keypoints", "the number of keypoints with v > 0"
            )
