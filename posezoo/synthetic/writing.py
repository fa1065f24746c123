"""Rendered data sets in the layouts of COCO, COCO-WholeBody and MPII."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..datasets.categories import PERSON
from ..datasets.descriptors import COCO, COCO_WHOLEBODY, MPII
from ..datasets.mpii import MAT_NAMES
from ..errors import InputError
from ..files import replacing
from ..skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton
from .scene import Scene, render_scene

__all__ = [
    "check_count",
    "coco_annotations",
    "write_coco",
    "write_coco_scenes",
    "write_mpii",
    "write_mpii_scenes",
]

Array = NDArray[np.float64]


def coco_annotations(
    scene: Scene, image_id: int, first_id: int, skeleton: Skeleton = COCO_17
) -> list[dict[str, Any]]:
    """Return the people of a scene as annotations of COCO or COCO-WholeBody.

    Args:
        scene: rendered with the skeleton.
        image_id: of the scene.
        first_id: of the first person; the others follow.
        skeleton: COCO's or COCO-WholeBody's.
    """
    fields = skeleton.coco_fields
    rows = []
    for i, (points, box, area) in enumerate(zip(scene.keypoints, scene.bboxes, scene.areas)):
        row: dict[str, Any] = {
            "id": first_id + i, "image_id": image_id, "category_id": PERSON, "iscrowd": 0,
            "bbox": _xywh(box), "area": float(area),
            "num_keypoints": int((points[slice(*fields["keypoints"]), 2] > 0).sum()),
        }  # fmt: skip
        for name, span in fields.items():
            part = np.round(points[slice(*span)], 2)
            row[name] = part.ravel().tolist()
            if name == "keypoints":
                continue
            seen, stem = part[part[:, 2] > 0, :2], name.removesuffix("_kpts")
            row[f"{stem}_valid"] = bool(len(seen))
            if stem != "foot":
                around = [seen.min(axis=0), seen.max(axis=0)] if len(seen) else [[0, 0], [0, 0]]
                row[f"{stem}_box"] = _xywh(np.concatenate(around))
        rows.append(row)
    return rows


def _xywh(box: Array) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def write_coco_scenes(
    folder: Path, scenes: Iterable[Scene], split: str, skeleton: Skeleton
) -> Path:  # fmt: skip
    """Write scenes, rendered with the skeleton, as a split in the layout of COCO or
    COCO-WholeBody; return the annotation file."""
    files = (COCO_WHOLEBODY if skeleton is COCO_WHOLEBODY_133 else COCO).split(split)
    (folder / files.images).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    people: list[dict[str, Any]] = []
    pictures = []
    for image_id, scene in enumerate(scenes, 1):
        name = f"{image_id:012d}.jpg"
        Image.fromarray(scene.image).save(folder / files.images / name, quality=92)
        height, width = scene.image.shape[:2]
        pictures.append({"id": image_id, "file_name": name, "height": height, "width": width})
        people += coco_annotations(scene, image_id, len(people) + 1, skeleton)
    file = folder / "annotations" / files.annotations[0]
    body = list(skeleton.keypoint_names[slice(*skeleton.parts["body"])])
    categories = [{"id": PERSON, "name": "person", "keypoints": body}]
    content = {"images": pictures, "annotations": people, "categories": categories}
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content))
    return file


def write_mpii_scenes(folder: Path, scenes: Iterable[Scene], split: str) -> Path:
    """Write scenes of MPII's joints as `write_mpii` does; return the annotation file."""
    from scipy.io import savemat

    files = MPII.split(split)
    for name in (files.images, "annot"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    heads = []
    for number, scene in enumerate(scenes, 1):
        name = f"{split}_{number:06d}.jpg"
        Image.fromarray(scene.image).save(folder / files.images / name, quality=92)
        for points, box in zip(scene.keypoints, scene.bboxes):
            labelled = points[:, 2] > 0
            scale = float((box[2:] - box[:2]).max()) / 200
            center = (box[:2] + box[2:]) / 2 + 1 - [0, 15 * scale]
            joints = np.where(labelled[:, None], np.round(points[:, :2], 2) + 1, -1.0)
            rows.append({
                "image": name, "center": center.tolist(), "scale": scale,
                "joints": joints.tolist(), "joints_vis": labelled.astype(int).tolist(),
            })  # fmt: skip
        heads += list(scene.head_bboxes.reshape(-1, 2, 2) + 1)
    file = folder / "annot" / files.annotations[0]
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(rows))
    savemat(folder / "annot" / f"gt_{split}.mat", {
        "dataset_joints": np.array([MAT_NAMES], dtype=object),
        "jnt_missing": 1 - np.array([row["joints_vis"] for row in rows], dtype=float).T,
        "pos_gt_src": np.moveaxis(np.array([row["joints"] for row in rows]), 0, -1),
        "headboxes_src": np.moveaxis(np.array(heads), 0, -1),
    })  # fmt: skip
    return file


def check_count(images: int) -> None:
    """Refuse a data set without images.

    Raises:
        InputError: it would have none.
    """
    if images < 1:
        raise InputError(f"cannot write a data set of {images} images; give at least 1")


def write_coco(
    folder: Path,
    images: int,
    seed: int = 0,
    *,
    size: tuple[int, int] = (256, 256),
    split: str = "val2017",
    skeleton: Skeleton = COCO_17,
) -> Path:
    """Write one split of a data set in the layout of COCO or COCO-WholeBody.

    Args:
        folder: of the data set.
        images: how many.
        seed: of all of them.
        size: (H, W) of each.
        split: "train2017" or "val2017".
        skeleton: COCO's, COCO-WholeBody's, or one of your own made of their keypoints.

    Returns:
        The annotation file.

    Raises:
        InputError: no images, or no such split; else see `render_scene`.
    """
    check_count(images)
    scenes = (render_scene((seed, i), size, skeleton=skeleton) for i in range(1, images + 1))
    return write_coco_scenes(folder, scenes, split, skeleton)


def write_mpii(
    folder: Path,
    images: int,
    seed: int = 0,
    *,
    size: tuple[int, int] = (256, 256),
    split: str = "valid",
) -> Path:
    """Write `images/`, `annot/{split}.json` in the form of the HRNet lineage, and beside it
    `gt_{split}.mat`, which scores are computed from; return the annotation file.

    Coordinates in the files count from 1. The scale is that of the box around what is in sight,
    the centre 15 scales above its middle, from where readers move it down again.

    Raises:
        InputError: no images, or no such split; else see `render_scene`.
    """
    check_count(images)
    scenes = (render_scene((seed, i), size, skeleton=MPII_16) for i in range(1, images + 1))
    return write_mpii_scenes(folder, scenes, split)
