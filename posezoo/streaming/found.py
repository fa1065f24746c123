"""What a stream yields for each frame: `FrameResult`."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..media.frames import Frame
from ..results import PoseResult

__all__ = ["FrameResult"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameResult(Frame):
    """A frame and the poses in it; `result` is None where `error` says why there is none."""

    result: PoseResult | None = None

    @classmethod
    def of(cls, frame: Frame, result: PoseResult | InputError) -> FrameResult:
        """Put a frame and what was found in it together."""
        error = result if isinstance(result, InputError) else None
        return cls(
            source=frame.source, index=frame.index, time=frame.time, image=frame.image,
            error=error, result=None if isinstance(result, InputError) else result,
        )  # fmt: skip
