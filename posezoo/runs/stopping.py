"""Stopping a long command cleanly: the first signal asks, the second ends it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stop", "Stopped", "never", "uninterruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = b"\nposezoo: stopping when this step is done; once more stops at once\n"


class Stopped(Exception):
    """Work that ended early because it was asked to; the message says how to go on."""


def never() -> bool:
    """Say that nobody asked to stop."""
    return False


@contextmanager
def uninterruptible() -> Iterator[None]:
    """Let processes that start in the block ignore Ctrl-C, which a terminal sends to all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stop:
    """Notes Ctrl-C and SIGTERM instead of ending the process; use it as a context.

    with Stop() as stop:
        for item in work:
            ...
            if stop.requested:
                break
    sys.exit(stop.status)

    A second signal does what it always does. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.requested = False
        self.status = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.status = True, 128 + number
        self._restore()
        os.write(2, _NOTICE)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
