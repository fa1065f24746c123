"""Pictures side by side, in one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

GAP = 6  # pixels between pictures


def row(pictures: list[Picture]) -> Picture:
    """Put pictures of one height side by side on white."""
    bar = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([part for p in pictures for part in (p, bar)][:-1])


def rows(pictures: list[Picture], columns: int) -> Picture:
    """Put pictures of one size into rows of so many."""
    lines = [row(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    bar = np.full((GAP, lines[0].shape[1], 3), 255, np.uint8)
    return np.vstack([part for line in lines for part in (line, bar)][:-1])


def larger(picture: Picture, times: int) -> Picture:
    return picture.repeat(times, 0).repeat(times, 1)
