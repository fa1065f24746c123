"""Strict reading of COCO annotations, detections and results as columns.

A file that cannot give a right number is refused. Only the category of people is read; rows of
other categories are left out and counted in the log.
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
from ..files import load_json
from ..skeletons import Skeleton
from .categories import only_category, person_category
from .tables import Table, describe

__all__ = [
    "AnnotationSource",
    "Annotations",
    "Detections",
    "ResultSource",
    "Results",
    "read_annotations",
    "read_detections",
    "read_results",
    "to_xyxy",
]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The `P` people of an annotation file in file order, and all its images.

    Attributes:
        source: the file.
        category: id of the category of people.
        images: its list of images, `all_image_ids` the ids in it.
        numbers: `(P,)` positions in the file's list of people.
        ids, image_ids: `(P,)`.
        bboxes_xywh: `(P, 4)` in image pixels.
        areas: `(P,)` of the segments, square pixels; of the box where the file has none or 0.
        derived_areas: how many of these people have that of their box.
        is_crowd: `(P,)`.
        keypoints: `(P, K, 3)`: x and y in image pixels, and v, above 0 where labelled.
    """

    source: str
    category: int
    images: Table
    all_image_ids: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    bboxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    keypoints: NDArray[np.float64]
    derived_areas: int = 0

    @property
    def bboxes_xyxy(self) -> NDArray[np.float64]:
        """The boxes by their corners, `(P, 4)`."""
        return to_xyxy(self.bboxes_xywh)

    @property
    def is_counted(self) -> NDArray[np.bool_]:
        """Whether somebody is no crowd and has a labelled keypoint, `(P,)`."""
        return ~self.is_crowd & (self.keypoints[:, :, 2] > 0).any(axis=1)

    @property
    def is_usable(self) -> NDArray[np.bool_]:
        """Whether somebody has in addition a box of more than a pixel to crop, `(P,)`."""
        return self.is_counted & (self.bboxes_xywh[:, 2:] > 1).all(axis=1)

    def select(self, rows: NDArray[Any]) -> Annotations:
        """Return some of the people, by mask or by index, and all images."""
        columns = ("numbers", "ids", "image_ids", "bboxes_xywh", "areas", "is_crowd", "keypoints")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def of_images(self, image_ids: Sequence[int]) -> Annotations:
        """Return some of the images with their people."""
        keep = np.isin(self.all_image_ids, image_ids)
        images, all_image_ids = self.images.select(keep), self.all_image_ids[keep]
        people = self.select(np.isin(self.image_ids, image_ids))
        return replace(people, images=images, all_image_ids=all_image_ids)

    def of_keypoints(self, part: slice) -> Annotations:
        """Return the same people with a range of their keypoints."""
        return replace(self, keypoints=self.keypoints[:, part])

    def file_names(self) -> dict[int, str]:
        """Return the file name of each image by its id.

        Raises:
            DataError: an image has no name.
        """
        return dict(zip(self.all_image_ids.tolist(), self.images.texts("file_name")))

    def sizes(self) -> NDArray[np.int64]:
        """Return the (H, W) of the `I` images, `(I, 2)`.

        Raises:
            DataError: an image has none.
        """
        columns = [self.images.integers(field, 1, 10**6) for field in ("height", "width")]
        return np.stack(columns, axis=1)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Person boxes of a detector; `numbers (N,)` are the positions in the file's list."""

    numbers: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    bboxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]

    @property
    def bboxes_xyxy(self) -> NDArray[np.float64]:
        """The boxes by their corners, `(N, 4)`."""
        return to_xyxy(self.bboxes_xywh)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Predicted people: `image_ids`, `scores` and `areas` `(N,)`, `keypoints (N, K, 3)` with x, y
    and score. The area is that of the person's box or of a box around keypoints.
    """

    image_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    keypoints: NDArray[np.float64]


AnnotationSource = str | Path | Mapping[str, Any] | Annotations
"""An annotation file, its content, or what was read from it."""
ResultSource = str | Path | Sequence[Mapping[str, Any]]
"""A result file or its rows."""


def read_annotations(
    source: AnnotationSource, skeleton: Skeleton, category: str | None = None
) -> Annotations:
    """Read the people of a COCO or COCO-WholeBody annotation file.

    Somebody without `iscrowd` is no crowd. `area` is what distances are compared with: where it is
    missing or 0 for somebody with labelled keypoints, that of the box is taken, and the number of
    these people is logged.

    Args:
        source: the file, or its content.
        skeleton: its keypoints.
        category: name or id of the category of people, see `person_category`.

    Raises:
        DataError: the file has another form, ids are not unique integers, an image is unknown, a
            field is missing, or a number is not finite or out of range.
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
    rows = Table(content["annotations"], f"{name}: annotations")
    number = person_category(content.get("categories"), rows, name, category)
    people = only_category(rows, number)
    ids = people.integers("id", minimum=0)
    people.require_unique("id", ids)
    image_ids = _image_ids(people, all_image_ids, name)
    annotations = Annotations(
        source=name,
        category=number,
        images=images,
        all_image_ids=all_image_ids,
        numbers=people.numbers,
        ids=ids,
        image_ids=image_ids,
        bboxes_xywh=_bboxes(people),
        areas=people.floats("area", minimum=0, default=0.0),
        is_crowd=people.integers("iscrowd", minimum=0, maximum=1, default=0) == 1,
        keypoints=_keypoints(people, skeleton),
    )
    _require_consistent_counts(people, annotations.keypoints[:, slice(*skeleton.parts["body"])])
    return _with_areas(annotations, people)


def read_detections(path: str | Path, annotations: Annotations) -> Detections:
    """Read a detection file: a list of `image_id`, `category_id`, `bbox` xywh and `score`.

    Boxes of images that are not annotated are left out and counted in the log, so that the file
    of a whole set serves a part of it.

    Raises:
        DataError: the list is empty, holds no person or none of the images, a field is missing,
            or a number is not finite or out of range.
    """
    table = Table(load_json(path), f"{path}: detections")
    if not len(table):
        raise DataError(f"{path} is an empty list; valid: at least one person box")
    people = only_category(table, annotations.category)
    image_ids = people.integers("image_id", minimum=0)
    is_known = np.isin(image_ids, annotations.all_image_ids)
    others = len(people) - int(is_known.sum())
    if others == len(people):
        people.require_known("image_id", image_ids, annotations.all_image_ids, annotations.source)
    if others:
        _LOGGER.warning(
            "%s: %d rows of images that %s does not have are left out",
            people.name, others, annotations.source,
        )  # fmt: skip
        people, image_ids = people.select(is_known), image_ids[is_known]
    return Detections(
        numbers=people.numbers,
        image_ids=image_ids,
        bboxes_xywh=_bboxes(people),
        scores=people.floats("score"),
    )


def read_results(
    source: ResultSource, skeleton: Skeleton, annotations: Annotations, *, area_of_bbox: bool
) -> Results:
    """Read result rows that were made for the images of `annotations`.

    Args:
        source: rows or a file.
        skeleton: decides the fields of the keypoints.
        annotations: name the images.
        area_of_bbox: whether the area of somebody is that of the `bbox`, which is read only
            then, or of the box around the keypoints of the body.

    Raises:
        DataError: there are no rows, an image is unknown, a field is missing, or a number is
            not finite (NaN predictions would score as perfect ones).
    """
    name, content = _content(source, "the results")
    table = Table(content, f"{name}: results")
    if not len(table):
        raise DataError(f"{name} is an empty list; valid: at least one result")
    people = only_category(table, annotations.category)
    image_ids = _image_ids(people, annotations.all_image_ids, annotations.source)
    keypoints = _keypoints(people, skeleton)
    if area_of_bbox:
        sides = _bboxes(people)[:, 2:]
    else:
        body = keypoints[:, slice(*skeleton.parts["body"]), :2]
        sides = body.max(axis=1) - body.min(axis=1)  # (N, 2)
    return Results(
        image_ids=image_ids,
        scores=people.floats("score"),
        areas=sides[:, 0] * sides[:, 1],
        keypoints=keypoints,
    )


def to_xyxy(bboxes_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn boxes `(N, 4)` as COCO writes them into corners."""
    return np.concatenate([bboxes_xywh[:, :2], bboxes_xywh[:, :2] + bboxes_xywh[:, 2:]], axis=1)


def _content(source: Any, name: str) -> tuple[str, Any]:
    if isinstance(source, (str, Path)):
        return str(source), load_json(source)
    return name, source


def _image_ids(table: Table, known: NDArray[np.int64], source: str) -> NDArray[np.int64]:
    image_ids = table.integers("image_id", minimum=0)
    table.require_known("image_id", image_ids, known, source)
    return image_ids


def _bboxes(table: Table) -> NDArray[np.float64]:
    """Return `(N, 4)` xywh."""
    bboxes = table.floats("bbox", (4,))
    bad = (bboxes[:, 2:] < 0).any(axis=1)
    if bad.any():
        raise table.blame(int(bad.argmax()), "bbox", "x, y, width, height; no size below 0")
    return bboxes


def _keypoints(table: Table, skeleton: Skeleton) -> NDArray[np.float64]:
    """Return `(N, K, 3)`, the fields of the file in the order of the skeleton."""
    columns = [
        table.floats(field, (3 * (stop - start),))
        for field, (start, stop) in skeleton.coco_fields.items()
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


def _with_areas(annotations: Annotations, table: Table) -> Annotations:
    """Take the area of the box where there is none, and refuse those that mean nothing."""
    boxes = annotations.bboxes_xywh[:, 2:].prod(axis=1)
    derived = annotations.is_counted & (annotations.areas == 0)
    areas = np.where(derived, boxes, annotations.areas)
    bad = annotations.is_counted & (areas == 0)
    if annotations.images.has("width") and annotations.images.has("height"):
        by_image = dict(zip(annotations.all_image_ids.tolist(), annotations.sizes().prod(axis=1)))
        images = np.array([by_image[i] for i in annotations.image_ids.tolist()])
        bad |= annotations.is_counted & (areas > np.maximum(boxes, images))
    if bad.any():
        row = int(bad.argmax())
        raise table.blame(
            row, "bbox" if derived[row] else "area",
            "square pixels above 0, no more than the image or the box has",
        )  # fmt: skip
    if derived.any():
        _LOGGER.warning(
            "%s: %d people have no area; that of their box is taken", table.name, derived.sum()
        )
    return replace(annotations, areas=areas, derived_areas=int(derived.sum()))
