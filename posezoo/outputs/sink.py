"""What a run asks of everything that it writes: `Sink`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..streaming.found import FrameResult

__all__ = ["Sink"]


class Sink:
    """A file or folder that takes finished frames, unit after unit.

    Frames come in order. Whatever was written before a checkpoint stays on disk, and a run that
    goes on from the checkpoint writes the same bytes as one that was never interrupted.
    """

    def restore(self, state: Any) -> None:
        """Go on from a checkpoint; called before anything else."""

    def begin(self, unit: int) -> None:
        """Begin a unit, or go on with the one that the checkpoint was in."""

    def write(self, frames: Sequence[FrameResult]) -> None:
        """Write the next frames of the unit.

        Raises:
            DataError: they cannot be written.
        """
        raise NotImplementedError

    def checkpoint(self) -> Any:
        """Put everything so far on disk; return what `restore` needs, as JSON types."""
        return None

    def end(self) -> None:
        """Finish the unit."""

    def close(self) -> None:
        """Finish files, at the end of a run or where it was stopped."""
