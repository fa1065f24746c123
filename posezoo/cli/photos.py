"""Poses of many photos, a few of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.boxes import PhotoBoxes
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
    with tqdm(total=len(photos), unit="image", disable=not progress) as bar:
        for first in range(0, len(photos), _CHUNK):
            paths = photos[first : first + _CHUNK]
            yield from zip(paths, _predict_chunk(predictor, paths, boxes))
            bar.update(len(paths))


def _predict_chunk(
    predictor: PosePredictor, paths: Sequence[Path], known: PhotoBoxes | None
) -> list[PoseResult | InputError]:
    outcome: dict[int, PoseResult | InputError] = {}
    images: list[NDArray[np.uint8]] = []
    boxes: list[NDArray[np.float64] | None] = []
    scores: list[NDArray[np.float64] | None] = []
    for i, path in enumerate(paths):
        try:
            image = load_image(path)
            found = (None, None) if known is None else _boxes_of(path, known)
            if found[0] is not None:
                check_bboxes(found[0], image.shape[:2])
        except InputError as error:
            outcome[i] = error
            continue
        images.append(image)
        boxes.append(found[0])
        scores.append(found[1])
    good = [i for i in range(len(paths)) if i not in outcome]
    outcome |= zip(good, predictor.predict_batch(images, boxes, scores) if good else [])
    return [outcome[i] for i in range(len(paths))]


def _boxes_of(photo: Path, known: PhotoBoxes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
