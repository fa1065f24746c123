"""Crops on their way through the network, and the rows that their results go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .device import Download

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
    """Crops that wait for a forward, and the rows that their results go to."""

    def __init__(self) -> None:
        self.count = 0
        self.crops: list[Tensor] = []
        self.centers: list[np.ndarray] = []
        self.box_sizes: list[np.ndarray] = []
        self.targets: list[tuple[Rows, slice]] = []


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
