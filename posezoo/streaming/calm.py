"""Ids and smoothing along the frames of a film: `Calm`."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..media.frames import Frame
from ..results import PoseResult
from ..tracking import OneEuroSmoother, SavitzkyGolaySmoother, Smoother, Tracker
from .found import FrameResult
from .options import StreamOptions

__all__ = ["Calm"]

_RATE = 25.0  # frames per second where frames have no time, as photos have none


class Calm:
    """Gives people ids and smooth keypoints, in the order of the frames.

    A filter that looks ahead holds frames back; they come out later, in order.
    """

    def __init__(self, options: StreamOptions) -> None:
        self.tracker = Tracker() if options.track else None
        self.smoother: Smoother | None = None
        if options.smooth is not None:
            filters = {"one-euro": OneEuroSmoother, "savgol": SavitzkyGolaySmoother}
            self.smoother = filters[options.smooth]()
        self.held: deque[FrameResult] = deque()  # frames that wait for later ones
        self.count = 0

    def push(self, found: FrameResult) -> list[FrameResult]:
        """Take the next frame; return those that are finished."""
        time = self.count / _RATE if found.time is None else found.time
        self.count += 1
        if found.result is None or self.tracker is None:
            self.held.append(found)
            return self._finished([])
        tracked = self.tracker.update(found.result)
        self.held.append(dataclasses.replace(found, result=tracked))
        if self.smoother is None:
            return self._finished([tracked])
        return self._finished([result for result, _ in self.smoother.push(tracked, time)])

    def flush(self) -> list[FrameResult]:
        """Return the frames that are still held back, at the end of a film."""
        last = [] if self.smoother is None else self.smoother.flush()
        return self._finished([result for result, _ in last])

    def _finished(self, results: Sequence[PoseResult]) -> list[FrameResult]:
        """Return held frames from the oldest on, as far as their results are known."""
        known = deque(results)
        out: list[FrameResult] = []
        while self.held:
            oldest = self.held[0]
            if oldest.result is not None and self.tracker is not None:
                if not known:
                    break
                oldest = dataclasses.replace(oldest, result=known.popleft())
            out.append(oldest)
            self.held.popleft()
        return out

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON types."""
        return {
            "count": self.count,
            "tracker": None if self.tracker is None else self.tracker.state(),
            "smoother": None if self.smoother is None else self.smoother.state(),
            "held": [
                {
                    "error": None if found.error is None else str(found.error),
                    "result": None if found.result is None else found.result.to_dict(),
                }
                for found in self.held
            ],
        }

    def restore(self, state: dict[str, Any], frames: Sequence[Frame]) -> None:
        """Go on from a state; `frames` are those that were held back, read again."""
        self.count = state["count"]
        if self.tracker is not None:
            self.tracker.restore(state["tracker"])
        if self.smoother is not None:
            self.smoother.restore(state["smoother"])
        for entry, frame in zip(state["held"], frames, strict=True):
            result: PoseResult | InputError = InputError(str(entry["error"]))
            if entry["result"] is not None:
                result = PoseResult.from_dict(entry["result"])
            self.held.append(FrameResult.of(frame, result))
