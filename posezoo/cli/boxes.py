"""Files of person boxes, as `posezoo predict --boxes` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError

__all__ = ["Boxes", "boxes_of", "read_boxes"]

Array = NDArray[np.float64]
Boxes = dict[str, tuple[Array, Array]]
"""By file name or image id: boxes (N, 4) xyxy in image pixels, and scores (N,)."""

_Row = tuple[str, list[float], float]  # name or image id, box xywh, score


def read_boxes(path: Path, threshold: float = 0.0) -> Boxes:
    """Read person boxes by file name, or by image id where the file has no names.

    Three forms are understood: COCO annotations, a COCO detection list (the image id is taken
    from the digits of the photo's name), and `{"photo.jpg": [[x1, y1, x2, y2], …]}`.

    Args:
        path: the file.
        threshold: COCO boxes with a lower score are left out; annotated ones have score 1.

    Raises:
        DataError: unreadable, or none of these.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, list):
            return _by_name(_detections(data), threshold)
        if "annotations" in data:
            names = {image["id"]: Path(image["file_name"]).name for image in data["images"]}
            empty: Boxes = {name: _gather([], threshold) for name in names.values()}
            return empty | _by_name(_annotations(data["annotations"], names), threshold)
        return {
            name: (np.asarray(boxes, np.float64).reshape(-1, 4), np.ones(len(boxes)))
            for name, boxes in data.items()
        }
    except OSError as error:
        raise DataError(f"cannot read boxes from {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no boxes I understand ({type(error).__name__}: {error}); give COCO "
            "annotations, a COCO detection list, or {file name: [[x1, y1, x2, y2], …]}"
        ) from error


def _detections(rows: Iterable[dict[str, Any]]) -> list[_Row]:
    return [
        (str(row["image_id"]), row["bbox"], float(row["score"]))
        for row in rows
        if row.get("category_id", 1) == 1
    ]


def _annotations(rows: Iterable[dict[str, Any]], names: dict[Any, str]) -> list[_Row]:
    return [
        (names[row["image_id"]], row["bbox"], 1.0)
        for row in rows
        if row.get("category_id", 1) == 1 and not row.get("iscrowd")
    ]


def _by_name(rows: list[_Row], threshold: float) -> Boxes:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row[0], []).append(row)
    return {name: _gather(group, threshold) for name, group in groups.items()}


def _gather(rows: list[_Row], threshold: float) -> tuple[Array, Array]:
    kept = [(xywh, score) for _, xywh, score in rows if score >= threshold]
    xywh = np.asarray([box for box, _ in kept], np.float64).reshape(-1, 4)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return xyxy, np.asarray([score for _, score in kept], np.float64)


def boxes_of(photo: Path, known: Boxes) -> tuple[Array, Array]:
    """Return the boxes and scores of a photo, by its name or the digits at the end of it.

    Raises:
        InputError: there is no entry for it.
    """
    digits = photo.stem.rpartition("_")[2]
    keys = [photo.name, str(int(digits))] if digits.isdigit() else [photo.name]
    for key in keys:
        if key in known:
            return known[key]
    raise InputError(
        f"the boxes file has no entry for {photo.name} (looked for {' and '.join(keys)}); "
        "add one, or leave --boxes out to use a detector"
    )
