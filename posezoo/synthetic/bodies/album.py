"""Rendered photographs of people as a data set in the layout of COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ...datasets.categories import PERSON
from ...datasets.descriptors import COCO
from ...errors import InputError
from ...files import replacing
from ...skeletons import COCO_17
from .photographer import Photographer

__all__ = ["write_people"]

_AT_ONCE = 32


def write_people(
    folder: Path, images: int, seed: int = 0, *, split: str = "val2017", height: int = 256
) -> Path:
    """Write one split, one annotated person per image; return the annotation file.

    Args:
        folder: of the data set.
        images: how many.
        seed: of all of them.
        split: "train2017" or "val2017".
        height: of the images in pixels; they are three quarters as wide.

    Raises:
        InputError: no images.
    """
    if images < 1:
        raise InputError(f"cannot write a data set of {images} images; give at least 1")
    files = COCO.split(split)
    (folder / files.images).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    size = (height, height * 3 // 4)
    photographer = Photographer(seed, size, 1.35)
    chosen = [photographer.human.keypoint_names.index(n) for n in COCO_17.keypoint_names]
    people: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    for first in range(0, images, _AT_ONCE):
        shots = photographer.shoot(first, min(_AT_ONCE, images - first))
        for i, image in enumerate(shots.images):
            number = first + i + 1
            name = f"{number:012d}.jpg"
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / files.images / name, quality=92)
            pictures.append(
                {"id": number, "file_name": name, "height": size[0], "width": size[1]}
            )  # fmt: skip
            points, box = shots.keypoints[i, chosen], shots.boxes[i].tolist()
            if (points[:, 2] == 2).sum() < 3:
                continue  # hidden by something
            people.append({
                "id": number, "image_id": number, "category_id": PERSON, "iscrowd": 0,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": float(shots.areas[i]), "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": [round(v, 2) for v in points.flatten().tolist()],
            })  # fmt: skip
    file = folder / "annotations" / files.annotations[0]
    categories = [{"id": PERSON, "name": "person", "keypoints": list(COCO_17.keypoint_names)}]
    content = {"images": pictures, "annotations": people, "categories": categories}
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content))
    return file
