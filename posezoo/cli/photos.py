"""Poses of many photos, as many in memory at a time as a batch needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..datasets.boxes import BoxEntry, PhotoBoxes
from ..errors import InputError
from ..images import load_image
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
    entries: Sequence[BoxEntry | InputError | None] = [None] * len(photos)
    if boxes is not None:
        entries = boxes.match(photos)
    results = predictor.predict_each(map(_item, photos, entries))
    yield from zip(photos, results)


def _item(photo: Path, entry: BoxEntry | InputError | None) -> Item | InputError:
    """Return a photo with its boxes, read as the file of the boxes saw it."""
    if entry is None:
        return photo, None, None
    if isinstance(entry, InputError):
        return entry
    try:
        image = load_image(photo, recorded_size=entry.size)
    except InputError as error:
        return error
    return image, entry.bboxes, entry.scores
