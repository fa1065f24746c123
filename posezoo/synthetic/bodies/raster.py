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
        shares: (3, P) of its corners, corrected for perspective.
        nearness: (P,) at the pixel.
    """

    pixel: Tensor
    face: Tensor
    shares: Tensor
    nearness: Tensor


def rasterise(
    x: Tensor, y: Tensor, near: Tensor, image: Tensor, size: tuple[int, int, int], two_sided: Tensor
) -> Hits:
    """Find the nearest triangle at the centres of pixels.

    Args:
        x, y: (3, T) corners in pixels; the middle of the top left one is (0, 0).
        near: (3, T) nearness: above 0, linear in the picture, 1 / depth for a pinhole camera.
            Triangles with a corner of nearness 0 or less are behind the camera and left out.
        image: (T,) which image each belongs to.
        size: (B, H, W).
        two_sided: (T,) whether it is seen from behind too; the front has its corners counter-
            clockwise in the picture.
    """
    _, height, width = size
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    first_x, last_x = x.amin(0).ceil().clamp(min=0), x.amax(0).floor().clamp(max=width - 1)
    first_y, last_y = y.amin(0).ceil().clamp(min=0), y.amax(0).floor().clamp(max=height - 1)
    good = (last_x >= first_x) & (last_y >= first_y) & (near.amin(0) > 0)
    good &= (area < -1e-3) | two_sided & (area > 1e-3)
    kept = good.nonzero()[:, 0]
    x, y, near, area, image = (v.index_select(-1, kept) for v in (x, y, near, area, image))
    first_x, last_x, first_y, last_y = (
        edge.index_select(0, kept) for edge in (first_x, last_x, first_y, last_y)
    )
    planes = _planes(x - first_x, y - first_y, near, area)  # (9, kept)
    columns = (last_x - first_x + 1).int()
    counts = columns * (last_y - first_y + 1).int()
    owner = torch.repeat_interleave(torch.arange(len(kept), device=x.device), counts)
    local = torch.arange(len(owner), dtype=torch.int32, device=x.device)
    local -= (counts.cumsum(0, dtype=torch.int32) - counts).index_select(0, owner)
    wide = columns.index_select(0, owner)
    row = torch.div(local, wide, rounding_mode="floor")
    fx, fy = (local - row * wide).float(), row.float()
    b0, b1 = (_at(planes, i, owner, fx, fy) for i in (0, 1))
    inside = (torch.minimum(torch.minimum(b0, b1), 1 - b0 - b1) >= _INSIDE).nonzero()[:, 0]
    owner, fx, fy = (value.index_select(0, inside) for value in (owner, fx, fy))
    nearness = _at(planes, 2, owner, fx, fy)
    origin = (image * height + first_y.long()) * width + first_x.long()
    pixel = origin.index_select(0, owner) + (fy * width + fx).long()
    key = (nearness.view(torch.int32).long() << 32) | owner
    best = torch.zeros(size[0] * height * width, dtype=torch.int64, device=x.device)
    best.scatter_reduce_(0, pixel, key, "amax")
    covered = best.nonzero()[:, 0]
    face = best.index_select(0, covered) & 0xFFFFFFFF
    fy = torch.div(covered, width, rounding_mode="floor") % height - first_y.index_select(0, face)
    fx = covered % width - first_x.index_select(0, face)
    b0, b1, nearness = (_at(planes, i, face, fx, fy) for i in range(3))
    shares = torch.stack([b0, b1, 1 - b0 - b1]) * near.index_select(1, face)
    return Hits(
        pixel=covered, face=kept.index_select(0, face), shares=shares / shares.sum(0),
        nearness=nearness,
    )  # fmt: skip


def _at(planes: Tensor, i: int, owner: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the value of plane `i` of triangles `owner` (P,) at x, y."""
    value, step_x, step_y = (planes[i + 3 * k].index_select(0, owner) for k in range(3))
    return value.addcmul_(step_x, x).addcmul_(step_y, y)


def _planes(x: Tensor, y: Tensor, near: Tensor, area: Tensor) -> Tensor:
    """Return two barycentric coordinates and the nearness as planes, (9, T): the three values at
    (0, 0), their steps in x, their steps in y."""
    following, last = [1, 2, 0], [2, 0, 1]
    value = x[following] * y[last] - x[last] * y[following]  # (3, T)
    step_x, step_y = y[following] - y[last], x[last] - x[following]
    rows = []
    for shares in (value / area, step_x / area, step_y / area):
        rows += [shares[0], shares[1], (shares * near).sum(0)]
    return torch.stack(rows)
