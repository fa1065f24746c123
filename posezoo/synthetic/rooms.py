"""What is behind people: rooms and places with floor and walls, or a flat picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .light import Lights, ShadowMaps
from .textures import Atlas

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
        self, atlas: Atlas, eyes: Tensor, rays: Tensor, lights: Lights, maps: ShadowMaps
    ) -> Tensor:
        """Return what rays (B, H, W, 3) from eyes (B, 3) see, linear light (B, H, W, 3)."""
        count, height, width, _ = rays.shape
        c, s = torch.cos(self.turn), torch.sin(self.turn)
        zero, one = torch.zeros_like(c), torch.ones_like(c)
        turned = torch.stack([c, s, zero, -s, c, zero, zero, zero, one], 1).reshape(-1, 3, 3)
        eye = (turned @ eyes[..., None])[..., 0]
        way = rays.reshape(count, -1, 3) @ turned.mT
        safe = torch.where(way.abs() < 1e-6, 1e-6, way)
        goal = torch.where(safe > 0, self.high[:, None], self.low[:, None])
        distance, axis = ((goal - eye[:, None]) / safe).min(2)  # (B, n)
        at = eye[:, None] + way * distance[..., None]
        plane = 2 * axis + (torch.gather(safe, 2, axis[..., None])[..., 0] > 0)
        picture = torch.arange(count)[:, None].expand_as(plane)
        texture, scale = (v[picture, plane] for v in (self.texture, self.scale))
        first = torch.where(axis == 0, at[..., 1], at[..., 0])
        second = torch.where(axis == 2, at[..., 1], -at[..., 2])
        span = torch.where(axis == 0, (self.high - self.low)[:, 1:2], (self.high - self.low)[:, :1])
        whole = scale == 0
        u = torch.where(whole, first / span + 0.5, first * scale)
        v = torch.where(whole, 1 + second / self.high[:, 2:], second * scale)
        row = torch.arange(height).repeat_interleave(width) / height
        column = torch.arange(width).repeat(height) / height
        flat = (self.flat >= 0)[:, None]
        texture = torch.where(flat, self.flat[:, None], texture)
        u = torch.where(flat, self.view[:, :1] + self.view[:, 2:3] * column, u)
        v = torch.where(flat, self.view[:, 1:2] + self.view[:, 3:] * row, v)
        color = atlas.look_up(texture.flatten(), u.flatten(), v.flatten())
        color = color.reshape(*plane.shape, 3) * self.tone[picture, plane]
        floor = (plane == 4) & ~flat
        index = floor.flatten().nonzero()[:, 0]
        world = (eyes[:, None] + rays.reshape(count, -1, 3) * distance[..., None]).reshape(-1, 3)
        owner = picture.flatten()[index]
        lit = maps.lit(world[index], owner)
        straight = (lights.toward[:, 2].clamp(min=0) * lights.key.mean(1))[owner]
        around = lights.sky.mean(1)[owner]
        share = (around + straight * (1 - lights.shadow[owner] * (1 - lit))) / (around + straight)
        color = color.reshape(-1, 3)
        color[index] = color[index] * share[:, None]
        return color.reshape(count, height, width, 3)


def sample_rooms(rng: np.random.Generator, eyes: Array, atlas: Atlas) -> Rooms:
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
        low=torch.from_numpy(low).float(), high=torch.from_numpy(high).float(),
        texture=torch.from_numpy(walls), scale=torch.from_numpy(np.where(laid, 0, scale)).float(),
        turn=torch.from_numpy(turn).float(),
        flat=torch.from_numpy(
            np.where(rng.random(count) < 0.25, rng.integers(half // 2, atlas.count, count), -1)
        ),
        view=torch.from_numpy(np.concatenate([rng.random((count, 2)), step], 1)).float(),
        tone=torch.from_numpy(tone).float(),
    )  # fmt: skip
