"""Names of files and folders: inside a saved model, and in the cache of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from ..zoo.config import PretrainedCfg

__all__ = [
    "CONFIG_FILE",
    "HASH_FILE",
    "WEIGHTS_FILE",
    "CacheDir",
    "cache_root",
    "converted_dir",
    "hub_dir",
]

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
HASH_FILE = WEIGHTS_FILE + ".sha256"  # of a conversion, written last

CacheDir = str | Path | None
"""The user's `cache_dir`; None is the default, see `cache_root`."""


def cache_root(cache_dir: CacheDir = None) -> Path:
    """Return the folder for converted weights and records of checked files.

    It is `cache_dir`, else `$POSEZOO_CACHE`, else `~/.cache/posezoo`.
    """
    default = os.environ.get("POSEZOO_CACHE") or Path.home() / ".cache" / "posezoo"
    return Path(cache_dir or default).expanduser()


def converted_dir(cfg: PretrainedCfg, cache_dir: CacheDir = None) -> Path:
    """Return the folder of a variant's converted weights."""
    return cache_root(cache_dir) / "converted" / cfg.name


def hub_dir(cache_dir: CacheDir = None) -> Path | None:
    """Return the folder for downloads from the Hub; None is the Hub client's own."""
    return None if cache_dir is None else cache_root(cache_dir) / "hub"
