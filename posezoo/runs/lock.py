"""One writer per output folder: a locked file that names the process that writes.

The system releases the lock when a process ends, however it ends, so that none is left behind.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError
from ..files import writing

if sys.platform != "win32":  # where files have no such locks, nothing is checked
    import fcntl

__all__ = ["BusyError", "one_writer"]


class BusyError(DataError):
    """Another process writes there."""


@contextmanager
def one_writer(folder: Path, name: str = "writer.lock", *, shared: bool = False) -> Iterator[None]:
    """Keep other processes from writing into a folder while the block runs.

    Args:
        folder: is made if it is not there.
        name: of the locked file in it; it is removed at the end.
        shared: keep out those only that do not share, such as a whole run beside its parts.

    Raises:
        BusyError: another process writes there.
        DataError: it cannot be written.
    """
    path = folder / name
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(path, shared)
    try:
        with writing(path):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        if not shared:
            path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path, shared: bool) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if sys.platform == "win32":
            return handle
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            owner = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            raise BusyError(
                f"{path.parent} is being written by another run ({owner or 'just started'}); wait "
                "until it ends, or give another --out"
            ) from None
        except OSError:  # a file system without locks
            return handle
        os.close(handle)  # somebody removed the file between opening and locking
