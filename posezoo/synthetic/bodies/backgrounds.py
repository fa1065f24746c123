"""A folder of the user's photos, to put behind rendered people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...errors import InputError
from ...images import load_image
from ...media.sources import Photo, find_sources
from .devices import sent

__all__ = ["Backgrounds"]

_GAMMA, _SHARE = 2.2, 0.5
_LEAST = 0.4  # of what could be cut out of a photo, the least side that is


class Backgrounds:
    """Photos, best without people, of which random parts are seen.

    Args:
        folder: with its sub-folders.

    Raises:
        InputError: no such folder, or no photos in it.
    """

    def __init__(self, folder: Path) -> None:
        self.files = [s.path for s in find_sources([folder]) if isinstance(s, Photo)]
        if not self.files or not folder.is_dir():
            raise InputError(f"backgrounds are {str(folder)!r}; give a folder of photos")

    def put_behind(self, rng: np.random.Generator, pictures: Tensor, inside: Tensor) -> None:
        """Replace half of the pictures (B, 3, H, W), linear light, where `inside (B, H, W)` is set.

        Raises:
            InputError: a file cannot be read.
        """
        for i in np.flatnonzero(rng.random(len(pictures)) < _SHARE):
            found = self._part(rng, (pictures.shape[2], pictures.shape[3]))
            pictures[i] = torch.where(inside[i], found, pictures[i])

    def _part(self, rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
        """Return a part of one, linear light (3, H, W)."""
        photo = load_image(self.files[rng.integers(len(self.files))])
        height, width = photo.shape[:2]
        factor = min(height / size[0], width / size[1]) * rng.uniform(_LEAST, 1)
        h, w = (max(1, int(factor * side)) for side in size)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        part: NDArray[np.uint8] = photo[top : top + h, left : left + w]
        if rng.random() < 0.5:
            part = part[:, ::-1]
        pixels = np.asarray(Image.fromarray(part).resize(size[::-1], Image.Resampling.BILINEAR))
        return sent((pixels / np.float32(255)) ** np.float32(_GAMMA)).permute(2, 0, 1)
