"""Names of the files that belong to each input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..media.film import FILM_ENDINGS
from ..media.sources import FILMS, Film, Photo, Source
from .overlays import PICTURE_FORMATS

__all__ = ["files_of", "picture_paths", "require_short_names"]

_NAME_BYTES = 255  # the longest name of usual file systems


def files_of(
    sources: Sequence[Source], folder: Path, photo_ending: str, film_ending: str
) -> dict[str, Path]:
    """Return a file per source below `folder`, in the sub-folder that it has below what is common.

    Sources of one name but for its ending keep the ending: `a.jpg` and `a.png` become `a.jpg.json`
    and `a.png.json`.

    Raises:
        InputError: two sources would get the same file.
    """
    paths = {str(source): _absolute(source) for source in sources}
    common = os.path.commonpath([path.parent for path in paths.values()])
    endings = {str(s): photo_ending if isinstance(s, Photo) else film_ending for s in sources}
    short = {s: path.with_suffix(endings[s]) for s, path in paths.items()}
    owners = Counter(file for file, _ in {(short[s], path) for s, path in paths.items()})
    files: dict[str, Path] = {}
    taken: dict[Path, Path] = {}
    for source, path in paths.items():
        file = short[source]
        if owners[file] > 1:
            file = path.with_name(path.name + endings[source])
        if taken.setdefault(file, path) != path:
            raise InputError(
                f"{taken[file]} and {source} would both be written as {file.name}; rename one of "
                "them, or take them one after the other into different folders"
            )
        files[source] = folder / file.relative_to(common)
    return files


def require_short_names(files: Iterable[Path]) -> None:
    """Refuse files with names that no file system takes.

    Raises:
        InputError: a name of more than 255 bytes.
    """
    for file in files:
        if (size := len(os.fsencode(file.name))) > _NAME_BYTES:
            raise InputError(
                f"{file} cannot be written: its name has {size} bytes, and a file's name has at "
                f"most {_NAME_BYTES}; give the input a shorter name"
            )


def _absolute(source: Source) -> Path:
    """Return the full path of a file, or a name for a camera in the current folder."""
    if isinstance(source, (Photo, Film)):
        return Path(os.path.abspath(source.path))
    return Path(os.path.abspath(str(source).replace(" ", "_")))


def picture_paths(option: str, sources: Sequence[Source], target: Path) -> dict[str, Path]:
    """Return where the picture or film of each source is written.

    It is `target` itself where that is such a file and there is one source; else a PNG or MP4 of
    the source's name below the folder `target`.

    Raises:
        InputError: two sources would get one picture, several one file, or the name is that of
            an image or video in another format.
    """
    suffix = target.suffix.lower()
    is_photo = isinstance(sources[0], Photo)
    if suffix in (*PICTURE_FORMATS, *FILM_ENDINGS) and not target.is_dir():
        if len(sources) > 1:
            raise InputError(f"{target} is one picture for {len(sources)} photos; give a folder")
        if (suffix in PICTURE_FORMATS) is not is_photo:
            ends = "PNG or JPEG" if is_photo else ", ".join(FILM_ENDINGS)
            raise InputError(f"{option} is {target} for {sources[0]}; valid: {ends}, or a folder")
        return {str(sources[0]): target}
    if (suffix in FILMS or suffix in Image.registered_extensions()) and not target.is_dir():
        raise InputError(
            f"{target} is neither PNG nor JPEG, nor a film in {', '.join(FILM_ENDINGS)}; give such "
            "a name, or a folder"
        )
    return files_of(sources, target, ".png", ".mp4")
