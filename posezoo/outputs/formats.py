"""Text forms of results: JSON lines, COCO results, and a table."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..media.sources import Photo, Source
from ..results import PoseResult
from ..streaming.found import FrameResult

__all__ = ["Coco", "Csv", "JsonLines", "TextFormat", "text_format"]

_PIXEL_DIGITS, _SCORE_DIGITS = 3, 4
_FRAMES_PER_FILM = 1_000_000  # COCO image ids: frame 7 of the third input is 3,000,007


class TextFormat(ABC):
    """How results become text: `head`, texts with `joint` between them, `tail`."""

    head: ClassVar[str] = ""
    joint: ClassVar[str] = ""
    tail: ClassVar[str] = ""

    @abstractmethod
    def text(self, found: FrameResult) -> str:
        """Return the text of a frame, "" where it has none."""


class JsonLines(TextFormat):
    """A line per photo or frame: its source, then `PoseResult.to_dict` or an error."""

    def text(self, found: FrameResult) -> str:
        row: dict[str, Any] = {"file": found.source}
        if found.index is not None:
            row |= {"frame": found.index, "time": found.time and round(found.time, 6)}
        if found.result is None:
            row["error"] = str(found.error)
        else:
            row |= _rounded(found.result)
        return json.dumps(row) + "\n"


class Coco(TextFormat):
    """A COCO result file, with the name of the file in each row.

    The id of a photo is the number that its name is, as in COCO's own file names, where every
    input has one of its own; else its position among the inputs, from 1. Frame F of a film that is
    input P has the id P * 1,000,000 + F.
    """

    head, joint, tail = "[\n", ",\n", "\n]\n"

    def __init__(self, sources: Sequence[Source]) -> None:
        names = [s.path.stem if isinstance(s, Photo) else "" for s in sources]
        numbers = [int(n) if n.isascii() and n.isdecimal() else 0 for n in names]
        if not all(numbers) or len(set(numbers)) < len(numbers):
            numbers = list(range(1, len(sources) + 1))
        self.ids = dict(zip(map(str, sources), numbers))

    def text(self, found: FrameResult) -> str:
        if found.result is None:
            return ""
        number = self.ids[found.source]
        where: dict[str, Any] = {"file_name": found.source}
        if found.index is not None:
            number = number * _FRAMES_PER_FILM + found.index
            where["frame"] = found.index
        rows = [_rounded_coco(row) | where for row in found.result.to_coco(number)]
        return self.joint.join(map(json.dumps, rows))


class Csv(TextFormat):
    """A row per person and keypoint."""

    head = "file,frame,time,person,id,bbox_score,keypoint,x,y,score\n"

    def text(self, found: FrameResult) -> str:
        result = found.result
        if result is None:
            return ""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        time = "" if found.time is None else round(found.time, 6)
        frame = "" if found.index is None else found.index
        for person in range(len(result)):
            start = [found.source, frame, time, person]
            start.append("" if result.ids is None else int(result.ids[person]))
            start.append(_number(result.bbox_scores[person], _SCORE_DIGITS))
            for name, (x, y), score in zip(
                result.skeleton.keypoint_names,
                result.keypoints[person].tolist(),
                result.keypoint_scores[person].tolist(),
            ):
                point = [_number(x, _PIXEL_DIGITS), _number(y, _PIXEL_DIGITS)]
                writer.writerow([*start, name, *point, _number(score, _SCORE_DIGITS)])
        return out.getvalue()


def text_format(name: str | None, path: Path | None, sources: Sequence[Source]) -> TextFormat:
    """Return a form by its name, or else by the ending of a file.

    Raises:
        InputError: an ending without a form.
    """
    endings = {".jsonl": "jsonl", ".json": "coco", ".csv": "csv"}
    if name is None and path is not None:
        name = endings.get(path.suffix.lower(), "")
    if name == "coco":
        return Coco(sources)
    forms: dict[str | None, type[TextFormat]] = {None: JsonLines, "jsonl": JsonLines, "csv": Csv}
    if name not in forms:
        raise InputError(
            f"--out is {str(path)!r}; valid endings: .jsonl (a line per photo or frame), .json "
            "(COCO results), .csv (a row per keypoint), or a folder"
        )
    return forms[name]()


def _number(value: float, digits: int) -> float | str:
    """Round; "" where a table has no number."""
    rounded = round(float(value), digits)
    return rounded if abs(rounded) < float("inf") else ""


def _rounded(result: PoseResult) -> dict[str, Any]:
    row = result.to_dict()
    for person in row["persons"]:
        person["bbox"] = _round_all(person["bbox"], _PIXEL_DIGITS)
        person["keypoints"] = _round_all(person["keypoints"], _PIXEL_DIGITS)
        for name in ("bbox_score", "keypoint_scores"):
            person[name] = _round_all(person[name], _SCORE_DIGITS)
    return row


def _rounded_coco(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _round_all(value, _PIXEL_DIGITS + 1) for key, value in row.items()}


def _round_all(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_round_all(one, digits) for one in value]
    return round(value, digits) if isinstance(value, float) else value
