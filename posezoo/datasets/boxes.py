"""Person boxes for photos that belong to no data set, as `posezoo predict --boxes` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import load_json
from .coco import PERSON, to_xyxy
from .samples import rows_by_image
from .tables import Table

__all__ = ["PhotoBoxes", "read_boxes"]

PhotoBoxes = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By file name or image id: boxes `(N, 4)` xyxy in image pixels and their scores `(N,)`."""


def read_boxes(path: Path, threshold: float = 0.0) -> PhotoBoxes:
    """Read person boxes by file name, or by image id where the file has no names.

    Three forms are understood: COCO annotations without their crowds, a COCO detection list, and
    `{"photo.jpg": [[x1, y1, x2, y2], …]}`. Rows without a category are people.

    Args:
        path: the file.
        threshold: smallest score of a detection that is used.

    Raises:
        DataError: unreadable, or none of these.
    """
    try:
        content = load_json(path)
        if not isinstance(content, Mapping):
            return _detected(Table(content, "detections"), threshold)
        if "annotations" in content:
            return _annotated(content)
        boxes = {
            name: np.asarray(rows, np.float64).reshape(-1, 4) for name, rows in content.items()
        }
        return {name: (rows, np.ones(len(rows))) for name, rows in boxes.items()}
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} holds no boxes: {error}; give COCO annotations, a COCO detection list, or "
            "{file name: [[x1, y1, x2, y2], …]}"
        ) from error


def _annotated(content: Mapping[str, Any]) -> PhotoBoxes:
    images = Table(content.get("images"), "images")
    ids = images.integers("id", minimum=0)
    names = [Path(name).name for name in images.texts("file_name")]
    people = _people(content["annotations"], "annotations")
    people = people.select(np.array([not row.get("iscrowd") for row in people.rows], dtype=bool))
    image_ids = people.integers("image_id", minimum=0)
    people.require_known("image_id", image_ids, ids, "this file")
    boxes = to_xyxy(people.floats("bbox", (4,)))
    rows = rows_by_image(image_ids)
    nobody = np.zeros(0, dtype=np.int64)
    found = {name: boxes[rows.get(i, nobody)] for i, name in zip(ids.tolist(), names)}
    return {name: (xyxy, np.ones(len(xyxy))) for name, xyxy in found.items()}


def _detected(table: Table, threshold: float) -> PhotoBoxes:
    people = _people(table.rows, table.name)
    scores, boxes = people.floats("score"), to_xyxy(people.floats("bbox", (4,)))
    image_ids = people.integers("image_id", minimum=0)
    good = scores >= threshold
    return {
        str(i): (boxes[rows[good[rows]]], scores[rows[good[rows]]])
        for i, rows in rows_by_image(image_ids).items()
    }


def _people(rows: Any, name: str) -> Table:
    table = Table(rows, name)
    is_person = [row.get("category_id", PERSON) == PERSON for row in table.rows]
    return table.select(np.array(is_person, dtype=bool))
