"""Frames of films and cameras, decoded by PyAV (FFmpeg)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .frames import Frame, FrameChoice
from .sources import Camera, Film

__all__ = ["frame_rate", "import_av", "read_video"]

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
_ALL = FrameChoice()


def import_av() -> Any:
    """Return PyAV.

    Raises:
        InputError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(
            "videos and cameras need the package av: pip install 'posezoo[video]'"
        ) from error
    return av


def read_video(source: Film | Camera, choice: FrameChoice = _ALL) -> Iterator[Frame]:
    """Yield the chosen frames, upright, with the time that the file states for each.

    A frame that cannot be decoded is yielded with its error, and decoding goes on. A film that
    ends before the number of frames that it announces gets a last frame that says so.

    Args:
        source: what to read.
        choice: which frames.

    Raises:
        InputError: PyAV is not installed, no such file or camera, no video in it, or damaged.
    """
    av = import_av()
    try:
        container = _open(av, source)
    except (OSError, ValueError, av.FFmpegError) as error:
        raise InputError(_why_not(source, error)) from error
    with closing(container):
        if not container.streams.video:
            raise InputError(f"{source} has no video stream; give a video or a photo")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield from _Decoder(av, str(source), container, stream).frames(choice)


def frame_rate(path: Path) -> Fraction:
    """Return the average number of frames per second, 25 where the file does not say.

    Raises:
        InputError: see `read_video`.
    """
    av = import_av()
    try:
        with closing(av.open(str(path))) as container:
            streams = container.streams.video
            rate = streams[0].average_rate or streams[0].guessed_rate if streams else None
            return Fraction(rate) if rate else Fraction(25)
    except (OSError, ValueError, av.FFmpegError) as error:
        raise InputError(_why_not(Film(path), error)) from error


class _Decoder:
    """The frames of one open video stream."""

    def __init__(self, av: Any, name: str, container: Any, stream: Any) -> None:
        self.av, self.name, self.container, self.stream = av, name, container, stream
        self.decoded = self.bad = self.taken = 0
        self.first: float | None = None  # time of the first frame
        self.time = 0.0  # of the last frame, from the first one
        self.step = float(1 / (stream.average_rate or 25))

    def frames(self, choice: FrameChoice) -> Iterator[Frame]:
        for picture in self._pictures():
            index = self.decoded + self.bad
            if isinstance(picture, InputError):
                self.bad += 1
                self.time += self.step
            else:
                self.decoded += 1
                self._note_time(picture)
            if choice.ends(self.time, self.taken):
                return
            if not choice.takes(index, self.time):
                continue
            self.taken += 1
            if not isinstance(picture, InputError) and picture.is_corrupt:
                picture = InputError(f"{self.name}: frame {index} is damaged")
            if isinstance(picture, InputError):
                yield Frame(source=self.name, index=index, time=self.time, error=picture)
            else:
                image = _pixels(picture)
                yield Frame(source=self.name, index=index, time=self.time, image=image)
        found, after = self.decoded + self.bad, self.time + self.step
        if not self.taken:
            error = InputError(
                f"{self.name} has no frame from second {choice.start:g} on; it has {found} frames, "
                f"{after:.1f} seconds"
            )
            yield Frame(source=self.name, index=found, time=after, error=error)
        announced = self._announced(after)
        if announced and not choice.ends(after, self.taken):
            error = InputError(
                f"{self.name} ends after {found} of {announced}: it was cut short, or is damaged"
            )
            yield Frame(source=self.name, index=found, time=after, error=error)

    def _announced(self, after: float) -> str:
        """Return what the file announced, "" where it held that: frames, or else its duration."""
        if self.stream.frames:
            found = self.decoded + self.bad
            return f"{self.stream.frames} frames" if found < self.stream.frames else ""
        seconds = (self.container.duration or 0) / self.av.time_base
        if self.container.streams.audio or seconds - after < 1:  # sound may last longer
            return ""
        return f"frames, {after:.1f} of {seconds:.1f} seconds"

    def _note_time(self, picture: Any) -> None:
        """Set the time of a frame; it follows the one before where the file has none or worse."""
        time = None if picture.time is None else float(picture.time)
        if self.first is None:
            self.first = time or 0.0
            return
        later = self.time + self.step
        self.time = later if time is None or time - self.first <= self.time else time - self.first

    def _pictures(self) -> Iterator[Any]:
        """Yield decoded frames, and an error for each packet that cannot be decoded."""
        try:
            for packet in self.container.demux(self.stream):
                try:
                    yield from packet.decode()
                except (OSError, ValueError, self.av.FFmpegError) as error:
                    yield InputError(f"{self.name}: a frame cannot be decoded ({_words(error)})")
        except (OSError, ValueError, self.av.FFmpegError) as error:
            yield InputError(f"{self.name} cannot be read any further ({_words(error)})")


def _pixels(picture: Any) -> NDArray[np.uint8]:
    """Return a frame as upright uint8 RGB (H, W, 3)."""
    pixels: NDArray[np.uint8] = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _open(av: Any, source: Film | Camera) -> Any:
    if isinstance(source, Film):
        return av.open(str(source.path))
    if sys.platform == "win32":
        names = [d.name for d in av.enumerate_input_devices("dshow") if "video" in d.media_types]
        if source.number >= len(names):
            raise FileNotFoundError(f"there are {len(names)} cameras")
        return av.open(f"video={names[source.number]}", format="dshow")
    form, file = _CAMERAS["darwin" if sys.platform == "darwin" else "linux"]
    return av.open(file.format(source.number), format=form)


def _why_not(source: Film | Camera, error: Exception) -> str:
    if isinstance(source, Camera):
        found = sorted(str(path) for path in Path("/dev").glob("video*"))
        there = f"; there are {', '.join(found)}" if found else "; this machine shows none"
        return f"{source} cannot be opened ({_words(error)}){there}"
    if not source.path.exists():
        return f"no video file at {source}"
    if source.path.stat().st_size == 0:
        return f"{source} is empty (0 bytes); get the video again"
    return f"cannot read {source}: {_words(error)}; it is no video, or damaged or cut short"


def _words(error: Exception) -> str:
    known = isinstance(error, (OSError, import_av().FFmpegError))
    reason = error.strerror if known else None  # type: ignore[attr-defined]
    return str(reason or error).strip() or type(error).__name__
