"""Rendered photographs of people as a data set in the layout of COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...datasets.categories import PERSON
from ...datasets.descriptors import COCO, COCO_WHOLEBODY
from ...errors import InputError
from ...files import replacing
from ...skeletons import COCO_17, Skeleton
from .photographer import Photographer

__all__ = ["as_annotated", "write_people"]

_AT_ONCE = 32
_LEAST = 8.0  # pixels of the longer side of a hand or face that somebody would annotate
_BOXED = {"face": "face", "left_hand": "lefthand", "right_hand": "righthand"}  # as COCO says


def write_people(
    folder: Path, images: int, seed: int = 0, *, split: str = "val2017", height: int = 256,
    skeleton: Skeleton = COCO_17,
) -> Path:  # fmt: skip
    """Write one split, one annotated person per image; return the annotation file.

    Args:
        folder: of the data set.
        images: how many.
        seed: of all of them.
        split: "train2017" or "val2017".
        height: of the images in pixels; they are three quarters as wide.
        skeleton: COCO's, or that of COCO-WholeBody, see `as_annotated`.

    Raises:
        InputError: no images.
    """
    if images < 1:
        raise InputError(f"cannot write a data set of {images} images; give at least 1")
    files = (COCO if skeleton == COCO_17 else COCO_WHOLEBODY).split(split)
    (folder / files.images).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    size = (height, height * 3 // 4)
    photographer = Photographer(seed, size, 1.35)
    chosen = [photographer.human.keypoint_names.index(n) for n in skeleton.keypoint_names]
    people: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    for first in range(0, images, _AT_ONCE):
        shots = photographer.shoot(first, min(_AT_ONCE, images - first))
        keypoints = as_annotated(shots.keypoints[:, chosen], skeleton)
        for i, image in enumerate(shots.images):
            number = first + i + 1
            name = f"{number:012d}.jpg"
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / files.images / name, quality=92)
            pictures.append(
                {"id": number, "file_name": name, "height": size[0], "width": size[1]}
            )  # fmt: skip
            if (keypoints[i, :17, 2] == 2).sum() < 3:
                continue  # hidden by something
            box = shots.boxes[i].tolist()
            people.append({
                "id": number, "image_id": number, "category_id": PERSON, "iscrowd": 0,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": float(shots.areas[i]), **_fields(keypoints[i], skeleton),
            })  # fmt: skip
    file = folder / "annotations" / files.annotations[0]
    categories = [{"id": PERSON, "name": "person", "keypoints": list(COCO_17.keypoint_names)}]
    content = {"images": pictures, "annotations": people, "categories": categories}
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content))
    return file


def as_annotated(keypoints: Tensor, skeleton: Skeleton) -> Tensor:
    """Take away what people who annotate photographs leave out: faces seen from behind or whose
    nose is hidden, hands of which less than half is in sight, and both where they are smaller than
    8 pixels. Other hidden keypoints stay, with v = 1.

    Args:
        keypoints: (B, K, 3) x, y in pixels and v.
        skeleton: whose; COCO's 17 stay as they are.
    """
    kept = keypoints.clone()
    for part in [part for part in _BOXED if part in skeleton.parts]:
        own = slice(*skeleton.parts[part])
        points, v = keypoints[:, own, :2], keypoints[:, own, 2]
        known = (v > 0)[..., None]
        low = torch.where(known, points, torch.inf).amin(1)
        high = torch.where(known, points, -torch.inf).amax(1)
        good = (high - low).amax(-1) >= _LEAST
        if part == "face":  # outer corners of the eyes and chin turn the other way from behind
            across, down = points[:, 45] - points[:, 36], points[:, 8] - points[:, 36]
            good &= across[:, 0] * down[:, 1] > across[:, 1] * down[:, 0]
            good &= (v[:, [36, 45, 8]] > 0).all(1) & (keypoints[:, 0, 2] == 2)
        else:
            good &= (v == 2).float().mean(1) >= 0.5
        kept[~good, own] = 0
    return kept


def _fields(points: Tensor, skeleton: Skeleton) -> dict[str, Any]:
    """Return the keypoints (K, 3) of somebody as COCO's fields, with boxes of hands and face."""
    fields: dict[str, Any] = {"num_keypoints": int((points[:17, 2] > 0).sum())}
    for field, span in skeleton.coco_fields.items():
        own = points[slice(*span)]
        fields[field] = [round(value, 2) for value in own.flatten().tolist()]
        if field != "keypoints":
            fields[field.replace("_kpts", "_valid")] = bool((own[:, 2] > 0).any())
    for part in [part for part in _BOXED if part in skeleton.parts]:
        own = points[slice(*skeleton.parts[part])]
        known = own[own[:, 2] > 0, :2]
        box = [0.0] * 4
        if len(known):
            low, high = known.amin(0), known.amax(0)
            box = [round(value, 2) for value in torch.cat([low, high - low]).tolist()]
        fields[f"{_BOXED[part]}_box"] = box
    return fields
