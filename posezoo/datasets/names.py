"""Names of images in annotation files and where the images are: which belongs to which.

Files are written on other machines: with the other slash, with `./`, with the folder that they
were in there, or with accents in another Unicode form. Names are compared by their parts.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError

__all__ = ["FileName", "find_images", "images_that_exist"]

_DRIVE = re.compile(r"[A-Za-z]:/")


class FileName:
    """The name of a file as somebody wrote it down.

    Attributes:
        text: as it was written.
        parts: folders and file name in Unicode's composed form (NFC).
        is_absolute: whether it begins at the root of some machine.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        path = posixpath.normpath(text.replace("\\", "/"))
        self.is_absolute = path.startswith("/") or bool(_DRIVE.match(path))
        parts = unicodedata.normalize("NFC", path).split("/")
        self.parts = tuple(part for part in parts if part not in ("", "."))

    def overlap(self, other: FileName) -> int:
        """Return how many parts agree, from the last one on."""
        pairs = zip(reversed(self.parts), reversed(other.parts))
        return next((i for i, (a, b) in enumerate(pairs) if a != b), _shorter(self, other))

    def fits(self, path: FileName) -> int:
        """Return how many parts of an absolute path this name explains, 0 if it names another.

        All of a relative name must agree. Of an absolute one the folders may differ.
        """
        agreeing = self.overlap(path)
        return agreeing if self.is_absolute or agreeing == len(self.parts) else 0


def _shorter(a: FileName, b: FileName) -> int:
    return min(len(a.parts), len(b.parts))


def images_that_exist(
    folder: Path, names: Sequence[str], below: str, source: object
) -> list[Path | None]:
    """Return the path of each image in `folder` or its subfolder `below`, None for missing ones.

    `source` is the file that has the names.

    A name is looked for as it is, then with the slashes and Unicode forms of other systems; of an
    absolute name the longest end that exists in the folder counts. Nothing outside of the folder
    is read.

    Raises:
        DataError: there is no such folder, a name points out of it, or two names are one file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of the images")
    for name in names:
        if ".." in FileName(name).parts:
            raise DataError(
                f"{source}: file_name {name!r} points out of the folder of the images; write it "
                "from there, without '..'"
            )
    found = {name: _find(folder, name, below) for name in dict.fromkeys(names)}
    names_of: dict[Path, str] = {}
    for name, path in found.items():
        if path is not None and names_of.setdefault(path, name) != name:
            raise DataError(
                f"{source}: {names_of[path]!r} and {name!r} are both {path}; "
                "name each image once, with its folder"
            )
    return [found[name] for name in names]


def find_images(
    folder: Path, names: Sequence[str], below: str, source: object, way_out: str = ""
) -> list[Path]:
    """Return the paths of images, see `images_that_exist`; `way_out` ends the message.

    Raises:
        DataError: an image is missing, or as there.
    """
    paths = images_that_exist(folder, names, below, source)
    missing = list(dict.fromkeys(name for name, path in zip(names, paths) if path is None))
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(set(names))} images are missing, first "
            f"{missing[0]}; they must be in {folder} or in {folder / below}{way_out}"
        )
    return [path for path in paths if path is not None]


def _find(folder: Path, text: str, below: str) -> Path | None:
    roots = (folder / below, folder)
    name = FileName(text)
    if not name.is_absolute:
        for root in roots:
            if os.path.isfile(root / text):  # False for whatever is no name
                return root / text
    starts = range(len(name.parts)) if name.is_absolute else range(1)
    for start in starts:
        for path in _spellings(roots, name.parts[start:]):
            if os.path.isfile(path):
                return path
    return None


def _spellings(roots: Iterable[Path], parts: Sequence[str]) -> Iterable[Path]:
    for form in ("NFC", "NFD"):
        for root in roots:
            yield root.joinpath(*(unicodedata.normalize(form, part) for part in parts))
