"""Whether images can be used, told before a long run by their headers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from ..errors import DataError, InputError
from ..images import load_image

__all__ = ["Pictures", "check_pictures"]

_LOGGER = logging.getLogger(__name__)
_MANY = 5000  # images that take seconds

Pictures = Mapping[Path, "tuple[int, int] | None"]
"""Images, and the (H, W) that the annotations state, None where they do not."""


def check_pictures(pictures: Pictures) -> None:
    """Open every image and compare its size with the annotated one; pixels are not decoded.

    Raises:
        DataError: an image that is none, or has another size.
    """
    if len(pictures) > _MANY:
        _LOGGER.info("checking the headers of %d images", len(pictures))
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(_fault, pictures.keys(), pictures.values())
        faults = [text for text in found if text is not None]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(pictures)} images cannot be used, first: {faults[0]}; replace "
            "the files, or remove their annotations"
        )


def _fault(path: Path, size: tuple[int, int] | None) -> str | None:
    try:
        with Image.open(path) as image:
            if size is None or (image.height, image.width) == size:
                return None
    except Exception:  # Pillow raises almost anything; what it means is told below
        pass
    try:
        load_image(path, recorded_size=size)
    except InputError as error:
        return str(error)
    return None
