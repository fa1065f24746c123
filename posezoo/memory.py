"""Memory of the C library: blocks are kept when they are freed, for the next forward."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from typing import Any

__all__ = ["give_back_freed_memory", "keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt
_KEPT = 1 << 30  # bytes that are free at the end of the heap; what is more goes back to the system
_LARGEST = 32 << 20  # of larger blocks, such as photos, small ones in between would keep the holes


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GiB of freed memory in this process; return whether it does.

    Blocks of up to 32 MiB are kept, as glibc itself does while less than 64 MiB are free. Without
    it large tensors are asked from the system and given back, and the system clears their pages
    each time: 5 to 20 % of a forward on the CPU. Peaks are up to 1.5 times as high, because what is
    free is in pieces. Other C libraries, and processes whose environment sets malloc, stay as
    they are.
    """
    chosen = [key for key in os.environ if key == "GLIBC_TUNABLES" or key.startswith("MALLOC_")]
    mallopt = None if chosen else _glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT))


def give_back_freed_memory() -> None:
    """Let glibc give all memory that is free back to the system, the pieces in between, too."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """Return a function of glibc, None with another C library."""
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
