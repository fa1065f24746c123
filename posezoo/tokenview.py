"""What a network's tokens look at: regions of TCFormer, or the mask of TMPose, over each crop."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .device import autocast
from .draw import draw_tokens
from .errors import InputError
from .predictor import PosePredictor
from .zoo.catalog import list_models
from .zoo.model import PoseModel
from .zoo.wrapped import unwrap

__all__ = ["require_tokens", "shows_tokens", "token_rows"]

_DARK = 0.25  # brightness of cells that are left out


def shows_tokens(predictor: PosePredictor) -> bool:
    """Tell whether there is something to see: regions, or a mask that leaves tokens out."""
    network = unwrap(predictor.model)
    return isinstance(network, PoseModel) and (
        network.has_token_regions or network.kept_cells() is not None
    )


def require_tokens(predictor: PosePredictor) -> PoseModel:
    """Return the network if there is something to see.

    Raises:
        InputError: there is not; models that have it are named.
    """
    network = unwrap(predictor.model)
    if isinstance(network, PoseModel) and shows_tokens(predictor):
        return network
    raise InputError(
        f"the tokens of {predictor.cfg.name} cannot be shown; valid: models whose tokens are "
        f"regions of the image ({', '.join(list_models('tc*', task='pose'))}), or that have a "
        "mask which leaves tokens out (tmpose_*)"
    )


def token_rows(
    predictor: PosePredictor, image: NDArray[np.uint8], bboxes: NDArray[np.float32]
) -> Image.Image:
    """Return a picture with a row per person, twice the size of the crops.

    A row is the crop and, for TCFormer, the regions of its tokens in stages 2, 3 and 4, or for
    TMPose the crop with the cells dark whose tokens its mask leaves out.

    Args:
        predictor: has the model.
        image: uint8 RGB (H, W, 3).
        bboxes: (N, 4) xyxy, at least one.

    Raises:
        InputError: the model has neither, or no box.
    """
    network = require_tokens(predictor)
    if not len(bboxes):
        raise InputError("there is nobody whose tokens could be shown")
    crops = predictor.crops(image, bboxes)  # (B, 3, H, W)
    if network.has_token_regions:
        painted = _regions(network, predictor, crops)
    else:
        painted = _masked(network, crops)
    large = crops.permute(0, 2, 3, 1).cpu().numpy().repeat(2, 1).repeat(2, 2)  # (B, 2H, 2W, 3)
    rows = [np.hstack([crop, *columns]) for crop, columns in zip(large, painted)]
    return Image.fromarray(np.vstack(rows))


def _regions(
    network: PoseModel, predictor: PosePredictor, crops: Tensor
) -> list[list[NDArray[np.uint8]]]:
    with torch.inference_mode(), autocast(predictor.device, predictor.dtype):
        stages = network.token_regions(predictor.crop.normalise(crops).to(predictor.model_dtype))
    regions = [stage.cpu().numpy() for stage in stages[1:]]  # (B, h, w) each
    pixels = crops.permute(0, 2, 3, 1).cpu().numpy().repeat(2, 1).repeat(2, 2)
    return [
        [np.asarray(draw_tokens(crop, stage[i])) for stage in regions]
        for i, crop in enumerate(pixels)
    ]


def _masked(network: PoseModel, crops: Tensor) -> list[list[NDArray[np.uint8]]]:
    kept = network.kept_cells()
    assert kept is not None
    pixels = crops.permute(0, 2, 3, 1).cpu().numpy().repeat(2, 1).repeat(2, 2)
    rows, columns = (
        np.arange(size) * count // size for size, count in zip(pixels.shape[1:3], kept.shape)
    )
    light = np.where(kept.cpu().numpy()[np.ix_(rows, columns)], 1.0, _DARK)  # (2H, 2W)
    dimmed = (pixels * light[..., None]).round().astype(np.uint8)
    return [[crop] for crop in dimmed]
