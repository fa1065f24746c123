"""Is a file what it should be? Every comparison of hashes is here.

A checked file is remembered by size and modification time and not hashed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path

from ..errors import IntegrityError
from ..files import sha256_of, write_text
from .cache import CacheDir, cache_root

__all__ = ["check_hash", "check_named_hash", "verify_file"]

_NAMED_HASH = re.compile(r"-([0-9a-f]{8})(?:_\d{8})?\.pth$")
_SHA1, _SHA256, _SHA256_START = 40, 64, 8  # hex digits
_log = logging.getLogger(__name__)


def check_hash(path: Path, expected: str, *, name: str = "") -> None:
    """Compare a file with a sha256 (all 64 hex digits or the first 8) or git's sha1 of it (40).

    Args:
        path: the file.
        expected: the hash.
        name: what to call the file in the message, if not by its path.

    Raises:
        IntegrityError: the content is another one.
    """
    actual = _git_sha1(path) if len(expected) == _SHA1 else sha256_of(path)
    is_hash = len(expected) in (_SHA1, _SHA256, _SHA256_START)
    if not is_hash or not actual.startswith(expected):
        raise IntegrityError(
            f"{name or path} has hash {actual[:16]}… but {expected[:16] or 'none'}… is expected; "
            "the file is damaged or was replaced"
        )


def verify_file(path: Path, expected: str, *, cache_dir: CacheDir = None) -> None:
    """Do what `check_hash` does, unless the same file was checked before.

    Raises:
        IntegrityError: the content is another one.
    """
    stat = path.stat()
    record = {
        "path": str(path),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "hash": expected,
    }
    name = hashlib.sha256(str(path).encode()).hexdigest()[:32] + ".json"
    remembered = cache_root(cache_dir) / "verified" / name
    try:
        if json.loads(remembered.read_text()) == record:
            return
    except (OSError, ValueError):
        pass
    check_hash(path, expected)
    try:
        write_text(remembered, json.dumps(record))
    except OSError:
        _log.debug("cannot remember the check of %s (read-only cache)", path)


def check_named_hash(path: Path, sha256: str) -> None:
    """Compare with the hash in an OpenMMLab file name (`name-<8 hex>[_date].pth`).

    Raises:
        IntegrityError: the name promises another hash.
    """
    promised = _NAMED_HASH.search(path.name)
    if promised and not sha256.startswith(promised.group(1)):
        raise IntegrityError(
            f"{path} has sha256 {sha256[:8]}…, but its name promises {promised.group(1)}; "
            "the download is damaged or the file was renamed: fetch it again"
        )


def _git_sha1(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
