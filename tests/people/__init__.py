"""Films, folders, tracks and outputs: what the tests of these share."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from evaluation.made import Brightest
from PIL import Image

from posezoo import PosePredictor
from posezoo.media.film import FilmWriter

SIZE = (90, 120)
BOX = [[4.0, 2.0, 100.0, 88.0]]


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def moving(index: int) -> np.ndarray:
    """A grey picture with a bright square that moves to the right."""
    image = np.full((*SIZE, 3), 40, np.uint8)
    image[30:50, index : index + 20] = 230
    return image


def make_film(path: Path, frames: int = 40, rate: int = 25) -> Path:
    with FilmWriter(path, Fraction(rate)) as film:
        for i in range(frames):
            film.write(moving(i), i / rate)
    return path


def make_photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(picture(i)).save(folder / f"{i:05d}.png")
    return folder


def one_box(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A detector that finds one person in every picture."""
    return np.array(BOX), np.ones(1)


def predictor(detector: object = one_box) -> PosePredictor:
    return PosePredictor(Brightest(), detector=detector, batch_size=4, flip_test=False)  # type: ignore[arg-type]
