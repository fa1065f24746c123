"""Signals to this process, as a terminal or a scheduler sends them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sent_when(number: int, is_time: Callable[[], object]) -> Iterator[None]:
    """Send a signal as soon as `is_time` says so; KeyboardInterrupt where nobody catches it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if is_time():
                return os.kill(os.getpid(), number)

    before = signal.signal(number, signal.default_int_handler)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(number, before)
