"""Annotation files to people with a crop each: COCO, COCO-WholeBody, one's own, and MPII."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..geometry import boxes_to_center_size, mpii_center_size
from ..skeletons import Skeleton
from ..zoo.config import PretrainedCfg
from .coco import PERSON, read_annotations
from .tables import Table, load_json

__all__ = ["People", "check_own_files", "read_coco_people", "read_mpii_people", "training_people"]

Array = NDArray[np.float64]

_COCO = "person_keypoints_{}2017.json"
_WHOLEBODY = "coco_wholebody_train_v1.0.json"
_MPII = ("train.json", "mpii_train.json")


@dataclass(frozen=True, kw_only=True)
class People:
    """`P` people to train on.

    `paths` names the image of each, `keypoints (P, K, 3)` are x, y in image pixels and whether
    labelled, `centers (P, 2)` and `box_sizes (P, 2)` the crop, padding included.
    """

    paths: list[Path]
    keypoints: Array
    centers: Array
    box_sizes: Array


def training_people(data: Path, cfg: PretrainedCfg, skeleton: Skeleton) -> People:
    """Read the people of the data set a model is for from its folder, laid out as published.

    COCO, COCO-WholeBody and sets with a skeleton of one's own: `annotations/`, `train2017/`.
    MPII: `train.json` here, in `annot/` or in `annotations/`, and `images/`.

    Raises:
        DataError: a file is missing or malformed, or nobody in it has a labelled keypoint.
        InputError: the model is no pose model.
    """
    if cfg.dataset != "mpii":
        name = _WHOLEBODY if cfg.dataset == "coco_wholebody" else _COCO.format("train")
        return read_coco_people(data / "annotations" / name, data / "train2017", cfg, skeleton)
    places = [data / folder / name for name in _MPII for folder in ("annot", "annotations", "")]
    for place in places:
        if place.is_file():
            return read_mpii_people(place, data / "images")
    raise DataError(f"no {' or '.join(_MPII)} below {data}, in annot/ or in annotations/")


def read_coco_people(
    annotations: Path, images: Path, cfg: PretrainedCfg, skeleton: Skeleton
) -> People:
    """Read the people of a COCO-format file that have a labelled keypoint and are no crowd.

    Raises:
        DataError: the file is malformed, nobody is left, or an image is missing.
        InputError: the configuration is not one of a pose model.
    """
    if cfg.input.geometry is None:
        raise InputError(f"{cfg.name} is a {cfg.task} model; it has no crops of people")
    people = read_annotations(annotations, skeleton)
    corner, sides = people.bboxes_xywh[:, :2], people.bboxes_xywh[:, 2:]
    keep = (people.keypoints[..., 2] > 0).any(axis=1) & ~people.is_crowd & (sides > 1).all(axis=1)
    _require_somebody(keep, annotations)
    names = dict(zip(people.all_image_ids.tolist(), people.images.texts("file_name")))
    centers, box_sizes = boxes_to_center_size(
        np.concatenate([corner, corner + sides], axis=1)[keep],
        cfg.input.size,
        cfg.input.bbox_padding or 1.0,
        cfg.input.geometry,
    )
    return People(
        paths=_existing([images / names[i] for i in people.image_ids[keep].tolist()], annotations),
        keypoints=people.keypoints[keep],
        centers=centers,
        box_sizes=box_sizes,
    )


def check_own_files(data: Path, skeleton: Skeleton) -> None:
    """Check before a training that the files of one's own keypoints name those keypoints.

    Names of keypoints stand in the first category of a COCO-format file; they may be left out.

    Raises:
        DataError: a file is missing or malformed, or names other keypoints.
    """
    for split in ("train", "val"):
        file = data / "annotations" / _COCO.format(split)
        content = load_json(file)
        categories = content.get("categories", []) if isinstance(content, dict) else []
        for row in Table(categories, f"{file}: categories").rows:
            names = row.get("keypoints", list(skeleton.keypoint_names))
            if row.get("id") == PERSON and names != list(skeleton.keypoint_names):
                raise DataError(
                    f"{file} names the keypoints {names}; skeleton {skeleton.name!r} has "
                    f"{list(skeleton.keypoint_names)}: both need the same in the same order"
                )


def read_mpii_people(annotations: Path, images: Path) -> People:
    """Read the people of `train.json` of the HRNet lineage that have an annotated joint.

    Joints are counted from 1 in the file and from 0 here.

    Raises:
        DataError: the file is malformed, nobody has an annotated joint, or an image is missing.
    """
    table = Table(load_json(annotations), f"{annotations}: people")
    labelled = table.floats("joints_vis", (16,)) > 0
    scales = table.floats("scale")
    keep = labelled.any(axis=1) & (scales > 0)
    _require_somebody(keep, annotations)
    joints = np.where(labelled[..., None], table.floats("joints", (16, 2)) - 1.0, 0.0)
    keypoints = np.concatenate([joints, labelled[..., None]], axis=2)  # (P, 16, 3)
    centers, box_sizes = mpii_center_size(table.floats("center", (2,)), scales)
    names = table.texts("image")
    return People(
        paths=_existing([images / names[i] for i in np.flatnonzero(keep)], annotations),
        keypoints=keypoints[keep],
        centers=centers[keep],
        box_sizes=box_sizes[keep],
    )


def _require_somebody(keep: NDArray[np.bool_], annotations: Path) -> None:
    if not keep.any():
        raise DataError(
            f"no person in {annotations} has a labelled keypoint and a box; "
            "there is nothing to learn from"
        )


def _existing(paths: list[Path], annotations: Path) -> list[Path]:
    for path in dict.fromkeys(paths):
        if not path.is_file():
            raise DataError(f"{annotations} names {path}, which is missing")
    return paths
