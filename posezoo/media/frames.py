"""One image on its way to the network: `Frame`, and which frames of a film are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["Frame", "FrameChoice"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """An image of a photo, film or camera, or why there is none.

    Attributes:
        source: the file as it was given, or "camera N".
        index: number of the frame in its film, from 0; None for a photo.
        time: seconds from the first frame of the film; None for a photo.
        image: uint8 RGB (H, W, 3), None where it cannot be read.
        error: why it cannot be read.
    """

    source: str
    index: int | None = None
    time: float | None = None
    image: NDArray[np.uint8] | None = None
    error: InputError | None = None

    @property
    def name(self) -> str:
        """The source, and the number of the frame if there is one."""
        return self.source if self.index is None else f"{self.source}, frame {self.index}"


@dataclass(frozen=True, kw_only=True)
class FrameChoice:
    """Which frames of a film are used.

    Attributes:
        every: each so many-th frame, counted from the first one.
        start: seconds from the first frame; earlier frames are left out.
        stop: seconds; frames from there on are left out. None is the end of the film.
        limit: at most so many frames of a film, None for all.

    Raises:
        InputError: a value out of range.
    """

    every: int = 1
    start: float = 0.0
    stop: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"every is {self.every}; valid: an integer from 1")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the largest number of frames is {self.limit}; valid: from 1")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise InputError(f"start is {self.start} seconds; valid: a finite number from 0")
        if self.stop is not None and not self.stop > self.start:
            raise InputError(
                f"stop is {self.stop} seconds; valid: more than the start, {self.start:g}"
            )

    def takes(self, index: int, time: float) -> bool:
        """Tell whether a frame before the end is used."""
        return index % self.every == 0 and time >= self.start

    def ends(self, time: float, taken: int) -> bool:
        """Tell whether no frame from this time on is used, `taken` ones being used already."""
        return (self.stop is not None and time >= self.stop) or (
            self.limit is not None and taken >= self.limit
        )
