"""Checks that cost nothing, made before a command loads or writes anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError

__all__ = ["keep_inputs", "require_file_name"]


def keep_inputs(inputs: Iterable[Path | None], outputs: Iterable[Path | None]) -> None:
    """Refuse outputs that are one of the inputs, by whatever name or link.

    Raises:
        InputError: an output would be written over an input.
    """
    known = {_identity(path): path for path in inputs if path is not None}
    for path in outputs:
        if path is not None and (found := known.get(_identity(path))) is not None:
            raise InputError(f"{path} would be written over the input {found}; give another name")


def _identity(path: Path) -> tuple[int, int] | str:
    """Return what two names of one file have in common: its inode, or its full path."""
    try:
        stat = path.stat()
    except OSError:
        return os.path.realpath(path)
    return stat.st_dev, stat.st_ino


def require_file_name(option: str, path: Path | None) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        InputError: it is a folder.
    """
    if path is not None and path.is_dir():
        raise InputError(f"{option} is the folder {path}; give the name of a file in it")
