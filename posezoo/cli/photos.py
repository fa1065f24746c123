"""Poses of many photos, a few of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.boxes import BoxEntry, PhotoBoxes
from ..errors import InputError
from ..geometry import check_bboxes
from ..predictor import PosePredictor
from ..results import PoseResult
from ..transforms import load_image

__all__ = ["Outcome", "predict_files"]

_CHUNK = 16  # photos in memory at a time

Outcome = tuple[Path, PoseResult | InputError]
"""A photo, and what was found in it or why it cannot be used."""


def predict_files(
    predictor: PosePredictor,
    photos: Sequence[Path],
    boxes: PhotoBoxes | None = None,
    *,
    progress: bool = False,
) -> Iterator[Outcome]:
    """Yield the result of each photo in order, or the error of a photo that cannot be used.

    Args:
        predictor: finds the poses.
        photos: files.
        boxes: from `read_boxes`; None asks the predictor's detector.
        progress: show a bar.

    Raises:
        InputError, WeightsUnavailableError: the detector cannot be loaded.
    """
    known: Sequence[BoxEntry | InputError | None] = [None] * len(photos)
    if boxes is not None:
        known = boxes.match(photos)
    with tqdm(total=len(photos), unit="image", disable=not progress) as bar:
        for first in range(0, len(photos), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            yield from zip(photos[chunk], _predict_chunk(predictor, photos[chunk], known[chunk]))
            bar.update(len(photos[chunk]))


def _predict_chunk(
    predictor: PosePredictor, paths: Sequence[Path], known: Sequence[BoxEntry | InputError | None]
) -> list[PoseResult | InputError]:
    outcome: dict[int, PoseResult | InputError] = {}
    images: list[NDArray[np.uint8]] = []
    boxes: list[NDArray[np.float64] | None] = []
    scores: list[NDArray[np.float64] | None] = []
    for i, (path, entry) in enumerate(zip(paths, known)):
        try:
            if isinstance(entry, InputError):
                raise entry
            image = load_image(path, recorded_size=None if entry is None else entry.size)
            if entry is not None:
                check_bboxes(entry.bboxes, image.shape[:2])
        except InputError as error:
            outcome[i] = error
            continue
        images.append(image)
        boxes.append(None if entry is None else entry.bboxes)
        scores.append(None if entry is None else entry.scores)
    good = [i for i in range(len(paths)) if i not in outcome]
    outcome |= zip(good, predictor.predict_batch(images, boxes, scores) if good else [])
    return [outcome[i] for i in range(len(paths))]
