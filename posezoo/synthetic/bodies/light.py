"""Light on surfaces: a sun or lamp with shadows, light from all around, a weak fill, highlights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .devices import sent
from .raster import rasterise

__all__ = ["Lights", "ShadowMaps", "cast_shadows", "sample_lights", "shade", "unit"]

_MAP = 96  # pixels of a shadow map
_MIDDLE = np.array([_MAP / 2, _MAP / 2, 50], np.float32)
_BIAS = 0.03  # metres by which a surface may be behind what is lit


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Light of B pictures: `toward (B, 3)` the lamp, its colour `key`, the colours of the light
    from above and below, `fill` (B, 3) and where it comes from, and how dark shadows are (B,)."""

    toward: Tensor
    key: Tensor
    sky: Tensor
    ground: Tensor
    fill: Tensor
    fill_toward: Tensor
    shadow: Tensor


@dataclass(frozen=True, kw_only=True)
class ShadowMaps:
    """What is nearest to the lamp: `axes (B, 3, 3)` of the maps, rows x, y and towards the lamp,
    about `center (B, 3)`, out to `radius (B,)`; `nearest (B * S * S,)`."""

    axes: Tensor
    center: Tensor
    radius: Tensor
    nearest: Tensor

    def to_map(self, points: Tensor, picture: Tensor) -> list[Tensor]:
        """Map points (3, P) to x and y in pixels of the map and how near the lamp they are."""
        scale = (_MAP / 2) / self.radius[:, None, None]
        axes = torch.cat([self.axes[:, :2] * scale, self.axes[:, 2:]], 1)
        start = sent(_MIDDLE) - (axes @ self.center[..., None])[..., 0]
        found = []
        for i in range(3):
            value = start[:, i].index_select(0, picture)
            for j in range(3):
                value = torch.addcmul(value, axes[:, i, j].index_select(0, picture), points[j])
            found.append(value)
        return found

    def lit(self, points: Tensor, picture: Tensor) -> Tensor:
        """Return which share of the lamp's light reaches points (3, P): (P,)."""
        x, y, near = self.to_map(points, picture)
        hidden = torch.zeros_like(near)
        for dx in (-0.8, 0.8):
            for dy in (-0.8, 0.8):
                column, row = (x + dx).long(), (y + dy).long()
                known = (column >= 0) & (column < _MAP) & (row >= 0) & (row < _MAP)
                index = (picture * _MAP + row.clamp(0, _MAP - 1)) * _MAP + column.clamp(0, _MAP - 1)
                hidden += known & (self.nearest.index_select(0, index) > near + _BIAS)
        return 1 - hidden / 4


def sample_lights(rng: np.random.Generator, count: int) -> Lights:
    """Draw the light of pictures."""
    turn, height = rng.uniform(0, 2 * np.pi, count), np.radians(rng.uniform(12, 85, count))
    toward = np.stack(
        [np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height)], 1
    )
    fill_toward = rng.normal(size=(count, 3))
    fill_toward /= np.linalg.norm(fill_toward, axis=1, keepdims=True)
    warm = np.stack([rng.normal(1, 0.1, count), np.ones(count), rng.normal(1, 0.14, count)], 1)
    around = rng.uniform(0.25, 0.8, (count, 1))
    below = around * rng.uniform(0.25, 0.85, (count, 1))
    values = {
        "toward": toward,
        "key": warm * rng.uniform(0.15, 1.2, (count, 1)),
        "sky": np.array([0.95, 1, 1.07]) * rng.normal(1, 0.05, (count, 3)) * around,
        "ground": np.array([1.04, 1, 0.92]) * rng.normal(1, 0.06, (count, 3)) * below,
        "fill": np.ones((count, 3)) * rng.uniform(0, 0.35, (count, 1)),
        "fill_toward": fill_toward,
        "shadow": np.where(rng.random(count) < 0.62, rng.uniform(0.25, 0.97, count), 0),
    }
    return Lights(**{name: sent(value).float() for name, value in values.items()})


def cast_shadows(
    lights: Lights,
    positions: Tensor,
    faces: Tensor,
    picture: Tensor,
    middle: Tensor,
    radius: Tensor,
) -> ShadowMaps:
    """Draw what the lamps see of triangles.

    Args:
        positions: (3, T) of vertices.
        faces: (3, F) and the `picture (F,)` of each.
        middle, radius: (B, 3) and (B,) what the maps reach.
    """
    up = torch.eye(3)[2].expand_as(lights.toward)
    x = torch.nn.functional.normalize(torch.linalg.cross(lights.toward, up), dim=1)
    axes = torch.stack([x, torch.linalg.cross(lights.toward, x), lights.toward], 1)
    count = len(middle)
    empty = torch.zeros(count * _MAP * _MAP)
    maps = ShadowMaps(axes=axes, center=middle, radius=radius, nearest=empty)
    used = (lights.shadow.index_select(0, picture) > 0).nonzero()[:, 0]
    faces, picture = faces.index_select(1, used), picture.index_select(0, used)
    corners = [maps.to_map(positions.index_select(1, faces[i]), picture) for i in range(3)]
    x, y, near = (torch.stack([corner[i] for corner in corners]) for i in range(3))
    hits = rasterise(x, y, near, picture, (count, _MAP, _MAP), torch.ones_like(used) > 0)
    empty[hits.pixel] = hits.nearness
    return maps


def shade(
    lights: Lights, maps: ShadowMaps, picture: Tensor, points: Tensor, normals: Tensor,
    eyes: Tensor, color: Tensor, gloss: Tensor,
) -> Tensor:  # fmt: skip
    """Return the light (3, P) that points of a colour send to the eye.

    Args:
        picture: (P,).
        points, normals: (3, P); normals face the eye.
        eyes: (B, 3).
        color, gloss: (3, P) and (P,).
    """

    def of(value: Tensor) -> Tensor:
        return value.T.contiguous().index_select(1, picture)

    toward = of(lights.toward)
    shadow = lights.shadow.index_select(0, picture)
    reaching = 1 - shadow * (1 - maps.lit(points, picture))
    straight = ((_dot(normals, toward) + 0.15) / 1.15).clamp(min=0) * reaching
    upward = 0.5 + 0.5 * normals[2]
    filled = _dot(normals, of(lights.fill_toward)).clamp(min=0)
    key = of(lights.key)
    ground = of(lights.ground)
    light = key * straight + ground + (of(lights.sky) - ground) * upward + of(lights.fill) * filled
    half = unit(toward + unit(of(eyes) - points))
    shine = _dot(normals, half).clamp(min=0) ** 24 * gloss * reaching
    return color * light + key * shine


def unit(vectors: Tensor) -> Tensor:
    """Bring vectors (3, P) to length 1."""
    return vectors * torch.rsqrt(_dot(vectors, vectors) + 1e-12)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
