"""What a user names, as photos, films and cameras: files, folders, wildcards, lists, numbers."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..images import ImageSource
from .animations import is_animated

__all__ = ["FILMS", "Camera", "Film", "Images", "Photo", "Source", "find_sources"]

_PHOTOS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .webp .tif .tiff .gif .ppm .pgm .pbm .jp2 .avif .heic".split()
)
FILMS = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .mts .m2ts .ts .3gp .ogv .mxf".split()
)
_LIST = ".txt"


@dataclass(frozen=True)
class Photo:
    """A file with one image; whether it is one shows when it is read.

    `error` says why it cannot be read where that is known already: a folder among the files of
    another folder.
    """

    path: Path
    error: str | None = None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Film:
    """A video file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Camera:
    """A camera of this machine, by its number."""

    number: int

    def __str__(self) -> str:
        return f"camera {self.number}"


@dataclass(frozen=True, eq=False)
class Images:
    """Images in memory, such as the frames of somebody's own reader; they are read once."""

    images: Iterable[ImageSource]

    def __str__(self) -> str:
        return "image"


Source = Photo | Film | Camera | Images


def find_sources(
    inputs: Iterable[str | Path | int], leave_out: Sequence[Path] = ()
) -> list[Source]:
    """Return the photos, films and cameras that `inputs` name, in their order.

    An input is a photo, a video, a folder (with its sub-folders, in the order of names; hidden
    files are left out, links to folders are followed), a pattern with wildcards (`**` enters
    folders), a `.txt` file with one input per line, relative to the current folder or to that of
    the list, or the number of a camera. A file of that name comes before a pattern or a number.
    A sub-folder that cannot be read is a `Photo` with its error. An animated GIF is a film where
    PyAV is installed; other animated images are photos, of their first frame.

    Args:
        inputs: what a user names.
        leave_out: files and folders that a search in folders does not enter, such as outputs.

    Raises:
        InputError: nothing there, a folder that cannot be read, a folder, pattern or list without
            photos and films, or no file at all among those that were named.
    """
    skipped = {os.path.realpath(path) for path in leave_out}
    sources = [source for item in inputs for source in _sources(item, skipped)]
    if not sources:
        raise InputError("no input was given; name photos, folders, videos or a camera's number")
    files = [source.path for source in sources if isinstance(source, (Photo, Film))]
    if len(files) == len(sources) and not any(path.exists() for path in files):
        others = f", nor any other of the {len(files)} given" if len(files) > 1 else ""
        raise InputError(f"there is no file {files[0]}{others}")
    return sources


def _sources(item: str | Path | int, skipped: set[str]) -> Iterator[Source]:
    if isinstance(item, int):
        yield Camera(item)
        return
    path = Path(item)
    if path.is_dir():
        yield from _required(_walk(path, skipped), f"the folder {path}")
    elif path.suffix.lower() == _LIST and path.is_file():
        yield from _required(_listed(path, skipped), f"the list {path}")
    elif path.exists():
        yield _file(path)
    elif str(item).isdecimal():
        yield Camera(int(str(item)))
    elif glob.has_magic(str(item)):
        found = sorted(glob.glob(str(item), recursive=True))
        files = [Path(name) for name in found if os.path.realpath(name) not in skipped]
        known = [_file(file) for file in files if file.is_file() and _is_known(file)]
        yield from _required(known, f"the pattern {str(item)!r}")
    else:
        yield _file(path)


def _walk(folder: Path, skipped: set[str]) -> Iterator[Source]:
    # links to folders are followed, each folder once, but not to what holds this one
    start = os.path.realpath(folder)
    entered = {start}
    unread: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unread.append, followlinks=True):
        yield from _unread(folder, unread)
        below = {n: os.path.realpath(f"{parent}/{n}") for n in sorted(folders) if n[0] != "."}
        folders.clear()
        for name, real in below.items():
            if real not in skipped | entered and not f"{start}/".startswith(f"{real}/"):
                entered.add(real)
                folders.append(name)
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and _is_known(path):
                if os.path.realpath(path) not in skipped:
                    yield _file(path)
    yield from _unread(folder, unread)


def _unread(folder: Path, errors: list[OSError]) -> Iterator[Source]:
    """Take the errors of sub-folders as sources; that of the folder itself is raised."""
    while errors:
        error = errors.pop(0)
        path = Path(error.filename)
        words = f"the folder {path} cannot be read: {error.strerror}"
        if path == folder:
            raise InputError(f"{words}; change its permissions, or name other folders") from error
        yield Photo(path, f"{words}; the other folders are done")


def _listed(path: Path, skipped: set[str]) -> Iterator[Source]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {path}: {error}; give UTF-8 text") from error
    for line in map(str.strip, lines):
        if line.lower().endswith(_LIST):
            raise InputError(f"{path} names another list, {line}; name photos and videos")
        if line and not line.startswith("#"):
            beside = str(path.parent / line)
            here = _exists(line) or not _exists(beside)
            yield from _sources(line if here else beside, skipped)


def _exists(name: str) -> bool:
    return Path(name).exists() or next(glob.iglob(name, recursive=True), None) is not None


def _required(found: Iterable[Source], where: str) -> list[Source]:
    sources = list(found)
    if not sources:
        raise InputError(f"{where} holds no photo and no video; name files with usual endings")
    return sources


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in _PHOTOS | FILMS


def _file(path: Path) -> Source:
    if path.suffix.lower() in FILMS:
        return Film(path)
    is_film = path.suffix.lower() == ".gif" and is_animated(path) and _has_av()
    return Film(path) if is_film else Photo(path)


def _has_av() -> bool:
    return importlib.util.find_spec("av") is not None
