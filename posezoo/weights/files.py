"""Files: written whole or not at all, and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["replacing", "sha256_of", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; move it there if the block succeeds, else remove it.

    A link stays, and the file that it points to is replaced.

    Raises:
        OSError: it cannot be written, or is a folder or a device; the error names `path`, never
            the temporary file.
    """
    target = Path(os.path.realpath(path))
    # a short name: the target's may be as long as names can be
    temporary = target.with_name(f".{target.name[:20]}.{secrets.token_hex(4)}.tmp")
    try:
        if target.exists() and not target.is_file():
            code = errno.EISDIR if target.is_dir() else errno.EINVAL
            raise OSError(code, "it is no file; give the name of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
