"""Names of files and folders: inside a saved model, and in the cache of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import IntegrityError
from ..zoo.config import PretrainedCfg

__all__ = [
    "CONFIG_FILE",
    "HASH_FILE",
    "WEIGHTS_FILE",
    "CacheDir",
    "cache_root",
    "converted_dir",
    "exported_dir",
    "hub_dir",
    "is_inside",
    "locked",
    "remove",
]

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
HASH_FILE = WEIGHTS_FILE + ".sha256"  # of a conversion, written last
_log = logging.getLogger(__name__)

CacheDir = str | Path | None
"""The user's `cache_dir`; None is the default, see `cache_root`."""


def cache_root(cache_dir: CacheDir = None) -> Path:
    """Return the folder for everything that is fetched, converted or remembered.

    It is `cache_dir`, else `$POSEZOO_CACHE`, else `~/.cache/posezoo`.
    """
    default = os.environ.get("POSEZOO_CACHE") or Path.home() / ".cache" / "posezoo"
    return Path(cache_dir or default).expanduser()


def converted_dir(cfg: PretrainedCfg, cache_dir: CacheDir = None) -> Path:
    """Return the folder of a variant's converted weights."""
    return cache_root(cache_dir) / "converted" / cfg.name


def exported_dir(cache_dir: CacheDir = None) -> Path:
    """Return the folder of networks that were exported for an engine."""
    return cache_root(cache_dir) / "exported"


def hub_dir(cache_dir: CacheDir = None) -> Path:
    """Return the folder for downloads from the Hub."""
    return cache_root(cache_dir) / "hub"


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, is below a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def remove(path: Path, cache_dir: CacheDir = None) -> None:
    """Delete a file of the cache; the only function that deletes there.

    Raises:
        IntegrityError: the path leads out of the cache.
    """
    if not is_inside(path, cache_root(cache_dir)):
        raise IntegrityError(f"{path} leads out of the cache {cache_root(cache_dir)}; kept")
    path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, patience: float = 3.0) -> Iterator[None]:
    """Hold the lock of a folder, which is made; say so while another process has it.

    Args:
        folder: what is locked.
        patience: seconds before the first word; later ones come every minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    while True:
        try:
            lock.acquire(timeout=patience)
            break
        except Timeout:
            _log.warning("another process works on %s (it holds .lock there); waiting", folder)
            patience = 60.0
    try:
        yield
    finally:
        lock.release()
