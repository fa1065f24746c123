"""Poses of many photos, as many in memory at a time as a batch needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..datasets.boxes import PhotoBoxes
from ..errors import InputError
from ..predictor import Item, PosePredictor
from ..results import PoseResult

__all__ = ["Outcome", "predict_files"]

Outcome = tuple[Path, PoseResult | InputError]
"""A photo, and what was found in it or why it cannot be used."""


def predict_files(
    predictor: PosePredictor, photos: Sequence[Path], boxes: PhotoBoxes | None = None
) -> Iterator[Outcome]:
    """Yield the result of each photo in order, or the error of a photo that cannot be used.

    Args:
        predictor: finds the poses.
        photos: files.
        boxes: from `read_boxes`; None asks the predictor's detector.

    Raises:
        InputError, WeightsUnavailableError: the detector cannot be loaded.
    """
    results = predictor.predict_each(_item(photo, boxes) for photo in photos)
    yield from zip(photos, results)


def _item(photo: Path, boxes: PhotoBoxes | None) -> Item | InputError:
    """Return a photo with its boxes, found by its name or the digits at the end of it."""
    if boxes is None:
        return photo, None, None
    digits = photo.stem.rpartition("_")[2]
    is_number = digits.isascii() and digits.isdecimal()
    keys = [photo.name, str(int(digits))] if is_number else [photo.name]
    for key in keys:
        if key in boxes:
            return photo, *boxes[key]
    return InputError(
        f"the boxes file has no entry for {photo.name} (looked for {' and '.join(keys)}); "
        "add one, or leave --boxes out to use a detector"
    )
