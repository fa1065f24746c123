"""One file out of a tar or zip."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from ..errors import WeightsUnavailableError
from ..files import replacing

__all__ = ["extract"]


def extract(archive: Path, member: str, target: Path) -> None:
    """Write one member of an archive to `target`; nothing else in it is unpacked.

    Raises:
        WeightsUnavailableError: no archive, or no such file in it.
    """
    try:
        with open(archive, "rb") as opened_file:
            is_zip = opened_file.read(4) == b"PK\x03\x04"  # a tar may end with one
        if is_zip:
            with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
                _write(file, target)
                return
        with tarfile.open(archive) as tar:
            found = tar.getmember(member)
            content = tar.extractfile(found) if found.isreg() else None
            if content is None:
                raise WeightsUnavailableError(f"{member} in the archive is not a file")
            _write(content, target)
    except KeyError as error:
        raise WeightsUnavailableError(f"the archive has no {member}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise WeightsUnavailableError(f"is no whole tar or zip: {error}") from error


def _write(file: IO[bytes], target: Path) -> None:
    with replacing(target) as temporary, open(temporary, "wb") as out:
        shutil.copyfileobj(file, out, 1 << 20)
