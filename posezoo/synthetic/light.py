"""Light on surfaces: a sun or lamp with shadows, light from all around, a weak fill, highlights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .raster import rasterise

__all__ = ["Lights", "ShadowMaps", "cast_shadows", "sample_lights", "shade"]

_MAP = 96  # pixels of a shadow map
_BIAS = 0.03  # metres by which a surface may be behind what is lit


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Light of B pictures: `toward (B, 3)` the lamp, its colour `key`, the colours of the light from
    above and below, `fill` (B, 3) and where it comes from, and how dark shadows are (B,)."""

    toward: Tensor
    key: Tensor
    sky: Tensor
    ground: Tensor
    fill: Tensor
    fill_toward: Tensor
    shadow: Tensor


@dataclass(frozen=True, kw_only=True)
class ShadowMaps:
    """What lies nearest to the lamp: `axes (B, 3, 3)` of the maps, rows x, y and towards the lamp,
    about `center (B, 3)`, out to `radius (B,)`; `nearest (B * S * S,)`."""

    axes: Tensor
    center: Tensor
    radius: Tensor
    nearest: Tensor

    def to_map(self, points: Tensor, picture: Tensor) -> Tensor:
        """Map points (P, 3) to pixels of the map and how near the lamp they are, (P, 3)."""
        local = points - self.center.index_select(0, picture)
        axes = self.axes.index_select(0, picture)
        turned = torch.stack([(axes[:, i] * local).sum(1) for i in range(3)], 1)
        scale = (_MAP / 2) / self.radius.index_select(0, picture)[:, None]
        return torch.cat([turned[:, :2] * scale + _MAP / 2, turned[:, 2:] + 50], 1)

    def lit(self, points: Tensor, picture: Tensor) -> Tensor:
        """Return which share of the lamp's light reaches points (P,)."""
        x, y, near = self.to_map(points, picture).unbind(1)
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
    return Lights(**{name: torch.from_numpy(value).float() for name, value in values.items()})


def cast_shadows(
    lights: Lights, positions: Tensor, faces: Tensor, picture: Tensor, middle: Tensor, radius: Tensor
) -> ShadowMaps:
    """Draw what the lamps see of triangles.

    Args:
        positions: (T, 3) of vertices.
        faces: (F, 3) and the `picture (F,)` of each.
        middle, radius: (B, 3) and (B,) what the maps reach.
    """
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(lights.toward)
    x = torch.nn.functional.normalize(torch.linalg.cross(lights.toward, up), dim=1)
    axes = torch.stack([x, torch.linalg.cross(lights.toward, x), lights.toward], 1)
    count = len(middle)
    empty = torch.zeros(count * _MAP * _MAP)
    maps = ShadowMaps(axes=axes, center=middle, radius=radius, nearest=empty)
    used = (lights.shadow.index_select(0, picture) > 0).nonzero()[:, 0]
    faces, picture = faces.index_select(0, used), picture.index_select(0, used)
    corners = torch.stack(
        [maps.to_map(positions.index_select(0, faces[:, i]), picture) for i in range(3)], 1
    )
    both = torch.ones(len(faces), dtype=torch.bool)
    hits = rasterise(corners, picture, (count, _MAP, _MAP), both)
    empty[hits.pixel] = hits.nearness
    return maps


def shade(
    lights: Lights, maps: ShadowMaps, picture: Tensor, points: Tensor, normals: Tensor,
    eyes: Tensor, color: Tensor, gloss: Tensor,
) -> Tensor:  # fmt: skip
    """Return the light (P, 3) that points of a colour send to the eye.

    Args:
        picture: (P,).
        points, normals: (P, 3); normals face the eye.
        eyes: (B, 3).
        color, gloss: (P, 3) and (P,).
    """
    of = lambda value: value.index_select(0, picture)  # noqa: E731
    toward = of(lights.toward)
    reaching = 1 - of(lights.shadow) * (1 - maps.lit(points, picture))
    straight = (((normals * toward).sum(1) + 0.15) / 1.15).clamp(min=0) * reaching
    upward = (0.5 + 0.5 * normals[:, 2])[:, None]
    filled = (normals * of(lights.fill_toward)).sum(1).clamp(min=0)[:, None]
    key = of(lights.key)
    light = key * straight[:, None] + of(lights.sky) * upward + of(lights.ground) * (1 - upward)
    light = light + of(lights.fill) * filled
    view = torch.nn.functional.normalize(of(eyes) - points, dim=1)
    half = torch.nn.functional.normalize(toward + view, dim=1)
    shine = (normals * half).sum(1).clamp(min=0) ** 24 * gloss * reaching
    return color * light + key * shine[:, None]
