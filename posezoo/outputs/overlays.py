"""Poses over photos and films, and tokens of TCFormer: one picture or film per input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..draw import draw_poses
from ..files import replacing, writing
from ..media.film import FilmWriter
from ..media.video import frame_rate
from ..predictor import PosePredictor
from ..streaming.found import FrameResult
from ..tokenview import token_rows
from .sink import Sink

__all__ = ["PICTURE_FORMATS", "Overlays", "TokenPictures"]

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_CAMERA_RATE = Fraction(30)


class Overlays(Sink):
    """Draws the poses of each frame over it.

    Args:
        paths: the picture or film of each source.
        threshold: keypoints with a lower score are left out.
        every: of so many frames one is used; films get as many frames fewer per second.
    """

    def __init__(self, paths: Mapping[str, Path], threshold: float, every: int = 1) -> None:
        self.paths, self.threshold, self.every = paths, threshold, every
        self._parts = 0  # that are finished of the film of an interrupted run
        self._film: FilmWriter | None = None

    def restore(self, state: Any) -> None:
        self._parts = state["parts"]

    def write(self, frames: Sequence[FrameResult]) -> None:
        """Draw frames that have a result; others have no picture, and are missing in a film."""
        for found in frames:
            if found.image is None or found.result is None:
                continue
            path = self.paths[found.source]
            picture = draw_poses(found.image, found.result, threshold=self.threshold)
            if found.time is None:
                _save(picture, path)
                continue
            if self._film is None:
                self._film = FilmWriter(path, self._rate(found.source), self._parts)
                self._parts = 0
            self._film.write(np.asarray(picture), found.time)

    def _rate(self, source: str) -> Fraction:
        path = Path(source)
        return (frame_rate(path) if path.is_file() else _CAMERA_RATE) / self.every

    def checkpoint(self) -> Any:
        if self._film is None:
            return {"parts": self._parts}
        self._film.close_part()
        return {"parts": self._film.parts}

    def end(self) -> None:
        if self._film is not None:
            self._film.join()
            self._film.remove_parts()
        self._film = None

    def close(self) -> None:
        """Make a film of what there is; its parts stay for a run that goes on."""
        if self._film is not None:
            self._film.join()
        self._film = None


class TokenPictures(Sink):
    """Writes what the tokens of each person's crop look at, see `token_rows`.

    Args:
        paths: the picture of each photo.
        predictor: finds the poses.
    """

    def __init__(self, paths: Mapping[str, Path], predictor: PosePredictor) -> None:
        self.paths, self.predictor = paths, predictor

    def write(self, frames: Sequence[FrameResult]) -> None:
        for found in frames:
            if found.image is not None and found.result is not None and len(found.result):
                picture = token_rows(self.predictor, found.image, found.result.bboxes)
                _save(picture, self.paths[found.source])


def _save(picture: Image.Image, path: Path) -> None:
    with writing(path), replacing(path) as temporary:
        picture.save(temporary, PICTURE_FORMATS[path.suffix.lower()])
