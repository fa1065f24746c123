"""What a detector is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchDetector", "Boxes", "Detector", "Image"]

Image = NDArray[np.uint8]
"""RGB (H, W, 3)."""

Boxes = tuple[NDArray[Any], NDArray[Any]]
"""Boxes (N, 4) xyxy in image pixels, and their scores (N,)."""

Detector = Callable[[Image], Any]
"""Image -> boxes and scores as a pair, or an object with `xyxy` and `confidence`."""


class BatchDetector(ABC):
    """A detector that takes several images at a time; also a `Detector` of one image.

    Attributes:
        batch_size: images that it should be given at a time.
    """

    batch_size = 1

    @abstractmethod
    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """Return the boxes of the persons in each image; images are of one size."""

    def __call__(self, image: Image) -> Boxes:
        """Return the boxes of the persons in one image."""
        return self.detect([image])[0]
