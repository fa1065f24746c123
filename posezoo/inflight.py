"""Crops on their way through the network, and the rows that their results go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .device import Download
from .transforms import TopDownCrop

__all__ = ["Batch", "Rows", "Running", "halves"]


def halves(output: Any, count: int) -> tuple[Any, Any]:
    """Split a network output, a tensor or a named tuple of tensors, after `count` samples."""
    if isinstance(output, Tensor):
        return output[:count], output[count:]
    return type(output)(*(t[:count] for t in output)), type(output)(*(t[count:] for t in output))


class Rows:
    """Keypoints and scores of one request, filled as its crops come back."""

    def __init__(self, count: int, num_keypoints: int) -> None:
        self.values = np.empty((count, num_keypoints, 3), np.float32)
        self.missing = count

    @property
    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self.values[..., :2].copy(), self.values[..., 2].copy()


class Batch:
    """Crops that wait for a forward, and the rows that their results go to.

    Args:
        cut: how crops are cut and normalised.
        kept_pixels: images wait until they have more than so many, and are then cut together; 0
            cuts each at once, and none is kept.
    """

    def __init__(self, cut: TopDownCrop, kept_pixels: int) -> None:
        self.cut, self.kept_pixels = cut, kept_pixels
        self.count = 0
        self.centers: list[np.ndarray] = []
        self.box_sizes: list[np.ndarray] = []
        self.targets: list[tuple[Rows, slice]] = []
        self._crops: list[Tensor] = []
        self._waiting: list[tuple[Tensor, np.ndarray]] = []
        self._waiting_pixels = 0

    def add(self, image: Tensor, matrices: np.ndarray) -> None:
        """Add the crops of an image, see `TopDownCrop`."""
        self.count += len(matrices)
        self._waiting.append((image, matrices))
        self._waiting_pixels += image.shape[0] * image.shape[1]
        if self._waiting_pixels > self.kept_pixels:
            self._cut_waiting()

    def crops(self) -> Tensor:
        """Return all crops (B, 3, H, W), normalised."""
        self._cut_waiting()
        return torch.cat(self._crops) if len(self._crops) > 1 else self._crops[0]

    def _cut_waiting(self) -> None:
        if len(self._waiting) == 1:
            self._crops.append(self.cut(*self._waiting[0]))
        elif self._waiting:
            images, matrices = zip(*self._waiting)
            self._crops.append(self.cut.many(images, matrices))
        self._waiting, self._waiting_pixels = [], 0


class Running:
    """A started batch, its (B, K, 3) result on the way to the host."""

    def __init__(
        self, found: Download | None = None, targets: Sequence[tuple[Rows, slice]] = ()
    ) -> None:
        self.found, self.targets = found, targets

    def finish(self) -> None:
        """Wait for the copy and hand the rows out."""
        if self.found is None:
            return
        values, first = self.found.numpy(), 0
        for rows, part in self.targets:
            count = part.stop - part.start
            rows.values[part] = values[first : first + count]
            rows.missing -= count
            first += count
