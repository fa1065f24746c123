"""A z-buffer in plain torch: which triangle is nearest at each pixel of many images at once.

Every pixel in the bounding box of every triangle is tested, all in one pass, so small triangles are
cheap and large ones are better cut into smaller ones. The nearest wins by a maximum over packed
integers (depth, triangle), whose result does not depend on their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Hits", "rasterise"]

_INSIDE = -1e-5  # tolerance of barycentric coordinates, against cracks


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The P pixels that a triangle covers, in the order of the images, rows and columns.

    Attributes:
        pixel: (P,) index into the flattened (B, H, W).
        face: (P,) index of the nearest triangle.
        shares: (P, 3) of its corners, corrected for perspective.
        nearness: (P,) at the pixel.
    """

    pixel: Tensor
    face: Tensor
    shares: Tensor
    nearness: Tensor


def rasterise(corners: Tensor, image: Tensor, size: tuple[int, int, int], two_sided: Tensor) -> Hits:
    """Find the nearest triangle at the centres of pixels.

    Args:
        corners: (T, 3, 3) x, y in pixels of the middle of the top left one is (0, 0), and nearness:
            above 0, linear in the picture, 1 / depth for a pinhole camera. Triangles with a corner
            of nearness 0 or less are behind the camera and left out.
        image: (T,) which image each belongs to.
        size: (B, H, W).
        two_sided: (T,) whether it is seen from behind too; the front has its corners counter-
            clockwise in the picture.
    """
    _, height, width = size
    x, y = corners[..., 0], corners[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    first_x, last_x = x.amin(1).ceil().clamp(min=0), x.amax(1).floor().clamp(max=width - 1)
    first_y, last_y = y.amin(1).ceil().clamp(min=0), y.amax(1).floor().clamp(max=height - 1)
    good = (last_x >= first_x) & (last_y >= first_y) & (corners[..., 2].amin(1) > 0)
    good &= torch.where(two_sided, area.abs() > 1e-3, area < -1e-3)
    kept = good.nonzero()[:, 0]
    first_x, last_x, first_y, last_y = (
        edge[kept].long() for edge in (first_x, last_x, first_y, last_y)
    )
    columns = last_x - first_x + 1
    counts = columns * (last_y - first_y + 1)
    owner = torch.repeat_interleave(torch.arange(len(kept), device=x.device), counts)
    local = torch.arange(len(owner), device=x.device)
    local -= (counts.cumsum(0) - counts).index_select(0, owner)
    width_of = columns.index_select(0, owner)
    row = torch.div(local, width_of, rounding_mode="floor")
    column = local - row * width_of
    planes = _planes(corners[kept], first_x, first_y, area[kept])  # (kept, 9)
    of = planes.index_select(0, owner)
    fx, fy = column.float(), row.float()
    b0, b1, nearness = (of[:, i] + of[:, i + 3] * fx + of[:, i + 6] * fy for i in range(3))
    inside = torch.minimum(torch.minimum(b0, b1), 1 - b0 - b1) >= _INSIDE
    origin = (image[kept] * height + first_y) * width + first_x
    pixel = origin.index_select(0, owner) + row * width + column
    pixel, near, owner = pixel[inside], nearness[inside], owner[inside]
    key = (near.view(torch.int32).long() << 32) | owner
    best = torch.zeros(size[0] * height * width, dtype=torch.int64, device=x.device)
    best.scatter_reduce_(0, pixel, key, "amax")
    covered = best.nonzero()[:, 0]
    won = best[covered]
    face = won & 0xFFFFFFFF
    at_y = torch.div(covered, width, rounding_mode="floor") % height - first_y[face]
    at_x = covered % width - first_x[face]
    of = planes.index_select(0, face)
    b0, b1, nearness = (of[:, i] + of[:, i + 3] * at_x + of[:, i + 6] * at_y for i in range(3))
    face = kept[face]
    shares = torch.stack([b0, b1, 1 - b0 - b1], 1) * corners[..., 2].index_select(0, face)
    return Hits(
        pixel=covered, face=face, shares=shares / shares.sum(1, keepdim=True), nearness=nearness
    )


def _planes(corners: Tensor, first_x: Tensor, first_y: Tensor, area: Tensor) -> Tensor:
    """Return two barycentric coordinates and the nearness as planes, (T, 9): the three values at
    the first pixel of the bounding box, their steps in x, their steps in y."""
    p = corners[..., :2] - torch.stack([first_x, first_y], 1)[:, None]  # (T, 3, 2)
    following, last = p.roll(-1, 1), p.roll(-2, 1)
    value = following[..., 0] * last[..., 1] - last[..., 0] * following[..., 1]
    step_x = following[..., 1] - last[..., 1]
    step_y = last[..., 0] - following[..., 0]
    shares = torch.stack([value, step_x, step_y], 1) / area[:, None, None]  # (T, 3, corners)
    near = (shares * corners[:, None, :, 2]).sum(2, keepdim=True)
    return torch.cat([shares[..., :2], near], 2).flatten(1)
