"""What is behind people: rooms and places with floor and walls, or a flat picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .devices import sent
from .light import Lights, ShadowMaps
from .textures import Sheet

__all__ = ["Rooms", "sample_rooms"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """The boxes that B cameras are in.

    Attributes:
        low, high: (B, 3) corners; z = 0 is the floor.
        texture, scale: (B, 6) of the walls at low and high x, y and z, in turn; a scale of 0 lays
            the texture over the whole wall, upright.
        turn: (B,) radians about the vertical.
        flat: (B,) a texture that replaces all of it, seen straight, or -1; `view (B, 4)` is its
            offset and steps.
        tone: (B, 6, 3) factors on the colours.
    """

    low: Tensor
    high: Tensor
    texture: Tensor
    scale: Tensor
    turn: Tensor
    flat: Tensor
    view: Tensor
    tone: Tensor

    def paint(
        self, atlas: Sheet, eyes: Tensor, rays: Tensor, picture: Tensor,
        spot: tuple[Tensor, Tensor], lights: Lights, maps: ShadowMaps,
    ) -> Tensor:  # fmt: skip
        """Return what rays (3, P) of pictures (P,) see, linear light (3, P).

        Args:
            eyes: (B, 3).
            spot: row and column (P,) of the pixels, in heights of the crop.
        """

        def of(value: Tensor) -> Tensor:
            return value.contiguous().index_select(0, picture)

        c, s = of(torch.cos(self.turn)), of(torch.sin(self.turn))
        eye = [of(eyes[:, i]) for i in range(3)]
        start = [c * eye[0] + s * eye[1], c * eye[1] - s * eye[0], eye[2]]
        way = [c * rays[0] + s * rays[1], c * rays[1] - s * rays[0], rays[2]]
        distance = torch.full_like(c, torch.inf)
        plane = torch.zeros_like(picture)
        for axis in range(3):
            ahead = way[axis] > 0
            goal = torch.where(ahead, of(self.high[:, axis]), of(self.low[:, axis]))
            far = (goal - start[axis]) / torch.where(way[axis].abs() < 1e-6, 1e-6, way[axis])
            nearer = far < distance
            distance = torch.where(nearer, far, distance)
            plane = torch.where(nearer, 2 * axis + ahead.long(), plane)
        at = [start[axis] + way[axis] * distance for axis in range(3)]
        side = picture * 6 + plane
        texture, scale = (v.flatten().index_select(0, side) for v in (self.texture, self.scale))
        span = (self.high - self.low)[:, [1, 1, 0, 0, 0, 0]].flatten().index_select(0, side)
        level = plane >= 4
        first = torch.where(plane < 2, at[1], at[0])
        second = torch.where(level, at[1], -at[2])
        whole = scale == 0
        u = torch.where(whole, first / span + 0.5, first * scale)
        v = torch.where(whole, 1 + second / of(self.high[:, 2]), second * scale)
        screen = of(self.flat)
        is_flat = screen >= 0
        texture = torch.where(is_flat, screen, texture)
        u = torch.where(is_flat, of(self.view[:, 0]) + of(self.view[:, 2]) * spot[1], u)
        v = torch.where(is_flat, of(self.view[:, 1]) + of(self.view[:, 3]) * spot[0], v)
        color = atlas.look_up(texture, u, v)
        color *= self.tone.flatten(0, 1).T.contiguous().index_select(1, side)
        floor = ((plane == 4) & ~is_flat).nonzero()[:, 0]
        color[:, floor] *= self._lit(floor, eyes, rays, distance, picture, lights, maps)
        return color

    def _lit(
        self, floor: Tensor, eyes: Tensor, rays: Tensor, distance: Tensor, picture: Tensor,
        lights: Lights, maps: ShadowMaps,
    ) -> Tensor:  # fmt: skip
        """Return the share of light that reaches the floor at some of the rays."""
        owner = picture.index_select(0, floor)
        points = eyes.T.contiguous().index_select(1, owner)
        points = points + rays.index_select(1, floor) * distance.index_select(0, floor)
        straight = lights.toward[:, 2].clamp(min=0) * lights.key.mean(1)
        around = lights.sky.mean(1)
        lost = (straight * lights.shadow / (around + straight)).index_select(0, owner)
        return 1 - lost * (1 - maps.lit(points, owner))


def sample_rooms(rng: np.random.Generator, eyes: Array, atlas: Sheet) -> Rooms:
    """Draw rooms that hold the cameras (B, 3) and the people about the origin."""
    count, half = len(eyes), atlas.count // 2
    turn = rng.uniform(0, 2 * np.pi, count)
    c, s = np.cos(turn), np.sin(turn)
    x, y = c * eyes[:, 0] + s * eyes[:, 1], c * eyes[:, 1] - s * eyes[:, 0]
    outside = rng.random(count) < 0.45
    gap = np.where(outside, 9.0, 0.7)[:, None] * np.exp(rng.normal(0.5, 0.6, (count, 4)))
    low = np.stack([np.minimum(0, x), np.minimum(0, y), 0 * x], 1)
    high = np.stack([np.maximum(0, x), np.maximum(0, y), 0 * x], 1)
    low[:, :2] -= gap[:, :2]
    high[:, :2] += gap[:, 2:]
    tall = np.where(outside, rng.uniform(6, 25, count), rng.uniform(2.3, 4.0, count))
    high[:, 2] = np.maximum(tall, eyes[:, 2] + 0.4)
    wall = rng.integers(0, atlas.count, (count, 1))
    walls = np.where(rng.random((count, 6)) < 0.55, wall, rng.integers(0, atlas.count, (count, 6)))
    plain = (rng.random(count) < 0.5) & ~outside
    walls = np.where(plain[:, None], walls % half, walls)
    walls[:, 4] = rng.integers(0, half, count)
    walls = np.where(outside[:, None] & (np.arange(6) != 4), walls % half + half, walls)
    scale = np.exp(rng.normal(-0.7, 0.6, (count, 6))) / np.where(outside, 3, 1)[:, None]
    laid = (rng.random((count, 6)) < np.where(outside, 0.9, 0.25)[:, None]) & (np.arange(6) < 4)
    tone = rng.uniform(0.5, 1.25, (count, 6, 1)) * rng.uniform(0.5, 1.2, (count, 1, 1))
    tone = tone * rng.normal(1, 0.05, (count, 6, 3))
    step = np.exp(rng.normal(-0.6, 0.6, (count, 1))) * [1, 1]
    step[:, 0] *= rng.choice([-1, 1], count)
    return Rooms(
        low=sent(low).float(), high=sent(high).float(),
        texture=sent(walls), scale=sent(np.where(laid, 0, scale)).float(),
        turn=sent(turn).float(),
        flat=sent(
            np.where(rng.random(count) < 0.25, rng.integers(half // 2, atlas.count, count), -1)
        ),
        view=sent(np.concatenate([rng.random((count, 2)), step], 1)).float(),
        tone=sent(tone).float(),
    )  # fmt: skip
