"""`posezoo predict`: photos in, keypoints and pictures out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..zoo.catalog import DEFAULT_MODEL
from . import options

__all__ = ["predict"]


@click.command()
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--model",
    "name",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Registered name, hf-hub:… or local-dir:…. The default is ViTPose-B with the simple "
    "decoder: reported AP 75.5 on COCO, 17.5 GMACs a person, a download of 344 MB.",
)
@options.checkpoint
@click.option(
    "--boxes",
    type=options.PATH,
    help="COCO annotations or detections, or {file name: [[x1, y1, x2, y2], …]}; "
    "default: ask a detector.",
)
@click.option("--whole-image", is_flag=True, help="No boxes: the whole image is one person.")
@click.option("--detector", default="auto", show_default=True, help="torchvision detector.")
@click.option("--box-threshold", default=0.0, show_default=True, help="Smallest box score used.")
@click.option("--out", type=options.PATH, help="JSON file (default: stdout).")
@click.option(
    "--draw",
    type=options.PATH,
    help="PNG file, or folder for several; sub-folders of the photos are kept.",
)
@click.option("--draw-threshold", default=0.3, show_default=True, help="Smallest score drawn.")
@click.option(
    "--draw-tokens",
    type=options.PATH,
    help="TCFormer: PNG or folder, the regions that its tokens cover.",
)
@options.device
@options.batch_size("Crops")
@options.flip_test
def predict(
    images: tuple[Path, ...],
    name: str,
    checkpoint: Path | None,
    boxes: Path | None,
    whole_image: bool,
    detector: str,
    box_threshold: float,
    out: Path | None,
    draw: Path | None,
    draw_threshold: float,
    draw_tokens: Path | None,
    device: str | None,
    batch_size: int,
    flip_test: bool | None,
) -> None:
    """Find the people's keypoints in IMAGES."""
    from .. import PosePredictor, PoseResult, create_model
    from ..datasets.boxes import read_boxes
    from ..device import choose_device
    from ..weights.files import write_text
    from .photos import predict_files
    from .pictures import check_regions, draw_files, draw_token_files, picture_paths

    drawings = {} if draw is None else picture_paths(images, draw)
    token_drawings = {} if draw_tokens is None else picture_paths(images, draw_tokens)
    known = None if boxes is None else read_boxes(boxes, box_threshold)
    predictor = PosePredictor(
        create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint),
        detector=None if whole_image else detector,
        device=choose_device(device),
        batch_size=batch_size,
        flip_test=flip_test,
    )
    if token_drawings:
        check_regions(predictor.model)
    outcome = list(predict_files(predictor, images, known, progress=sys.stderr.isatty()))
    found = [(path, result) for path, result in outcome if isinstance(result, PoseResult)]
    failed = [(path, error) for path, error in outcome if not isinstance(error, PoseResult)]
    text = json.dumps(
        [
            {"file": str(path)}
            | (result.to_dict() if isinstance(result, PoseResult) else {"error": str(result)})
            for path, result in outcome
        ]
    )
    if out is None:
        click.echo(text)
    else:
        write_text(out, text + "\n")
    for drawn in draw_files(found, drawings, threshold=draw_threshold):
        click.echo(f"drew {drawn}", err=True)
    for drawn in draw_token_files(predictor, found, token_drawings):
        click.echo(f"drew {drawn}", err=True)
    for path, error in failed:
        click.echo(f"posezoo: error: {path}: {error}", err=True)
    sys.exit(1 if failed else 0)
