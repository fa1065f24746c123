"""A training that has so much time instead of so many epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..errors import InputError

__all__ = ["TimeBudget"]


class TimeBudget:
    """The time of a call. The learning rate goes its way from the first step to the end of it, so
    what a run gives depends on the speed of the machine.

    Args:
        minutes: from now on.
        clock: seconds.

    Raises:
        InputError: not a finite number above 0.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < minutes < math.inf:
            raise InputError(f"minutes is {minutes}; give a finite number above 0")
        self._clock = clock
        self._end = clock() + 60 * minutes
        self._first: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time has passed."""
        return self._clock() >= self._end

    def share(self) -> float:
        """Return how much has passed since the first call of this, from 0 to 1."""
        now = self._clock()
        if self._first is None:
            self._first = now
        return 1.0 if now >= self._end else (now - self._first) / (self._end - self._first)
