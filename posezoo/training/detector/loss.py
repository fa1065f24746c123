"""What the maps of the person detector should be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from ...detectors.bodies import CELL, boxes_of

__all__ = ["detector_loss"]

_SMALLEST = 12.0  # pixels of the longer side of a person that is to be found
_SPREAD = 0.09  # of a peak, as a share of the box (TTFNet, arXiv 1909.00700: 0.54 / 6)
_BOXED = 0.3  # height of a peak from which on boxes are learnt
_BOX_LOSS = 3.0


def detector_loss(maps: Tensor, boxes: Tensor) -> Tensor:
    """Return the focal loss of middles (Objects as Points, equation 1) and the generalised IoU loss
    of boxes near them, weighted as in TTFNet.

    Args:
        maps: (B, 5, h, w) of the network.
        boxes: (B, M, 4) xyxy in pixels, 0 where there is nobody.
    """
    height, width = maps.shape[2:]
    cells = boxes / CELL
    extent = cells[..., 2:] - cells[..., :2]  # (B, M, 2)
    longer = extent.amax(-1) * CELL
    found, tiny = longer >= _SMALLEST, (longer > 0) & (longer < _SMALLEST)
    middle = (cells[..., :2] + cells[..., 2:]) / 2
    peak = middle.floor().clamp(min=0).minimum(middle.new_tensor([width - 1, height - 1]))
    sigma = (extent * _SPREAD).clamp(min=0.7)
    x = torch.arange(width, device=maps.device) - peak[..., :1]  # (B, M, w)
    y = torch.arange(height, device=maps.device) - peak[..., 1:]
    waves = [torch.exp(-((at / sigma[..., i, None]) ** 2) / 2) for i, at in enumerate((x, y))]
    heat = waves[1][..., None] * waves[0][:, :, None] * found[..., None, None]  # (B, M, h, w)
    heat, owner = heat.max(1)  # (B, h, w)
    inside = [
        (at + 0.5 + peak[..., i, None] > cells[..., i, None])
        & (at + 0.5 + peak[..., i, None] < cells[..., 2 + i, None])
        for i, at in enumerate((x, y))
    ]
    unsure = (inside[1][..., None] & inside[0][:, :, None] & tiny[..., None, None]).any(1)
    logits = maps[:, 0]
    probability = logits.sigmoid()
    is_peak = heat == 1
    good = (1 - probability) ** 2 * F.logsigmoid(logits) * is_peak
    bad = (1 - heat) ** 4 * probability**2 * F.logsigmoid(-logits) * ~(is_peak | unsure)
    focal = -(good + bad).sum() / is_peak.sum().clamp(min=1)
    weight = (heat * (heat > _BOXED)).flatten()
    target = cells.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 4)).flatten(0, 1)
    overlap = generalized_box_iou_loss(boxes_of(maps).flatten(0, 2), target)
    loss: Tensor = focal + _BOX_LOSS * (overlap * weight).sum() / weight.sum().clamp(min=1)
    return loss
