"""The authors' files without a full published hash: the first one used is remembered.

This is trust on first use: a later change is refused, the first file itself is not vouched for.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ..errors import IntegrityError
from ..files import write_text
from ..zoo.config import PretrainedCfg
from .cache import CacheDir, cache_root
from .trust import pinned_hash

__all__ = ["known_hash", "remember"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


def _record(cfg: PretrainedCfg, cache_dir: CacheDir) -> Path:
    return cache_root(cache_dir) / "first-use" / f"{cfg.name}.sha256"


def known_hash(cfg: PretrainedCfg, cache_dir: CacheDir = None) -> str | None:
    """Return the most that is known of the authors' file's sha256.

    It is the pinned one, else the remembered one, else the first 8 digits, else None.

    Raises:
        IntegrityError: the record is damaged, or contradicts the 8 digits.
    """
    if pinned := pinned_hash(cfg.source):
        return pinned
    path, start = _record(cfg, cache_dir), cfg.source.original_sha256
    try:
        remembered = path.read_text().strip()
    except OSError:
        return start
    if not _SHA256.fullmatch(remembered) or not remembered.startswith(start or ""):
        raise IntegrityError(
            f"{path} says {remembered[:16]!r}, which is not the sha256 of {cfg.name}; "
            "if you did not change it, somebody did: delete it to start anew"
        )
    return remembered


def remember(cfg: PretrainedCfg, sha256: str, cache_dir: CacheDir = None) -> None:
    """Remember, and print, the hash of the first file used where none is pinned."""
    path = _record(cfg, cache_dir)
    if pinned_hash(cfg.source) or path.is_file():
        return
    write_text(path, sha256 + "\n")
    known = "the first 8 digits of its hash" if cfg.source.original_sha256 else "no hash of it"
    _log.warning(
        "first use of the file of %s, sha256 %s: the publisher states %s, so this one is "
        "remembered and another is refused from now on",
        cfg.name, sha256, known,
    )  # fmt: skip
