"""The pictures that `posezoo predict` writes: poses over photos, and tokens of TCFormer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

__all__ = ["check_regions", "draw_files", "draw_token_files", "picture_paths"]

Found = Sequence[tuple[Path, PoseResult]]


def picture_paths(photos: Sequence[Path], target: Path) -> dict[Path, Path]:
    """Return where the picture of each photo is written.

    It is `target` itself if that is a PNG and there is one photo; else a PNG of the photo's name
    below the folder `target`, in the sub-folder that the photo has below the folder common to all.

    Raises:
        InputError: two photos would get one picture.
    """
    if len(photos) == 1 and target.suffix.lower() == ".png":
        return {photos[0]: target}
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


def draw_files(found: Found, pictures: Mapping[Path, Path], *, threshold: float) -> Iterator[Path]:
    """Draw the poses of each photo that has a picture, and yield what was written.

    Args:
        found: photos with their poses.
        pictures: from `picture_paths`.
        threshold: smallest score of a keypoint that is drawn.
    """
    drawn = (
        (pictures[photo], draw_poses(load_image(photo), result, threshold=threshold))
        for photo, result in found
        if photo in pictures
    )
    return _write(drawn)


def check_regions(model: nn.Module) -> PoseModel:
    """Return the model if its tokens are regions of the image.

    Raises:
        InputError: they are not; models whose tokens are regions are named.
    """
    if isinstance(model, PoseModel) and model.has_token_regions:
        return model
    raise InputError(
        "--draw-tokens needs a model whose tokens are regions of the image: "
        + ", ".join(list_models("tcformer*", task="pose"))
    )


def draw_token_files(
    predictor: PosePredictor, found: Found, pictures: Mapping[Path, Path]
) -> Iterator[Path]:
    """Draw for each photo a row per person: the crop, and its tokens in stages 2, 3 and 4.

    Raises:
        InputError: see `check_regions`.
    """
    drawn = (
        (pictures[photo], _token_rows(predictor, photo, result))
        for photo, result in found
        if photo in pictures and len(result)
    )
    return _write(drawn)


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


def _write(pictures: Iterable[tuple[Path, Image.Image]]) -> Iterator[Path]:
    for path, picture in pictures:
        with replacing(path) as temporary:
            picture.save(temporary, "PNG")
        yield path
