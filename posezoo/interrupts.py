"""Stopping long work on the first Ctrl-C or SIGTERM, where nothing is half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupt", "Stopped", "interruptible", "never", "uninterruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = b"\nposezoo: stopping when this step is done; once more stops at once\n"


class Stopped(Exception):
    """Work that ended early because it was asked to; the message says how to go on."""


class Interrupt:
    """Tells, when called, whether a signal has asked to stop; `number` is that signal's."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.number is None else 128 + self.number


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Note the first signal instead of ending by it; a second one ends the process at once.

    Outside of the main thread, where Python allows no handlers, signals do what they did.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        os.write(2, _NOTICE)

    before = [signal.signal(each, note) for each in _SIGNALS]
    try:
        yield interrupt
    finally:
        for each, handler in zip(_SIGNALS, before):
            signal.signal(each, handler)


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


def never() -> bool:
    """Say that nobody asked to stop."""
    return False
