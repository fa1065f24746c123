"""Writing a film with PyAV, in parts that survive when the process is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import InputError
from ..files import replacing, writing
from .video import import_av

__all__ = ["FILM_ENDINGS", "FilmWriter", "parts_of"]

FILM_ENDINGS = (".mp4", ".mkv", ".mov")
_TICKS = 90000  # per second, the usual clock of videos
_OPTIONS = {
    "crf": "20",
    "preset": "veryfast",
    "bf": "0",
}  # no reordered frames: parts can be joined


def parts_of(path: Path) -> Path:
    """Return the folder of the parts of a film."""
    return path.with_name(f"{path.name}.parts")


class FilmWriter:
    """A film (H.264) that is written in parts and joined at the end, each frame at its time.

    Parts are files in a folder beside the film. `close_part` ends one, after which its frames
    are on disk whatever happens. `join` makes the film from all closed parts, which stay until
    `remove_parts`.

    Args:
        path: ends in .mp4, .mkv or .mov.
        rate: frames per second, which players show and the encoder plans with.
        parts: how many parts are finished already, of a run that goes on; others are deleted.

    Raises:
        InputError: another ending, or PyAV is not installed.
        DataError: it cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction, parts: int = 0) -> None:
        if path.suffix.lower() not in FILM_ENDINGS:
            raise InputError(f"{path} is no film; valid endings: {', '.join(FILM_ENDINGS)}")
        self.av = import_av()
        self.path, self.rate, self.parts = path, rate.limit_denominator(1001), parts
        self.folder = parts_of(path)
        self._container: Any = None
        self._stream: Any = None
        self._size: tuple[int, int] | None = None  # (W, H) of the film
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in self.folder.iterdir():
                if not file.stem.isdecimal() or int(file.stem) >= parts:
                    file.unlink()
            if parts:
                with closing(self.av.open(str(self._part(0)))) as part:
                    self._size = part.streams.video[0].width, part.streams.video[0].height

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Add a frame: uint8 RGB (H, W, 3), `time` in seconds, later than the one before.

        The film has the size of its first frame; later ones of another size are fitted into it. An
        odd last row or column is left out, as H.264 stores colours for two pixels at once.
        """
        if self._size is None:
            height, width = (max(2, side - side % 2) for side in image.shape[:2])
            self._size = width, height
        width, height = self._size
        if not (0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1):
            image = np.asarray(ImageOps.pad(Image.fromarray(image), self._size))
        with writing(self.path):
            if self._container is None:
                self._open(height, width)
            picture = self.av.VideoFrame.from_ndarray(
                np.ascontiguousarray(image[:height, :width]), format="rgb24"
            )
            picture.pts, picture.time_base = round(time * _TICKS), Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        # NUT keeps time stamps as they are, which MP4 starts at 0 anew
        self._container = self.av.open(str(self._part(self.parts)), "w", format="nut")
        self._stream = self._container.add_stream("libx264", rate=self.rate, options=_OPTIONS)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.codec_context.thread_count = 1  # the same bytes on any machine

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.nut"

    def close_part(self) -> None:
        """Finish the part that is being written, if there is one."""
        if self._container is None:
            return
        with writing(self.path):
            self._container.mux(self._stream.encode(None))
            self._container.close()
        self._container, self.parts = None, self.parts + 1

    def join(self) -> None:
        """Write the film from all parts; nothing is encoded again."""
        self.close_part()
        if not self.parts:
            return
        form = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}[self.path.suffix.lower()]
        with writing(self.path), replacing(self.path) as temporary:
            with closing(self.av.open(str(temporary), "w", format=form)) as out:
                target = None
                for packet in self._packets():
                    if target is None:
                        target = out.add_stream_from_template(packet.stream)
                    packet.stream = target
                    out.mux(packet)

    def _packets(self) -> Iterator[Any]:
        for number in range(self.parts):
            with closing(self.av.open(str(self._part(number)))) as part:
                for packet in part.demux(video=0):
                    if packet.dts is not None:
                        yield packet

    def remove_parts(self) -> None:
        """Delete the parts, once the film is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.join()
        self.remove_parts()
