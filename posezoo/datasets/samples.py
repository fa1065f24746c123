"""The images of a COCO-form set with the boxes to crop from each: files to samples.

Nothing here opens an image; that the files exist is checked while reading, so that a run does
not end halfway because one is missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import CropConvention, get_convention
from ..skeletons import Skeleton
from .coco import Annotations, read_annotations, read_detections
from .descriptors import COCO
from .names import find_images, images_that_exist

__all__ = [
    "BoxRule",
    "ImageSample",
    "Sample",
    "box_source_of",
    "clean_boxes",
    "find_subset",
    "read_coco",
    "rows_by_image",
    "sizes_by_image",
]

_LOGGER = logging.getLogger(__name__)

BoxRule = str | CropConvention
"""A crop convention or its name."""

_KNOWN_DETECTIONS = (  # person AP of the detectors behind the common files
    (re.compile(r"AP_H_56(?!\d)"), "det56.4"),
    (re.compile(r"AP_H_609(?!\d)"), "det60.9"),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a data set; `size` is (H, W) as annotated, None where no file says."""

    path: Path
    size: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """How many inputs the network gets from it."""
        return 1


@dataclass(frozen=True, kw_only=True)
class ImageSample(Sample):
    """One image and the `N` person boxes to crop from it.

    `bboxes (N, 4)` are xyxy image pixels, `bbox_scores (N,)` 1 for annotated boxes, `box_ids
    (N,)` the positions in the list that the boxes came from. `box_source` says which boxes these
    are: "gt", "det56.4", or the stem of another file.
    """

    image_id: int
    bboxes: NDArray[np.float64]
    bbox_scores: NDArray[np.float64]
    box_ids: NDArray[np.int64]
    box_source: str

    @property
    def count(self) -> int:
        """`N`."""
        return len(self.bboxes)


def read_coco(
    annotations: str | Path | Annotations,
    images: str | Path,
    *,
    boxes: Literal["gt"] | Path,
    skeleton: Skeleton,
    rule: BoxRule,
    subset: bool = False,
) -> list[ImageSample]:
    """Read the images of a COCO or COCO-WholeBody set that have person boxes, in file order.

    Args:
        annotations: `person_keypoints_val2017.json` or `coco_wholebody_val_v1.0.json`, the path
            or what `read_annotations` made of it.
        images: the folder of the images, or the one that holds `val2017/`.
        boxes: "gt", or a detection file, whose boxes are used as they are.
        skeleton: the keypoints that the annotations hold.
        rule: the crop convention, or its name, whose cleaning of annotated boxes to follow.
        subset: leave out the images that are missing instead of refusing the set.

    Annotated boxes are those of people who are no crowd and have a labelled body keypoint.
    Rows of other categories than person are left out and counted in the log.

    Raises:
        DataError: a file is malformed or gives no box, or an image file is missing.
        InputError: no such convention.
    """
    people = read_annotations(annotations, skeleton)
    if boxes == "gt":
        xyxy, keep = _annotated_boxes(people, skeleton, get_convention(rule))
        numbers, image_ids, scores = people.numbers, people.image_ids, np.ones(len(xyxy))
        source = "gt"
    else:
        found = read_detections(boxes, people)
        xyxy, keep = found.bboxes_xyxy, np.ones(len(found.scores), dtype=bool)
        numbers, image_ids, scores = found.numbers, found.image_ids, found.scores
        source = box_source_of(boxes)
    if not keep.any():
        raise DataError(f"{people.source} holds no box to evaluate; all {len(keep)} were left out")
    rows = rows_by_image(image_ids, keep)
    files = {i: name for i, name in people.file_names().items() if i in rows}
    sizes = sizes_by_image(people)
    paths = find_subset(
        Path(images), list(files.values()), COCO.val.images, people.source, subset=subset
    )
    return [
        ImageSample(
            image_id=i,
            path=path,
            size=sizes.get(i),
            bboxes=xyxy[rows[i]],
            bbox_scores=scores[rows[i]],
            box_ids=numbers[rows[i]],
            box_source=source,
        )
        for i, path in zip(files, paths)
        if path is not None
    ]


def find_subset(
    folder: Path, names: Sequence[str], below: str, source: str, *, subset: bool
) -> Sequence[Path | None]:
    """Return the paths of images; with `subset` None for missing ones.

    Raises:
        DataError: an image is missing, or with `subset` all are.
    """
    paths = images_that_exist(folder, names, below, source)
    if subset and any(paths):
        return paths
    return find_images(
        folder, names, below, source, "; --images-subset evaluates those that are there"
    )


def box_source_of(path: str | Path) -> str:
    """Name a detection file: by its person AP where it is a common one, else by its stem."""
    stem = Path(path).stem
    return next((label for known, label in _KNOWN_DETECTIONS if known.search(stem)), stem)


def clean_boxes(
    bboxes_xywh: NDArray[np.float64],
    areas: NDArray[np.float64],
    sizes: NDArray[np.int64],
    rule: BoxRule,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Call `CropConvention.clean_boxes` of the convention, or of its name."""
    return get_convention(rule).clean_boxes(bboxes_xywh, areas, sizes)


def _annotated_boxes(
    people: Annotations, skeleton: Skeleton, convention: CropConvention
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    row_of = {image_id: row for row, image_id in enumerate(people.all_image_ids.tolist())}
    rows = np.array([row_of[i] for i in people.image_ids.tolist()], dtype=np.int64)
    sizes = people.sizes()[rows]  # (P, 2)
    boxes, keep = convention.clean_boxes(people.bboxes_xywh, people.areas, sizes)
    body = people.of_keypoints(slice(*skeleton.parts["body"]))
    empty = int((body.is_counted & ~keep).sum())
    if empty:
        _LOGGER.warning("%s: %d people without a box to crop are left out", people.source, empty)
    if len(skeleton.parts) == 1:
        return boxes, keep & body.is_counted
    # for whole body the code bases ask for any number above zero, for COCO for a label
    return boxes, keep & ~people.is_crowd & (body.keypoints > 0).any(axis=(1, 2))


def sizes_by_image(people: Annotations) -> dict[int, tuple[int, int]]:
    """Return (H, W) by image id; nothing where the file does not have them all."""
    if not (people.images.has("width") and people.images.has("height")):
        return {}
    return {i: (h, w) for i, (h, w) in zip(people.all_image_ids.tolist(), people.sizes().tolist())}


def rows_by_image(
    image_ids: NDArray[np.int64], keep: NDArray[np.bool_] | None = None
) -> dict[int, NDArray[np.int64]]:
    """Map each image id to its rows, in order: those that `keep (N,)` has, or all."""
    rows = np.arange(len(image_ids)) if keep is None else np.flatnonzero(keep)
    rows = rows[np.argsort(image_ids[rows], kind="stable")]
    ids, starts = np.unique(image_ids[rows], return_index=True)
    return dict(zip(ids.tolist(), np.split(rows, starts[1:])))
