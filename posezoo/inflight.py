"""Crops on their way through the network, and the rows that their results go to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .device import Download
from .geometry import CropConvention
from .transforms import TopDownCrop

__all__ = ["Batch", "CropRequest", "Rows", "Running", "halves"]


def halves(output: Any, count: int) -> tuple[Any, Any]:
    """Split a network output, a tensor or a named tuple of tensors, after `count` samples."""
    if isinstance(output, Tensor):
        return output[:count], output[count:]
    return type(output)(*(t[:count] for t in output)), type(output)(*(t[count:] for t in output))


@dataclass(frozen=True, kw_only=True)
class CropRequest:
    """The persons of one image: uint8 RGB (H, W, 3), `centers` and `box_sizes` (N, 2)."""

    image: np.ndarray
    centers: np.ndarray
    box_sizes: np.ndarray


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
        convention: how boxes become crops.
        kept_pixels: images wait until they have more than so many, and are then cut together; 0
            cuts each at once, and none is kept.
    """

    def __init__(self, cut: TopDownCrop, convention: CropConvention, kept_pixels: int) -> None:
        self.cut, self.convention, self.kept_pixels = cut, convention, kept_pixels
        self.count = 0
        self.centers: list[np.ndarray] = []
        self.box_sizes: list[np.ndarray] = []
        self.targets: list[tuple[Rows, slice]] = []
        self._crops: list[Tensor] = []
        self._waiting: list[Tensor] = []
        self._waiting_pixels = 0

    def add(self, image: Tensor, request: CropRequest, rows: Rows, part: slice) -> None:
        """Add the boxes `part` of a request, whose image is on the device."""
        self.count += part.stop - part.start
        self.centers.append(request.centers[part])
        self.box_sizes.append(request.box_sizes[part])
        self.targets.append((rows, part))
        self._waiting.append(image)
        self._waiting_pixels += image.shape[0] * image.shape[1]
        if self._waiting_pixels > self.kept_pixels:
            self._cut_waiting()

    def crops(self) -> Tensor:
        """Return all crops (B, 3, H, W), normalised."""
        self._cut_waiting()
        return torch.cat(self._crops) if len(self._crops) > 1 else self._crops[0]

    def _cut_waiting(self) -> None:
        if not self._waiting:
            return
        centers, box_sizes = (a[-len(self._waiting) :] for a in (self.centers, self.box_sizes))
        matrices = self.convention.crop_matrices(
            np.concatenate(centers), np.concatenate(box_sizes), self.cut.size
        )
        if len(self._waiting) == 1:
            self._crops.append(self.cut(self._waiting[0], matrices))
        else:
            ends = np.cumsum([len(c) for c in centers])
            self._crops.append(self.cut.many(self._waiting, np.split(matrices, ends[:-1])))
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
