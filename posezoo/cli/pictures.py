"""The pictures that `posezoo predict` writes: poses over photos, and tokens of TCFormer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..draw import draw_poses, draw_tokens
from ..errors import InputError
from ..predictor import PosePredictor
from ..results import PoseResult
from ..transforms import load_image
from ..weights.files import replacing
from ..zoo.catalog import list_models
from ..zoo.model import PoseModel
from ..zoo.wrapped import unwrap

__all__ = ["check_regions", "draw_file", "draw_token_file", "picture_paths"]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def picture_paths(photos: Sequence[Path], target: Path) -> dict[Path, Path]:
    """Return where the picture of each photo is written.

    It is `target` itself if that is a PNG or JPEG file and there is one photo; else a PNG of the
    photo's name below the folder `target`, in the sub-folder that the photo has below the folder
    common to all.

    Raises:
        InputError: two photos would get one picture, several photos one file, or the name is
            that of an image in another format.
    """
    if target.suffix.lower() in _FORMATS and not target.is_dir():
        if len(photos) == 1:
            return {photos[0]: target}
        raise InputError(f"{target} is one picture for {len(photos)} photos; give a folder")
    if target.suffix.lower() in Image.registered_extensions() and not target.is_dir():
        raise InputError(
            f"{target} is neither PNG nor JPEG; give a name in .png or .jpg, or a folder"
        )
    absolute = {photo: Path(os.path.abspath(photo)) for photo in photos}
    common = os.path.commonpath([path.parent for path in absolute.values()])
    paths: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for photo, path in absolute.items():
        picture = target / path.relative_to(common).with_suffix(".png")
        other = taken.setdefault(picture, path)
        if other != path:
            raise InputError(
                f"{other} and {photo} would both be drawn as {picture}; rename one of them, or "
                "draw them one after the other into different folders"
            )
        paths[photo] = picture
    return paths


def draw_file(photo: Path, result: PoseResult, picture: Path, *, threshold: float) -> None:
    """Write a photo with its poses; keypoints with a score below `threshold` are left out."""
    _write(draw_poses(load_image(photo), result, threshold=threshold), picture)


def check_regions(model: nn.Module) -> PoseModel:
    """Return the model if its tokens are regions of the image.

    Raises:
        InputError: they are not; models whose tokens are regions are named.
    """
    network = unwrap(model)
    if isinstance(network, PoseModel) and network.has_token_regions:
        return network
    raise InputError(
        "--draw-tokens needs a model whose tokens are regions of the image: "
        + ", ".join(list_models("tcformer*", task="pose"))
    )


def draw_token_file(
    predictor: PosePredictor, photo: Path, result: PoseResult, picture: Path
) -> None:
    """Write a row per person: the crop, and its tokens in stages 2, 3 and 4.

    Raises:
        InputError: see `check_regions`.
    """
    _write(_token_rows(predictor, photo, result), picture)


def _token_rows(predictor: PosePredictor, photo: Path, result: PoseResult) -> Image.Image:
    crops = predictor.crops(load_image(photo), result.bboxes)  # (B, 3, H, W)
    with torch.inference_mode():
        stages = check_regions(predictor.model).token_regions(predictor.crop.normalise(crops))
    regions = [stage.cpu().numpy() for stage in stages[1:]]  # (B, h, w) each
    rows = []
    for i, crop in enumerate(crops.permute(0, 2, 3, 1).cpu().numpy()):  # (H, W, 3)
        large = crop.repeat(2, 0).repeat(2, 1)
        rows.append(np.hstack([large, *(np.asarray(draw_tokens(large, r[i])) for r in regions)]))
    return Image.fromarray(np.vstack(rows))


def _write(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, _FORMATS[path.suffix.lower()])
