"""Files: JSON read, anything written whole or not at all, and hashed. Nothing heavy is imported."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import DataError, PoseZooError

__all__ = ["load_json", "replacing", "sha256_of", "write_text", "writing"]

_DEPTH = 64  # nested levels; files of this field have five
_DIGITS = 308  # as many as a float has before the point
_LONG = re.compile(rb"\d{%d,}" % (_DIGITS + 1))
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def load_json(path: str | Path, error: type[PoseZooError] = DataError) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a mark.

    Args:
        path: the file.
        error: what to raise; the kind that the caller's files have.

    Raises:
        PoseZooError: of that kind: the file is missing, unreadable or not complete JSON, is
            nested more than 64 levels, or holds a number of more than 308 digits.
    """
    try:
        data = Path(path).read_bytes()
        plain = data.replace(b"\0", b"")  # of UTF-16 and UTF-32
        number = _LONG.search(plain)
        if number is None and not _is_deep(plain):
            return json.loads(data)
    except FileNotFoundError as cause:
        raise error(
            f"cannot read {path}: it does not exist; give the path of a JSON file"
        ) from cause
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror or cause}") from cause
    except (ValueError, RecursionError) as cause:  # malformed JSON, or bytes that are no text
        raise error(
            f"cannot read {path}: it is not complete JSON ({cause}); correct it, or fetch it again "
            "if it was truncated on the way"
        ) from cause
    what = "is nested too deep" if number is None else f"has a number of {len(number[0])} digits"
    raise error(f"cannot read {path}: it {what}; valid: up to {_DEPTH} levels and {_DIGITS} digits")


def _is_deep(data: bytes) -> bool:
    """Whether brackets outside of strings are nested too deep: the innermost go, level by level."""
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    for _ in range(_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return len(brackets) > 2 * _DEPTH or b"[]" in brackets or b"{}" in brackets


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ADVICE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "write elsewhere, or permit it"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR), "a folder on the way is a file; write elsewhere"
    ),
    errno.ENAMETOOLONG: "a file's name has at most 255 bytes; give a shorter one",
}


@contextmanager
def writing(path: Path, when_full: str = "make room, or write elsewhere") -> Iterator[None]:
    """Name the file where something in the block cannot be written.

    Args:
        path: the file.
        when_full: what to do where the disk is full.

    Raises:
        DataError: the system refused; torch's writer says so by a RuntimeError.
    """
    try:
        yield
    except PoseZooError:  # some are RuntimeErrors, too
        raise
    except (OSError, RuntimeError) as error:
        reason, code = None, errno.ENOSPC
        if isinstance(error, OSError):
            reason, code = error.strerror, error.errno or 0
        advice = when_full if code in _FULL else _ADVICE.get(code, "write elsewhere")
        raise DataError(f"cannot write {path}: {reason or error}; {advice}") from error


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
