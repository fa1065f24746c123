"""Frames in, people out: `PoseStream`.

chunk of frames -> boxes -> poses -> ids -> smoothing -> `FrameResult`. Between detections boxes
follow the poses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..datasets.boxes import PhotoBoxes
from ..errors import InputError
from ..media.frames import Frame
from ..media.sources import Photo
from ..results import PoseResult
from .calm import Calm
from .follow import boxes_around, overlapping
from .found import FrameResult
from .options import StreamOptions
from .reading import BoxOf, Chunk, chunks
from .units import Unit

if TYPE_CHECKING:
    from ..predictor import Item, PosePredictor

__all__ = ["Position", "PoseStream", "Step"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a stream has come, as JSON types: enough to go on with the same results.

    Attributes:
        unit: index of the unit in the list that the stream was given.
        frames: how many frames of the unit were read.
        memory: what is remembered from one frame of the unit to the next.
    """

    unit: int = 0
    frames: int = 0
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The next results.

    Attributes:
        unit: index of the unit that they belong to.
        found: results in order; there may be none.
        after: where a run may go on later; None in the middle of a chunk.
        ends: whether the unit has ended.
    """

    unit: int
    found: list[FrameResult]
    after: Position | None = None
    ends: bool = False


class PoseStream:
    """Poses of units of work, with memory for a chunk of frames.

    Args:
        predictor: finds the poses.
        options: what else is done.
        boxes: of photos; None asks the predictor's detector.
    """

    def __init__(
        self,
        predictor: PosePredictor,
        options: StreamOptions,
        boxes: PhotoBoxes | None = None,
    ) -> None:
        self.predictor, self.options, self.boxes = predictor, options, boxes

    def run(self, units: Sequence[Unit], start: Position | None = None) -> Iterator[Step]:
        """Yield the steps of all units from a position on; the caller may stop at any step."""
        start = start or Position()
        boxes = self._boxes(units)
        numbered = list(enumerate(units))[start.unit :]
        held = len(start.memory["calm"]["held"]) if start.frames else 0
        state: _Memory | None = None
        for chunk in chunks(numbered, self.options.choice, boxes, start.frames, held):
            if state is None:
                state = _Memory(self.options)
                if start.frames and chunk.unit == start.unit:
                    state.restore(start.memory, chunk.before)
            in_time = units[chunk.unit].in_time
            for found in self._found(chunk, in_time, state, boxes):
                yield Step(unit=chunk.unit, found=found)
            if chunk.ends:
                last, after = state.calm.flush(), Position(unit=chunk.unit + 1)
                state = None
            else:
                last, frames = [], chunk.first + len(chunk.frames)
                after = Position(unit=chunk.unit, frames=frames, memory=state.state())
            yield Step(unit=chunk.unit, found=last, after=after, ends=chunk.ends)

    def _boxes(self, units: Sequence[Unit]) -> BoxOf:
        """Return the given boxes of each photo.

        Raises:
            InputError: boxes are given, and something else than photos.
        """
        if self.boxes is None:
            return {}
        photos = []
        for source in (source for unit in units for source in unit.sources):
            if not isinstance(source, Photo):
                raise InputError(f"boxes are given by photo, and {source} is no photo")
            photos.append(source.path)
        return dict(zip(map(str, photos), self.boxes.match(photos)))

    def _found(
        self, chunk: Chunk, in_time: bool, memory: _Memory, boxes: BoxOf
    ) -> Iterator[list[FrameResult]]:
        """Yield what is finished after each frame of a chunk."""
        asks = self.predictor.finder.detector is not None
        if in_time and asks and self.options.detect_every > 1 and not boxes:
            results = self._following(chunk, memory)
        else:
            results = self.predictor.predict_each([_item(f, boxes) for f in chunk.frames])
        for frame, result in zip(chunk.frames, results):
            found = FrameResult.of(frame, result)
            yield memory.calm.push(found) if in_time else [found]

    def _following(self, chunk: Chunk, memory: _Memory) -> Iterator[PoseResult | InputError]:
        """Yield results one after the other: boxes follow the poses of the frame before."""
        for number, frame in enumerate(chunk.frames, chunk.first):
            item: Item | InputError = _item(frame, {})
            last = memory.last if number % self.options.detect_every else None
            if last is not None and not isinstance(item, InputError) and not overlapping(last):
                item = (item[0], *boxes_around(last))
            (result,) = self.predictor.predict_each([item])
            if isinstance(result, PoseResult):
                memory.last = result
            yield result


class _Memory:
    """What lasts from one frame of a unit to the next."""

    def __init__(self, options: StreamOptions) -> None:
        self.calm = Calm(options)
        self.last: PoseResult | None = None

    def state(self) -> dict[str, Any]:
        last = None if self.last is None else self.last.to_dict()
        return {"calm": self.calm.state(), "last": last}

    def restore(self, state: dict[str, Any], frames: Sequence[Frame]) -> None:
        self.calm.restore(state["calm"], frames)
        if state["last"] is not None:
            self.last = PoseResult.from_dict(state["last"])


def _item(frame: Frame, boxes: BoxOf) -> Item | InputError:
    """Return what the predictor takes for a frame."""
    entry = boxes.get(frame.source)
    if frame.image is None:
        return frame.error or InputError(f"{frame.name} has no image")
    if isinstance(entry, InputError):
        return entry
    return (frame.image, None, None) if entry is None else (frame.image, entry.bboxes, entry.scores)
