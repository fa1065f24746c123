"""How much memory this process needs for something (Linux)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def highest_rise(work: Callable[[], object]) -> int:
    """Bytes by which the memory in use rises at most while `work` runs."""
    ctypes.CDLL(None).malloc_trim(0)  # nothing that others freed is left to reuse
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak()
    work()
    return _peak() - before


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
