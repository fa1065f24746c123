"""Stored cases and small made-up ones that several evaluation tests share."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation"
PART_FIELDS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def load_case(name: str) -> Any:
    """Return the content of `<name>.json` or `<name>.json.gz` among the goldens."""
    plain = GOLDENS / f"{name}.json"
    if plain.is_file():
        return json.loads(plain.read_text())
    return json.loads(gzip.decompress((GOLDENS / f"{name}.json.gz").read_bytes()))


def one_person(k: int = 17) -> dict[str, Any]:
    """Return COCO annotations of one image with one person, all keypoints labelled."""
    keypoints = [value for i in range(k) for value in (10.0 + i, 20.0 + 2 * i, 2)]
    person = {
        "id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": 1600.0,
        "bbox": [5.0, 10.0, 40.0, 60.0], "num_keypoints": k, "keypoints": keypoints,
    }  # fmt: skip
    return {
        "images": [{"id": 7, "file_name": "7.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [person],
    }


def one_result(k: int = 17) -> list[dict[str, Any]]:
    """Return the perfect result for `one_person`."""
    keypoints = [value for i in range(k) for value in (10.0 + i, 20.0 + 2 * i, 0.9)]
    return [{"image_id": 7, "category_id": 1, "keypoints": keypoints, "score": 0.8}]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of nested lists and objects with one entry replaced (`...`: removed)."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value
