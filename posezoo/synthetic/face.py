"""The points of a head in its own frame, in units of its radii."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["FACE", "HEAD_RADII"]

Array = NDArray[np.float64]

HEAD_RADII = np.array([0.056, 0.078, 0.068])  # to the side, along the neck, to the front


def _face_table() -> dict[str, Array]:
    """Return the points of the head in its own frame, in units of `HEAD_RADII`."""
    flat: list[tuple[float, float]] = []  # x to the person's left, y down
    jaw = np.linspace(0, math.pi, 17)
    flat += [(-0.95 * math.cos(t), 0.05 + 0.9 * math.sin(t)) for t in jaw]
    brow = [(-0.72 + 0.14 * i, -0.34 - 0.09 * math.sin(math.pi * i / 4)) for i in range(5)]
    flat += brow + [(-x, y) for x, y in reversed(brow)]
    flat += [(0.0, -0.14 + 0.11 * i) for i in range(4)]
    flat += [(-0.18 + 0.09 * i, 0.27 + 0.03 * (2 - abs(i - 2))) for i in range(5)]
    for center in (-0.42, 0.42):
        angles = np.radians([180, 120, 60, 0, -60, -120])
        flat += [(center + 0.17 * math.cos(a), -0.13 - 0.07 * math.sin(a)) for a in angles]
    flat += [
        (-0.32 * math.cos(t), 0.52 - 0.10 * math.sin(t)) for t in np.arange(12) * (math.pi / 6)
    ]
    flat += [(-0.24 * math.cos(t), 0.52 - 0.04 * math.sin(t)) for t in np.arange(8) * (math.pi / 4)]
    named = {f"face-{i}": xy for i, xy in enumerate(flat)}
    named |= {"left_eye": (0.42, -0.13), "right_eye": (-0.42, -0.13)}
    table = {
        name: np.array([x, y, -math.sqrt(max(0.02, 1 - x * x - y * y))])
        for name, (x, y) in named.items()
    }
    for i in range(27, 36):
        table[f"face-{i}"][2] -= 0.06 * (min(i, 30) - 27)
    table["nose"] = table["face-30"]
    table |= {"left_ear": np.array([1.0, 0.0, 0.12]), "right_ear": np.array([-1.0, 0.0, 0.12])}
    table["head_top"] = np.array([0.0, -1.1, 0.1])
    return table


FACE = _face_table()
