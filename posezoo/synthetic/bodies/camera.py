"""Cameras about a person, and which part of the photo a network is given.

A photo is a rectangle of the image plane (x right and y down over depth); the person is cut by its
edges, as in photographs. The crop is the box of what is left, with padding, brought to a size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...zoo.recipe import Augmentation
from .devices import sent

__all__ = ["Crops", "aim", "crop", "project", "sample_eyes", "whole"]

Array = NDArray[np.float64]
NEAR = 0.12  # metres before the camera in which nothing is seen
_WIDEST = 1.4  # tangent of half the angle of lenses
_LONGEST = 2.2  # longer side of a photo over the shorter


@dataclass(frozen=True, kw_only=True)
class Crops:
    """B cameras and crops.

    Attributes:
        eye: (B, 3), and `axes (B, 3, 3)`, rows right, down and forward.
        matrix: (B, 2, 3) from the image plane to pixels of the crop; `inverse (B, 2, 2)` is that
            of its first two columns.
        photo: (B, 4) the rectangle of the photo on the image plane, xyxy.
        box: (B, 4) of the person in the crop, xyxy, before anything covers it.
    """

    eye: Tensor
    axes: Tensor
    matrix: Tensor
    inverse: Tensor
    photo: Tensor
    box: Tensor

    def to_pixels(self, plane: Tensor) -> Tensor:
        """Map points of the image plane (B, n, 2) to pixels of the crop."""
        return plane @ self.matrix[:, :, :2].mT + self.matrix[:, None, :, 2]

    def in_photo(self, size: tuple[int, int]) -> Tensor:
        """Return whether the pixels of crops of a size are in the photo, (B, H, W)."""
        row, column = torch.arange(float(size[0]))[:, None], torch.arange(float(size[1]))
        inverse = self.inverse[..., None, None]
        x, y = (column - self.matrix[:, 0, 2, None, None]), (row - self.matrix[:, 1, 2, None, None])
        inside = torch.ones(1, dtype=torch.bool)
        for i in (0, 1):
            plane = inverse[:, i, 0] * x + inverse[:, i, 1] * y
            low, high = (self.photo[:, i + k, None, None] for k in (0, 2))
            inside = inside & (plane >= low) & (plane < high)
        return inside

    def rays(self, size: tuple[int, int], pixel: Tensor, picture: Tensor) -> Tensor:
        """Return the directions (3, P), of depth 1, of pixels (P,) of the flattened (B, H, W)."""
        inverse = self.inverse
        start = -(inverse @ self.matrix[:, :, 2:])[..., 0]
        linear = self.axes[:, :2].mT @ inverse  # (B, 3, 2)
        offset = (self.axes[:, :2].mT @ start[..., None])[..., 0] + self.axes[:, 2]
        column = (pixel % size[1]).float()
        row = (torch.div(pixel, size[1], rounding_mode="floor") % size[0]).float()
        rows = []
        for i in range(3):
            value = offset[:, i].index_select(0, picture)
            value.addcmul_(linear[:, i, 0].index_select(0, picture), column)
            rows.append(value.addcmul_(linear[:, i, 1].index_select(0, picture), row))
        return torch.stack(rows)


def sample_eyes(
    rng: np.random.Generator, target: Array, size: Array, close: NDArray[np.bool_]
) -> Array:
    """Draw where cameras are (B, 3): mostly before the person, at a person's height, near or far.

    Args:
        target: (B, 3) what is looked at.
        size: (B,) how far that reaches about the target, metres.
        close: (B,) whether it is a photo of the upper body.
    """
    n = len(target)
    facing = rng.random(n)
    yaw = np.where(
        facing < np.where(close, 0.75, 0.6), rng.normal(0, 0.7, n), rng.uniform(-np.pi, np.pi, n)
    )
    pitch = np.radians(
        np.clip(rng.normal(5, 12, n) + (rng.random(n) < 0.1) * rng.uniform(0, 50, n), -28, 75)
    )
    far = (
        size * np.exp(rng.uniform(np.where(close, 0.45, 0.75), np.where(close, 1.9, 2.6), n)) + 0.25
    )
    way = np.stack([np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch)], 1)
    eye: Array = target + far[:, None] * way
    eye[:, 2] = np.maximum(eye[:, 2], 0.12)
    return eye


def aim(rng: np.random.Generator, eye: Array, target: Array) -> Tensor:
    """Return the axes (B, 3, 3) of cameras that look at targets, some of them tilted."""
    forward = target - eye
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True) + 1e-9
    down = np.cross(forward, right)
    roll = np.radians(rng.normal(0, 4, len(eye)))[:, None]
    c, s = np.cos(roll), np.sin(roll)
    return sent(np.stack([c * right - s * down, s * right + c * down, forward], 1)).float()


def project(points: Tensor, eye: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """Map points (B, n, 3) to the image plane (B, n, 2); also return their depths (B, n)."""
    local = (points - eye[:, None]) @ axes.mT
    depth = local[..., 2]
    return local[..., :2] / depth.clamp(min=NEAR)[..., None], depth


def crop(
    rng: np.random.Generator, eye: Tensor, axes: Tensor, body: Tensor, cuts: Tensor,
    close: NDArray[np.bool_], size: tuple[int, int], padding: float, augmentation: Augmentation,
) -> Crops:  # fmt: skip
    """Choose photos, and crops of the person in them.

    Args:
        body: (B, V, 3) vertices of the person.
        cuts: (B, n, 3) keypoints at one of which the photo ends below, where `close`.
        size: (H, W) of the crops.
        padding: factor on the box, as the network's configuration has it.
        augmentation: shift, scale and rotation are used.
    """
    count = len(body)
    photo, low, high = _sample_photos(rng, eye, axes, body, cuts, close, 1.0)
    box = np.concatenate([np.maximum(low, photo[:, :2]), np.minimum(high, photo[:, 2:])], 1)
    center, extent = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).clip(1e-3)
    aspect = size[1] / size[0]
    tall = np.maximum(extent[:, 1], extent[:, 0] / aspect) * padding
    a = augmentation
    scale = 1 + a.scale * rng.normal(size=count).clip(-1, 1)
    tall = tall * scale
    center = center + rng.uniform(-a.shift, a.shift, (count, 2)) * tall[:, None] * [aspect, 1]
    turned = rng.random(count) < a.rotation_probability
    angle = np.radians(a.rotation * rng.normal(size=count).clip(-2, 2)) * turned
    return _crops(eye, axes, photo, box, center, tall, angle, size)


def whole(
    rng: np.random.Generator, eye: Tensor, axes: Tensor, body: Tensor, cuts: Tensor,
    close: NDArray[np.bool_], size: tuple[int, int],
) -> Crops:  # fmt: skip
    """Choose photos that show more around the person, each brought into (H, W) as a whole; the
    arguments are those of `crop`."""
    reach = np.exp(rng.uniform(0, 2.0, (len(body), 1)))
    photo, low, high = _sample_photos(rng, eye, axes, body, cuts, close, reach)
    photo[:, :2] = np.maximum(photo[:, :2], np.minimum(low, -_WIDEST))
    photo[:, 2:] = np.minimum(photo[:, 2:], np.maximum(high, _WIDEST))
    extent = photo[:, 2:] - photo[:, :2]
    thin = (extent[:, ::-1] / _LONGEST - extent).clip(0) / 2  # longer photos are not taken
    photo += np.concatenate([-thin, thin], 1)
    extent = photo[:, 2:] - photo[:, :2]
    box = np.concatenate([np.maximum(low, photo[:, :2]), np.minimum(high, photo[:, 2:])], 1)
    tall = np.maximum(extent[:, 1], extent[:, 0] * size[0] / size[1])
    center = (photo[:, :2] + photo[:, 2:]) / 2
    return _crops(eye, axes, photo, box, center, tall, np.zeros(len(body)), size)


def _sample_photos(
    rng: np.random.Generator, eye: Tensor, axes: Tensor, body: Tensor, cuts: Tensor,
    close: NDArray[np.bool_], reach: float | Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return photos (B, 4) and corners of people, (B, 2) each, on the image plane; photos go on
    `reach` times as far as usual beside people."""
    count = len(body)
    plane, depth = project(body, eye, axes)
    low = torch.where(depth[..., None] > NEAR, plane, torch.inf).amin(1)
    high = torch.where(depth[..., None] > NEAR, plane, -torch.inf).amax(1)
    low, high = torch.stack([low, high]).cpu().numpy()
    span = high - low
    wide = span.max(axis=1, keepdims=True) * [1.4, 0.7] * reach
    tight = rng.random((count, 1)) < 0.25
    beyond = wide * np.where(tight, 0.06, 0.5)
    photo = np.concatenate(
        [
            low - beyond * rng.exponential(1, (count, 2)),
            high + beyond * rng.exponential(1, (count, 2)),
        ],
        1,
    )
    ends = project(cuts, eye, axes)[0][..., 1].cpu().numpy()
    end = ends[np.arange(count), rng.integers(0, ends.shape[1], count)] + span[:, 1] * rng.uniform(
        0, 0.12, count
    )
    photo[:, 3] = np.where(close, np.minimum(end, photo[:, 3]), photo[:, 3])
    for side, share in ((0, 0.08), (1, 0.04), (2, 0.08), (3, 0.08)):
        cut = rng.random(count) < share
        inwards = rng.uniform(0.0, 0.38, count) * span[:, side % 2]
        edge = low[:, side] + inwards if side < 2 else high[:, side - 2] - inwards
        photo[:, side] = np.where(cut, edge, photo[:, side])
    thin = photo[:, 2:] - photo[:, :2] < 0.35 * span  # cut from both sides
    photo[:, 2:] = np.where(thin, high, photo[:, 2:])
    return photo, low, high


def _crops(
    eye: Tensor, axes: Tensor, photo: Array, box: Array, center: Array, tall: Array, angle: Array,
    size: tuple[int, int],
) -> Crops:  # fmt: skip
    """Return crops about centers (B, 2), `tall (B,)` on the image plane and turned by angles."""
    c, s = np.cos(angle) * size[0] / tall, np.sin(angle) * size[0] / tall
    linear = np.stack([np.stack([c, -s], 1), np.stack([s, c], 1)], 1)
    offset = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2]) - (linear @ center[..., None])[..., 0]
    matrix = np.concatenate([linear, offset[..., None]], 2)
    inverse = torch.linalg.inv(torch.from_numpy(linear).float())  # CUDA would wait for errors
    crops = Crops(
        eye=eye, axes=axes, matrix=sent(matrix).float(), inverse=sent(inverse),
        photo=sent(photo).float(), box=sent(box).float(),
    )  # fmt: skip
    corners = crops.to_pixels(crops.box.reshape(-1, 2, 2))
    return replace(crops, box=torch.cat([corners.amin(1), corners.amax(1)], 1))
