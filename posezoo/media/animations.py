"""Images that move: GIF, PNG and WebP files with several frames."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

__all__ = ["is_animated"]

_ENDINGS = (".gif", ".png", ".webp")


def is_animated(path: Path) -> bool:
    """Whether an image file has several frames; no where it cannot be read, which shows later."""
    if path.suffix.lower() not in _ENDINGS or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("GIF", "PNG", "WEBP")) as image:
            kinds = (GifImageFile, PngImageFile, WebPImageFile)
            return isinstance(image, kinds) and bool(image.is_animated)
    except Exception:  # Pillow's decoders raise almost anything for a damaged file
        return False
