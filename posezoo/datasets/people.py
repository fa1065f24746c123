"""Annotation files to people with a crop each, to train on or to encode and decode."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..files import load_json
from ..geometry import boxes_to_center_size
from ..skeletons import Skeleton
from ..zoo.config import PretrainedCfg
from .categories import person_category
from .coco import Annotations, read_annotations
from .descriptors import COCO, MPII, MpiiSet, PoseSet, pose_set_of
from .mpii import read_mpii_annotations
from .names import find_images
from .samples import sizes_by_image
from .tables import Table

__all__ = ["People", "crops_of", "read_coco_people", "read_mpii_people", "training_people"]

_LOGGER = logging.getLogger(__name__)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class People:
    """`P` people to train on.

    `paths` names the image of each, `sizes` its (H, W) as annotated, None where no file says;
    `keypoints (P, K, 3)` are x, y in image pixels and whether labelled, `centers (P, 2)` and
    `box_sizes (P, 2)` the crop, padding included.
    """

    paths: list[Path]
    sizes: list[tuple[int, int] | None]
    keypoints: Array
    centers: Array
    box_sizes: Array


def training_people(data: Path, cfg: PretrainedCfg, category: str | None = None) -> People:
    """Read the people of the data set a model is for from its folder, laid out as published.

    COCO, COCO-WholeBody and sets with keypoints of one's own: `annotations/` and `train2017/`.
    MPII: `train.json` here, in `annot/` or in `annotations/`, and `images/`.

    Args:
        data: the folder.
        cfg: of the model.
        category: see `person_category`.

    Raises:
        DataError: a file is missing or malformed, nobody in it has a labelled keypoint, or it
            names other keypoints than those of one's own.
        InputError: the model is no pose model.
    """
    data_set = pose_set_of(cfg)
    annotations = data_set.train.find_annotations(data)
    if isinstance(data_set, MpiiSet):
        return read_mpii_people(annotations, data)
    if cfg.own_skeleton is not None:
        _check_names(data_set, data, category)
    return read_coco_people(annotations, data, cfg, data_set.skeleton, category)


def read_coco_people(
    annotations: Path,
    images: Path,
    cfg: PretrainedCfg,
    skeleton: Skeleton,
    category: str | None = None,
) -> People:
    """Read the people of a COCO-form file that have a labelled keypoint and are no crowd.

    Args:
        annotations: the file.
        images: the folder of the images, or the one that holds `train2017/`.
        cfg: of the model, for the crops.
        skeleton: the keypoints that the file holds.
        category: see `person_category`.

    Others are left out and counted in the log.

    Raises:
        DataError: the file is malformed, nobody is left, or an image is missing.
        InputError: the configuration is not one of a pose model.
    """
    people = read_annotations(annotations, skeleton, category)
    _log_left_out(annotations, people.is_usable)
    people = people.select(people.is_usable)
    centers, box_sizes = crops_of(people, cfg)
    _require_somebody(people.keypoints, annotations)
    names = people.file_names()
    files = [names[i] for i in people.image_ids.tolist()]
    sizes = sizes_by_image(people)
    return People(
        paths=find_images(images, files, COCO.train.images, annotations),
        sizes=[sizes.get(i) for i in people.image_ids.tolist()],
        keypoints=people.keypoints,
        centers=centers,
        box_sizes=box_sizes,
    )


def crops_of(people: Annotations, cfg: PretrainedCfg) -> tuple[Array, Array]:
    """Return the centres and sizes `(P, 2)` of the crops around annotated boxes.

    Raises:
        InputError: the configuration has no crop convention.
    """
    if cfg.input.geometry is None or cfg.input.bbox_padding is None:
        raise InputError(f"{cfg.name} is a {cfg.task} model; it has no crops of people")
    return boxes_to_center_size(
        people.bboxes_xyxy, cfg.input.size, cfg.input.bbox_padding, cfg.input.geometry
    )


def read_mpii_people(annotations: Path, images: Path) -> People:
    """Read the people of `train.json` of the HRNet lineage that have an annotated joint.

    Args:
        annotations: the file.
        images: the folder of the images, or the one that holds `images/`.

    Raises:
        DataError: the file is malformed, nobody has an annotated joint, or an image is missing.
    """
    people = read_mpii_annotations(annotations)
    labelled = people.keypoints[..., 2].any(axis=1)
    keep = np.asarray(labelled & (people.box_sizes > 0).all(axis=1), dtype=bool)
    _log_left_out(annotations, keep)
    _require_somebody(people.keypoints[keep], annotations)
    files = [people.image_names[i] for i in np.flatnonzero(keep)]
    return People(
        paths=find_images(images, files, MPII.train.images, annotations),
        sizes=[None] * len(files),
        keypoints=people.keypoints[keep],
        centers=people.centers[keep],
        box_sizes=people.box_sizes[keep],
    )


def _log_left_out(annotations: Path, keep: NDArray[np.bool_]) -> None:
    if not keep.all():
        _LOGGER.info(
            "%s: %d of %d people are left out: crowds, without labelled keypoints, or with a box "
            "of less than a pixel", annotations, (~keep).sum(), len(keep),
        )  # fmt: skip


def _require_somebody(people: Array, annotations: Path) -> None:
    if not len(people):
        raise DataError(
            f"no person in {annotations} has a labelled keypoint and a box; "
            "there is nothing to learn from"
        )


def _check_names(data_set: PoseSet, data: Path, category: str | None) -> None:
    """Refuse files whose category of people names other keypoints than the skeleton, or in another
    order. Names may be left out. The file of the evaluation is checked before the training, too.
    """
    expected = list(data_set.skeleton.keypoint_names)
    for split in (data_set.train, data_set.val):
        file = split.find_annotations(data)
        content = load_json(file)
        listed = content.get("categories") if isinstance(content, dict) else None
        if not listed:
            continue
        categories = Table(listed, f"{file}: categories")
        number = person_category(listed, Table([], str(file)), str(file), category)
        for row in categories.rows:
            names = row.get("keypoints", expected)
            if names != expected and row.get("id") == number:
                raise DataError(
                    f"{file} names the keypoints {names}; skeleton {data_set.skeleton.name!r} has "
                    f"{expected}: both need the same in the same order"
                )
