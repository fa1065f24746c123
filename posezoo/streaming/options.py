"""How frames are looked at: `StreamOptions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..errors import InputError
from ..media.frames import FrameChoice

__all__ = ["Smoothing", "StreamOptions"]

Smoothing = Literal["one-euro", "savgol"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What a stream does beside finding poses.

    Attributes:
        choice: which frames of films and cameras are used.
        detect_every: ask the detector for each so many-th frame of a film; between them boxes
            follow the poses, unless people overlap.
        track: give people ids that last from frame to frame. Photos of one folder then count as
            the frames of a film.
        smooth: filter that calms the keypoints of tracked people: "one-euro" looks back only,
            "savgol" also a few frames ahead. Both need `track`.

    Raises:
        InputError: a value out of range, or smoothing without tracks.
    """

    choice: FrameChoice = field(default_factory=FrameChoice)
    detect_every: int = 1
    track: bool = False
    smooth: Smoothing | None = None

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"detect_every is {self.detect_every}; valid: an integer from 1")
        if self.smooth is not None and self.smooth not in get_args(Smoothing):
            valid = ", ".join(get_args(Smoothing))
            raise InputError(f"smooth is {self.smooth!r}; valid: {valid}")
        if self.smooth is not None and not self.track:
            raise InputError(
                "smoothing follows tracked people; ask for tracks as well, by --track or track=True"
            )
