"""`posezoo predict`: photos in, keypoints and pictures out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..stopping import Stop
from ..zoo.catalog import DEFAULT_MODEL
from . import options
from .guards import keep_inputs, require_file_name
from .networks import build_predictor, is_exported_file

if TYPE_CHECKING:
    from ..datasets.boxes import PhotoBoxes
    from ..predictor import PosePredictor

__all__ = ["predict"]


@click.command(short_help="Find the keypoints of people in photos.")
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--model",
    "name",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Registered name, hf-hub:…, local-dir:…, or a .pt2 or .onnx file of `posezoo export`. "
    "The default is ViTPose-B with the simple decoder: reported AP 75.5 on COCO, 17.5 GMACs a "
    "person, a download of 344 MB.",
)
@options.checkpoint
@click.option(
    "--boxes",
    type=options.PATH,
    help="COCO annotations or detections, or {file name: [[x1, y1, x2, y2], …]}; "
    "default: ask a detector.",
)
@options.category
@click.option("--whole-image", is_flag=True, help="No boxes: the whole image is one person.")
@click.option("--detector", default="auto", show_default=True, help="torchvision detector.")
@click.option("--box-threshold", default=0.0, show_default=True, help="Smallest box score used.")
@click.option("--out", type=options.PATH, help="JSON file (default: stdout).")
@click.option(
    "--draw",
    type=options.PATH,
    help="PNG or JPEG file, or folder for several; sub-folders of the photos are kept.",
)
@click.option("--draw-threshold", default=0.3, show_default=True, help="Smallest score drawn.")
@click.option(
    "--draw-tokens",
    type=options.PATH,
    help="TCFormer: PNG or folder, the regions that its tokens cover.",
)
@options.device
@options.dtype
@options.compile_network
@options.engine
@options.batch_size("Crops")
@options.flip_test
def predict(
    images: tuple[Path, ...],
    name: str,
    checkpoint: Path | None,
    boxes: Path | None,
    category: str | None,
    whole_image: bool,
    detector: str,
    box_threshold: float,
    out: Path | None,
    draw: Path | None,
    draw_threshold: float,
    draw_tokens: Path | None,
    device: str | None,
    dtype: str,
    compile: bool,
    engine: str | None,
    batch_size: int,
    flip_test: bool | None,
) -> None:
    """Find the people's keypoints in IMAGES."""
    from ..datasets.boxes import read_boxes
    from ..device import choose_device
    from .pictures import check_regions, picture_paths

    _check_options(images, name, boxes, whole_image, detector, box_threshold, draw_threshold)
    drawings = {} if draw is None else picture_paths(images, draw)
    token_drawings = {} if draw_tokens is None else picture_paths(images, draw_tokens)
    require_file_name("--out", out)
    keep_inputs([*images, boxes, checkpoint], [out, *drawings.values(), *token_drawings.values()])
    chosen = None if device is None else choose_device(device)
    known = None if boxes is None else read_boxes(boxes, box_threshold, category)
    predictor = build_predictor(
        name, checkpoint, detector=None if whole_image else detector, device=chosen, dtype=dtype,
        compile=compile, engine=engine, batch_size=batch_size, flip_test=flip_test,
    )  # fmt: skip
    if token_drawings:
        check_regions(predictor.model)
    sys.exit(_run(predictor, images, known, out, drawings, token_drawings, draw_threshold))


def _check_options(
    images: Sequence[Path],
    name: str,
    boxes: Path | None,
    whole_image: bool,
    detector: str,
    box_threshold: float,
    draw_threshold: float,
) -> None:
    """Check everything that is cheap before weights are fetched.

    Raises:
        InputError: options that contradict each other or are out of range, a model without poses,
            or no photo at all.
    """
    from ..detectors import DETECTORS
    from ..zoo.catalog import get_pretrained_cfg, is_model

    if is_model(name) and get_pretrained_cfg(name).task != "pose":
        raise InputError(f"{name} finds no poses; choose one of `posezoo list --task pose`")
    if not (is_model(name) or is_exported_file(name) or name.startswith(("hf-hub:", "local-dir:"))):
        get_pretrained_cfg(name)  # names close ones
    if boxes is not None and whole_image:
        raise InputError("--boxes and --whole-image exclude each other; give one of them")
    if detector not in ("auto", *DETECTORS):
        raise InputError(f"--detector is {detector!r}; valid: auto, {', '.join(DETECTORS)}")
    for option, value in (("--box-threshold", box_threshold), ("--draw-threshold", draw_threshold)):
        if not math.isfinite(value):
            raise InputError(f"{option} is {value}; valid: a finite number")
    if not any(image.exists() for image in images):
        others = f", nor any other of the {len(images)} given" if len(images) > 1 else ""
        raise InputError(f"there is no file {images[0]}{others}")


def _run(
    predictor: PosePredictor,
    images: Sequence[Path],
    known: PhotoBoxes | None,
    out: Path | None,
    drawings: Mapping[Path, Path],
    token_drawings: Mapping[Path, Path],
    threshold: float,
) -> int:
    """Predict, draw and write; return the exit status."""
    from tqdm import tqdm

    from ..results import PoseResult
    from ..weights.files import write_text
    from .photos import predict_files
    from .pictures import draw_file, draw_token_file

    rows: list[dict[str, Any]] = []
    failed = people = 0
    with Stop() as stop, tqdm(total=len(images), disable=not sys.stderr.isatty()) as bar:
        for photo, result in predict_files(predictor, images, known):
            if isinstance(result, PoseResult):
                rows.append({"file": str(photo)} | result.to_dict())
                people += len(result)
                if photo in drawings:
                    draw_file(photo, result, drawings[photo], threshold=threshold)
                if photo in token_drawings and len(result):
                    draw_token_file(predictor, photo, result, token_drawings[photo])
            else:
                reason = str(result)
                rows.append({"file": str(photo), "error": reason})
                failed += 1
                where = "" if str(photo) in reason else f"{photo}: "
                click.echo(f"posezoo: error: {where}{reason}", err=True)
            bar.update()
            if stop.requested:
                break
    text = json.dumps(rows)
    if out is None:
        click.echo(text)
    else:
        write_text(out, text + "\n")
    words = f"{len(rows) - failed} photos, {people} people"
    words += f", {failed} failed" if failed else ""
    if stop.requested:
        words += f"; stopped after {len(rows)} of {len(images)} photos: give the others to go on"
    click.echo(words, err=True)
    return stop.status or (1 if failed else 0)
