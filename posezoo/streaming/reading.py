"""Frames of units, read in the background a few ahead of the network."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..datasets.boxes import BoxEntry
from ..errors import InputError
from ..images import ImageSource, load_image
from ..media.animations import is_animated
from ..media.frames import Frame, FrameChoice
from ..media.sources import Camera, Film, Images, Photo
from ..media.video import read_video
from .units import Unit

__all__ = ["BoxOf", "Chunk", "chunks"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_AHEAD = 4  # photos or frames that wait
_FRAMES = 16  # per chunk
_BYTES = 1 << 28  # pixels per chunk, at most; large photos come in smaller chunks

BoxOf = dict[str, BoxEntry | InputError]
"""The boxes of photos by path, where they are given."""


@dataclass(kw_only=True)
class Chunk:
    """Consecutive frames of a unit.

    Attributes:
        unit: number of the unit.
        first: how many frames of the unit came before.
        frames: the frames; none in the chunk that ends a unit.
        ends: whether it ends its unit.
        before: frames before `first` that were read again.
    """

    unit: int
    first: int
    frames: list[Frame] = field(default_factory=list)
    ends: bool = False
    before: list[Frame] = field(default_factory=list)


def chunks(
    units: Sequence[tuple[int, Unit]],
    choice: FrameChoice,
    boxes: BoxOf,
    skip: int = 0,
    again: int = 0,
) -> Iterator[Chunk]:
    """Yield the frames of numbered units in chunks.

    What is in a chunk depends on the unit alone: it is the same in any run, so that a network
    gives the same bits.

    Args:
        units: (number, unit).
        choice: which frames of films are used.
        boxes: recorded sizes come from here.
        skip: so many frames of the first unit are left out,
        again: but so many before the rest are read, for `Chunk.before`.
    """
    live = any(isinstance(source, Camera) for _, unit in units for source in unit.sources)
    read = _frames(units, choice, boxes, skip - again)
    chunk: Chunk | None = None
    with closing(_InThread(read, _AHEAD, waits=not live)) as frames:
        for number, frame in frames:
            if chunk is None:
                chunk = Chunk(unit=number, first=skip if number == units[0][0] else 0)
            if frame is not None and again:
                chunk.before.append(frame)
                again -= 1
                continue
            if frame is None:
                if chunk.frames:
                    yield chunk
                yield Chunk(unit=number, first=chunk.first + len(chunk.frames), ends=True)
                chunk = None
                continue
            chunk.frames.append(frame)
            if _is_full(chunk, live):
                yield chunk
                chunk = Chunk(unit=number, first=chunk.first + len(chunk.frames))


def _is_full(chunk: Chunk, live: bool) -> bool:
    pixels = sum(0 if frame.image is None else frame.image.nbytes for frame in chunk.frames)
    return live or len(chunk.frames) >= _FRAMES or pixels >= _BYTES


def _frames(
    units: Iterable[tuple[int, Unit]], choice: FrameChoice, boxes: BoxOf, skip: int
) -> Iterator[tuple[int, Frame | None]]:
    """Yield the frames of each unit, and None at its end; threads read photos ahead."""
    waiting: deque[tuple[int, Future[Frame] | None]] = deque()

    def ready(count: int) -> Iterator[tuple[int, Frame | None]]:
        while len(waiting) > count:
            number, future = waiting.popleft()
            yield number, None if future is None else future.result()

    with ThreadPoolExecutor(_AHEAD) as pool:
        for number, unit in units:
            left_out, skip = skip, 0
            for source in unit.sources:
                if isinstance(source, Photo):
                    if left_out:
                        left_out -= 1
                        continue
                    waiting.append((number, pool.submit(_photo, source, boxes)))
                    yield from ready(_AHEAD)
                    continue
                yield from ready(0)
                for i, frame in enumerate(_in_time(source, choice)):
                    if i >= left_out:
                        yield number, frame
            waiting.append((number, None))
        yield from ready(0)


def _photo(source: Photo, boxes: BoxOf) -> Frame:
    entry = boxes.get(str(source))
    try:
        if source.error is not None:
            raise InputError(source.error)
        if isinstance(entry, InputError):
            raise entry
        image = load_image(source.path, recorded_size=None if entry is None else entry.size)
    except InputError as error:
        return Frame(source=str(source), error=error)
    if is_animated(source.path):
        way = "" if source.path.suffix.lower() != ".gif" else "; all: pip install 'posezoo[video]'"
        _log.warning("%s is animated, and only its first frame is used%s", source, way)
    return Frame(source=str(source), image=image)


def _in_time(source: Film | Camera | Images, choice: FrameChoice) -> Iterator[Frame]:
    if isinstance(source, Images):
        for i, image in enumerate(source.images):
            yield _image(str(source), i, image)
        return
    try:
        yield from read_video(source, choice)
    except InputError as error:
        yield Frame(source=str(source), error=error)


def _image(name: str, index: int, image: ImageSource) -> Frame:
    try:
        return Frame(source=name, index=index, image=load_image(image))
    except InputError as error:
        return Frame(source=name, index=index, error=error)


class _InThread(Generic[T]):
    """Items of an iterator that runs in a thread of its own, `ahead` of whoever takes them.

    Where it does not wait, as for a camera, the oldest item gives way when nobody takes it.
    """

    def __init__(self, items: Iterator[T], ahead: int, waits: bool) -> None:
        self._items, self._waits = items, waits
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(
            ahead if waits else 1
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with closing(self._items) as items:  # type: ignore[type-var]
                for item in items:
                    if not self._put((item, None)):
                        return
            self._put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001  handed to whoever takes the items
            self._put((None, error))

    def _put(self, entry: tuple[T | None, BaseException | None]) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
                return True
            except queue.Full:
                if not self._waits and entry[1] is None:
                    try:
                        self._queue.get_nowait()
                    except queue.Empty:
                        pass
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        self._thread.join(timeout=10)
