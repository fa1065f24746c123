"""Reading images: files, Pillow images and arrays to uint8 RGB.

Only the pixels and the EXIF orientation matter; whatever else a file says about itself may be
damaged. What is no image is named for what it is.
"""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import InputError

__all__ = ["ImageSource", "load_image"]

ImageSource = np.ndarray | Image.Image | str | Path

_log = logging.getLogger(__name__)
_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {  # EXIF orientation -> flip left-right first, then quarter turns to the left
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}
_STRIP = 1 << 19  # pixels that are copied at a time
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras store in 16-bit files
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf")
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def load_image(
    source: ImageSource, *, recorded_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 `(H, W, 3)`.

    A file or Pillow image is turned upright by its EXIF orientation; the first frame counts.
    Palette, CMYK and grey become RGB, transparent pixels are laid over black (the colour outside
    the image in crops). An array must be uint8 RGB `(H, W, 3)` or grey `(H, W)` and is not
    copied if it can be used as it is.

    16-bit grey is divided by 257. Where no value needs more than 8, 10, 12 or 14 bits, as in the
    files of many cameras, the least of these is taken for white, and a warning is logged.

    Args:
        source: what to read.
        recorded_size: (H, W) that an annotation file states. Its labels belong to the pixels as
            they are stored if these have that size, else to the upright image.

    Raises:
        InputError: no such file, not an image, damaged or truncated, more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, an array of another kind, or another size than recorded.
    """
    if isinstance(source, np.ndarray):
        array, where = _from_array(source), "the image"
        return _require_size(array, recorded_size, where)
    if not isinstance(source, (Image.Image, str, Path)):
        raise InputError(
            f"image is a {type(source).__name__}; give a path, a Pillow image or a uint8 RGB array "
            "(H, W, 3)"
        )
    where = "the given Pillow image" if isinstance(source, Image.Image) else str(source)
    try:
        if isinstance(source, Image.Image):
            return _from_pillow(source, where, recorded_size)
        return _from_file(Path(source), where, recorded_size)
    except (InputError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        raise InputError(f"no image file at {where}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{where} is too large: {error}") from error
    except MemoryError as error:
        raise InputError(f"there is not enough memory for the pixels of {where}") from error
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise InputError(
            f"cannot read {where}: {error}; it is no image, or damaged or truncated"
        ) from error


def _from_file(path: Path, where: str, recorded_size: tuple[int, int] | None) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"cannot read {where}: it is {kind}")
    try:
        with Image.open(path) as image:
            _check_pixels(image, where)
            return _from_pillow(image, where, recorded_size)
    except UnidentifiedImageError:
        _refuse_what_is_known(path, where)
        raise
    except (ValueError, OSError, SyntaxError):
        plain = _png_without_texts(path)
        if plain is None:
            raise
        with Image.open(plain) as image:
            _check_pixels(image, where)
            return _from_pillow(image, where, recorded_size)


def _refuse_what_is_known(path: Path, where: str) -> None:
    """Name files that are often given for images.

    Raises:
        InputError: the file is one of them.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        raise InputError(
            f"{where} is a HEIC photo, which Pillow cannot read: pip install pillow-heif and call "
            "pillow_heif.register_heif_opener(), or convert it to JPEG"
        )
    is_video = head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3" or head[8:12] == b"AVI "
    if is_video:
        raise InputError(f"{where} is a video; give its frames as images")
    if head[:4] == b"%PDF":
        raise InputError(f"{where} is a PDF; export its pages as images")
    if head.lstrip()[:1] == b"<":
        raise InputError(f"{where} is a web page or an SVG drawing; give an image of pixels")
    if not head:
        raise InputError(f"{where} is empty (0 bytes); get the image again")


def _png_without_texts(path: Path) -> io.BytesIO | None:
    """Return a PNG file without its texts and other notes, None if it is no PNG."""
    data = path.read_bytes()
    if not data.startswith(_PNG):
        return None
    out, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 12 + length
        if data[at + 4 : at + 8] not in _PNG_TEXT:
            out.append(data[at:end])
        at = end
    return io.BytesIO(b"".join(out))


def _check_pixels(image: Image.Image, where: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise InputError(
            f"{where} has {image.width} x {image.height} pixels, more than {limit}; "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        )


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    expected = "uint8 RGB (H, W, 3) or grey (H, W)"
    if array.dtype != np.uint8:
        hint = "multiply by 255, round and " if np.issubdtype(array.dtype, np.floating) else ""
        raise InputError(
            f"image array has dtype {array.dtype}, expected {expected}: {hint}use .astype(np.uint8)"
        )
    if array.size == 0:
        raise InputError(f"image array is empty: shape {array.shape}")
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)  # (H, W, 3)
    if array.ndim == 3 and array.shape[2] == 3:
        return np.require(array, requirements=["C", "W"])  # torch takes no others
    hints = {
        (3, 4): "drop the alpha channel with image[:, :, :3]",
        (3, 1): "drop the last axis with image[:, :, 0]",
    }
    hint = hints.get((array.ndim, array.shape[-1]), "give one image at a time")
    if array.ndim == 3 and array.shape[0] in (1, 3):
        hint = "channels come last: use image.transpose(1, 2, 0)"
    raise InputError(f"image array has shape {array.shape}, expected {expected}: {hint}")


def _from_pillow(
    image: Image.Image, where: str, recorded_size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    if not (image.width and image.height):
        raise InputError(f"{where} is empty: {image.width} x {image.height} pixels")
    if image.mode == "F":
        raise InputError(f"{where} holds floating-point pixels; convert it to 8 bit first")
    if image.mode.startswith("I"):
        pixels = _from_16_bit(image, where)
    elif "A" in image.getbands() or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        pixels = _copied(Image.alpha_composite(black, image.convert("RGBA")).convert("RGB"))
    else:
        pixels = _copied(image if image.mode == "RGB" else image.convert("RGB"))
    if pixels.shape[:2] == recorded_size:
        return pixels
    return _require_size(_upright(pixels, _orientation(image)), recorded_size, where)


def _copied(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an RGB image; of a large one without a second copy of the whole."""
    image.load()
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        # a strip keeps other threads waiting for the interpreter, and so does cutting it
        whole = bottom - top == image.height
        strip = image if whole else image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = np.asarray(strip)
    return pixels


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where there is none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises almost anything for damaged metadata
        return 1
    return value if isinstance(value, int) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation not in _TURNS:
        return pixels
    mirrored, turns = _TURNS[orientation]
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def _require_size(
    pixels: NDArray[np.uint8], recorded_size: tuple[int, int] | None, where: str
) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if recorded_size is not None and (height, width) != tuple(recorded_size):
        raise InputError(
            f"{where} is {height}x{width} (HxW), annotated as {recorded_size[0]}x"
            f"{recorded_size[1]}: it is another image, or was resized"
        )
    return pixels


def _from_16_bit(image: Image.Image, where: str) -> NDArray[np.uint8]:
    pixels = np.asarray(image).astype(np.int64)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{where} holds values {low} to {high}, expected 16-bit grey "
            "(0 to 65535); convert it to 8 bit first"
        )
    bits = next(depth for depth in _DEPTHS if high < 1 << depth)
    if bits < 16:
        _log.warning(
            "%s: 16-bit pixels up to %d are taken for %d-bit values; scale them to 65535 if "
            "that is wrong", where, high, bits,
        )  # fmt: skip
    white = (1 << bits) - 1
    return _from_array(((pixels * 255 + white // 2) // white).astype(np.uint8))
