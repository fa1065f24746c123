"""The options of `posezoo predict` that say who is looked at, and what is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import InputError
from . import options

if TYPE_CHECKING:
    import torch

    from ..datasets.boxes import PhotoBoxes
    from ..detectors import PeopleFinder
    from ..streaming import StreamOptions

__all__ = ["PredictOptions", "predict_options"]

_OPTIONS = (
    click.option(
        "--boxes",
        type=options.PATH,
        help="COCO annotations or detections, or {file name: [[x1, y1, x2, y2], …]}; "
        "default: ask a detector.",
    ),
    options.category,
    click.option("--whole-image", is_flag=True, help="No boxes: the whole image is one person."),
    click.option(
        "--detector", default="auto", show_default=True,
        help="Finds the people; auto is bodies, which is in the package, for a model of the "
        "package.",
    ),
    click.option(
        "--box-threshold", type=float,
        help="Smallest box score used; default: 0.5 for a detector, 0.25 for bodies, 0 for "
        "--boxes.",
    ),
    click.option(
        "--max-people", type=click.IntRange(min=1),
        help="Detector: at most so many people in an image, those with the best scores.",
    ),
    click.option(
        "--min-size", type=float, default=1.0, show_default=True,
        help="Detector: pixels; boxes with a shorter side are left out.",
    ),
    click.option(
        "--detect-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
        help="Films: ask the detector for each N-th frame; between, boxes follow the poses, unless "
        "people overlap.",
    ),
    click.option("--track", is_flag=True, help="Films: give people ids that last."),
    click.option(
        "--smooth", type=click.Choice(["one-euro", "savgol"]),
        help="Films, with --track: calm the keypoints. savgol looks four frames ahead; one-euro "
        "does not, and trails quick motion.",
    ),
    click.option(
        "--every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
        help="Films: use each N-th frame only.",
    ),
    click.option("--start", type=float, default=0.0, metavar="S", help="Films: from second S on."),
    click.option("--stop", type=float, metavar="S", help="Films: up to second S."),
    click.option("--max-frames", type=click.IntRange(min=1), help="Films: at most so many frames."),
    click.option(
        "--out", type=options.PATH,
        help="Results: .jsonl (a line per photo or frame), .json (COCO results), .csv (a row per "
        "keypoint), or a folder (a JSON file per input). Default: JSON lines on standard output.",
    ),
    click.option(
        "--format", "form", type=click.Choice(["jsonl", "coco", "csv", "openpose"]),
        help="Form of the results where the ending of --out does not say; openpose: a folder.",
    ),
    click.option(
        "--draw", type=options.PATH,
        help="Poses drawn: PNG or JPEG file, .mp4 for a film, or a folder for several inputs.",
    ),
    click.option("--draw-threshold", default=0.3, show_default=True, help="Smallest score drawn."),
    click.option(
        "--draw-tokens", type=options.PATH,
        help="Photos: PNG or folder, the regions of TCFormer's tokens, or TMPose's mask.",
    ),
)  # fmt: skip


def predict_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, whose values `PredictOptions` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What the options said; the names are those of the command line.

    Raises:
        InputError: options that contradict each other or are out of range.
    """

    boxes: Path | None
    category: str | None
    whole_image: bool
    detector: str
    box_threshold: float | None
    max_people: int | None
    min_size: float
    detect_every: int
    track: bool
    smooth: Literal["one-euro", "savgol"] | None
    every: int
    start: float
    stop: float | None
    max_frames: int | None
    out: Path | None
    form: Literal["jsonl", "coco", "csv", "openpose"] | None
    draw: Path | None
    draw_threshold: float
    draw_tokens: Path | None

    def __post_init__(self) -> None:
        from ..detectors.build import check_name

        if self.boxes is not None and self.whole_image:
            raise InputError("--boxes and --whole-image exclude each other; give one of them")
        for name in ("box_threshold", "draw_threshold", "start", "stop", "min_size"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} is {value}; valid: a finite number")
        check_name(self.detector)
        self.stream, self.finder("cpu")  # noqa: B018  refuse what is out of range

    def finder(self, device: torch.device | str) -> PeopleFinder:
        """Return what finds the people in images without boxes."""
        from ..detectors import PeopleFinder

        return PeopleFinder(
            None if self.whole_image else self.detector,
            device=device,
            threshold=self.box_threshold,
            max_people=self.max_people,
            min_size=self.min_size,
        )

    def read_boxes(self) -> PhotoBoxes | None:
        """Return the boxes of `--boxes`, None without.

        Raises:
            DataError: the file cannot be read, or holds none.
        """
        from ..datasets.boxes import read_boxes

        if self.boxes is None:
            return None
        return read_boxes(self.boxes, self.box_threshold or 0.0, self.category)

    @property
    def stream(self) -> StreamOptions:
        """What the stream does with each frame."""
        from ..media.frames import FrameChoice
        from ..streaming import StreamOptions

        return StreamOptions(
            choice=FrameChoice(
                every=self.every, start=self.start, stop=self.stop, limit=self.max_frames
            ),
            detect_every=self.detect_every,
            track=self.track,
            smooth=self.smooth,
        )

    def identity(self) -> dict[str, str]:
        """What an interrupted run and the one that goes on must have in common."""
        return {field.name: str(getattr(self, field.name)) for field in dataclasses.fields(self)}
