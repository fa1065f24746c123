"""Procedural textures, linear RGB: noise, fabrics, boards, tiles, foliage, clutter.

They are drawn in sets, tiled into one sheet (an atlas), so that one look-up serves all surfaces of
all pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .devices import CPU, computing_on, sent

__all__ = ["Atlas", "Sheet", "random_colors"]

Array = NDArray[np.float32]

_SIZE = 160  # of a texture in pixels
_ROW = 8  # textures per row and column of the sheet


class Atlas:
    """64 textures, stored small. The first half is plain to the eye (walls, floors,
    fabric), the second busy.

    Args:
        stored: uint8 (1, 3, 8 * S, 8 * S), square roots of linear RGB.
    """

    count = _ROW * _ROW

    def __init__(self, stored: NDArray[np.uint8]) -> None:
        self.stored = stored

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Atlas:
        """Draw one, in about half a second; it depends on `rng` alone."""
        with computing_on(CPU):
            made = [
                _SURFACES[rng.integers(len(_SURFACES))](rng) if i < cls.count // 2
                else _CLUTTERS[rng.integers(len(_CLUTTERS))](rng)
                for i in range(cls.count)
            ]  # fmt: skip
        tiles = np.stack(made).reshape(_ROW, _ROW, _SIZE, _SIZE, 3)
        sheet = tiles.transpose(4, 0, 2, 1, 3).reshape(1, 3, _ROW * _SIZE, _ROW * _SIZE)
        roots = torch.from_numpy(sheet.astype(np.float32)).clamp(0, 1).sqrt() * 255
        return cls(roots.byte().numpy())

    def opened(self) -> Sheet:
        """Return the textures for looking up, on the default device."""
        return Sheet((sent(self.stored).float() / 255).square())


class Sheet:
    """The textures of an atlas, linear RGB (1, 3, 8 * S, 8 * S) for textures of S x S pixels."""

    count = Atlas.count

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def look_up(self, texture: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return colours (3, P) of textures (P,) at u, v (P,), which wrap from 1 to 0."""
        inner = (_SIZE - 1) / _SIZE
        x = (texture % _ROW + (u - u.floor()) * inner + 0.5 / _SIZE) * (2 / _ROW) - 1
        y = (texture // _ROW + (v - v.floor()) * inner + 0.5 / _SIZE) * (2 / _ROW) - 1
        grid = torch.stack([x, y], -1)[None, None]
        found = F.grid_sample(self.pixels, grid, align_corners=False)
        return found[0, :, 0]


def random_colors(rng: np.random.Generator, count: int) -> Array:
    """Draw colours (count, 3) as clothes and things have them: many dark, white or grey."""
    kind = rng.choice(6, count, p=[0.18, 0.16, 0.14, 0.14, 0.14, 0.24])
    u = rng.random
    h, s, v = u(count), 0.25 + 0.75 * u(count), 0.1 + 0.85 * u(count)
    k = (np.array([5.0, 3.0, 1.0]) + 6 * h[:, None]) % 6
    vivid = (v[:, None] * (1 - s[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))) ** 1.8
    grey = np.ones((count, 3))
    options = np.stack(
        [
            (0.015 + 0.05 * u((count, 1))) * grey,
            (0.5 + 0.38 * u((count, 1))) * grey,
            (0.06 + 0.4 * u((count, 1))) * grey,
            np.array([0.05, 0.075, 0.2]) * (0.4 + 2 * u((count, 1))),
            np.array([0.36, 0.26, 0.15]) * (0.25 + 1.6 * u((count, 1))),
            vivid * np.ones(3),
        ]
    )  # (6, count, 3)
    chosen = options[kind, np.arange(count)] * rng.normal(1, 0.06, (count, 3))
    return chosen.clip(0.005, 0.95).astype(np.float32)


def _grid() -> tuple[Array, Array]:
    step = (np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE
    return np.meshgrid(step, step)  # x, y


def _noise(rng: np.random.Generator, cells: int, falloff: float = 0.55) -> Array:
    """Return smooth noise (S, S) over several octaves, mean 0 and deviation about 1."""
    total, amount = torch.zeros(1, 1, _SIZE, _SIZE), 1.0
    while cells < _SIZE:
        coarse = torch.from_numpy(rng.normal(size=(1, 1, cells + 1, cells + 1)).astype(np.float32))
        total += amount * F.interpolate(coarse, (_SIZE, _SIZE), mode="bicubic", align_corners=True)
        cells, amount = 2 * cells + 1, amount * falloff
    found: Array = total[0, 0].numpy()
    found /= found.std() + 1e-6
    return found


def _mixed(weight: NDArray[Any], first: Array, second: Array) -> Array:
    w = weight.clip(0, 1)[..., None]
    mixed: Array = first * (1 - w) + second * w
    return mixed


def _plain(rng: np.random.Generator) -> Array:
    color = random_colors(rng, 2)
    if rng.random() < 0.7:
        color[1] = color[0] * rng.uniform(0.6, 1.2)
    x, y = _grid()
    slope = x * float(rng.normal()) + y * float(rng.normal())
    speckle = 1 + rng.uniform(0, 0.12) * _noise(rng, int(rng.integers(2, 40)))
    return _mixed(0.5 + slope, color[0], color[1]) * speckle[..., None]


def _cloudy(rng: np.random.Generator) -> Array:
    color = random_colors(rng, 3)
    color[1] = color[0] * rng.uniform(0.3, 1.4)
    a = _noise(rng, int(rng.integers(1, 12)), rng.uniform(0.4, 0.9))
    b = _noise(rng, int(rng.integers(3, 30)), 0.7)
    return _mixed(0.2 * (b - 1), _mixed(0.5 + 0.4 * a, color[0], color[1]), color[2])


def _boards(rng: np.random.Generator) -> Array:
    """Planks, tiles or bricks with joints between them."""
    x, y = _grid()
    rows, columns = int(rng.integers(2, 16)), int(rng.integers(1, 12))
    if rng.random() < 0.5:
        x, y = y, x
    row = np.floor(y * rows)
    shifted = x * columns + (row % 2) * rng.choice([0, 0.5, 0.37])
    column = np.floor(shifted)
    tone = rng.random((64, 64)).astype(np.float32)[row.astype(int) % 64, column.astype(int) % 64]
    color = random_colors(rng, 2)
    joint = (y * rows % 1 < rng.uniform(0.02, 0.12)) | (shifted % 1 < rng.uniform(0, 0.08))
    grain = 1 + rng.uniform(0, 0.2) * _noise(rng, int(rng.integers(2, 30)))
    face = color[0] * ((1 + rng.uniform(0, 0.8) * (tone - 0.5)) * grain)[..., None]
    drawn: Array = np.where(joint[..., None], color[1] * rng.uniform(0.2, 1.0), face)
    return drawn.astype(np.float32)


def _stripes(rng: np.random.Generator) -> Array:
    x, y = _grid()
    color = random_colors(rng, 3)
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    q = x * np.cos(angle) + y * np.sin(angle) + 0.02 * rng.random() * _noise(rng, 3)
    wave = np.sin(q * 2 * np.pi * rng.integers(2, 24))
    out = _mixed(0.5 + wave * rng.uniform(0.5, 6), color[0], color[1])
    if rng.random() < 0.5:
        r = y * np.cos(angle) - x * np.sin(angle)
        other = np.sin(r * 2 * np.pi * rng.integers(2, 24))
        out = _mixed(0.5 * (other > 0.3), out, color[2])
    return out


def _leaves(rng: np.random.Generator) -> Array:
    """Foliage, grass, gravel: dabs of related colours, light and dark."""
    a = _noise(rng, int(rng.integers(6, 26)), 0.95)
    b = _noise(rng, int(rng.integers(2, 8)))
    base = np.array(
        [(0.09, 0.17, 0.03), (0.18, 0.2, 0.05), (0.25, 0.2, 0.12), (0.3, 0.3, 0.28)][
            rng.integers(4)
        ]
    ) * rng.normal(1, 0.15, 3)  # fmt: skip
    light = np.exp(0.55 * a + 0.4 * b).clip(0.08, 4)[..., None] * rng.uniform(0.3, 1.2)
    out: Array = (base * light).astype(np.float32)
    if rng.random() < 0.4:  # sky through it
        out = _mixed((a + b - 1.2) * 2, out, np.array([0.7, 0.8, 0.9], np.float32))
    return out


def _boxes(rng: np.random.Generator) -> Array:
    """Rectangles on a grid: shelves, windows of a facade, a keyboard, a crowd of signs."""
    out = _cloudy(rng) if rng.random() < 0.5 else _plain(rng)
    rows, columns = (int(rng.integers(2, 14)) for _ in range(2))
    color = random_colors(rng, 24)
    if rng.random() < 0.4:
        color = color[:1] * rng.uniform(0.3, 1.7, (24, 1)).astype(np.float32)
    for i in range(rows):
        left = 0.0
        while left < 1:
            width = rng.uniform(0.4, 1.6) / columns
            top = (i + rng.uniform(0.05, 0.5)) / rows
            a, b = int(top * _SIZE), int((i + 0.95) / rows * _SIZE)
            c, d = int(left * _SIZE), int((left + width * 0.85) * _SIZE)
            if rng.random() < 0.85:
                out[a:b, c:d] = color[rng.integers(24)] * rng.uniform(0.6, 1.2)
            left += width
    return out


def _pieces(rng: np.random.Generator) -> Array:
    """Discs, bars, blobs and rectangles over each other: clutter, or far people and cars."""
    out = _SURFACES[rng.integers(len(_SURFACES))](rng)
    x, y = _grid()
    for _ in range(int(rng.integers(6, 45))):
        color = random_colors(rng, 2)
        cx, cy = rng.random(2)
        a, b = np.exp(rng.normal(-2.6, 0.7, 2))
        turn = rng.choice([0, rng.uniform(0, np.pi)])
        p = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / a
        q = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / b
        power = rng.choice([1.0, 2.0, 8.0])
        mask = np.abs(p) ** power + np.abs(q) ** power < 1
        fill = _mixed(0.5 + 0.5 * p, color[0], color[0] * rng.uniform(0.3, 1.2))
        if rng.random() < 0.3:
            fill = np.where((np.sin(p * rng.uniform(3, 20)) > 0)[..., None], fill, color[1])
        out = np.where(mask[..., None], fill, out).astype(np.float32)
    return out


def _landscape(rng: np.random.Generator) -> Array:
    """Sky, hills or trees, ground; the sky may be blown out."""
    _, y = _grid()
    sky = _mixed(
        y * 2, np.array([0.2, 0.4, 0.8], np.float32), np.array([0.8, 0.85, 0.9], np.float32)
    )
    if rng.random() < 0.5:
        sky = np.full_like(sky, rng.uniform(0.4, 1))
    sky = _mixed(0.3 * _noise(rng, 2), sky, np.array([0.9, 0.9, 0.92], np.float32))
    out = sky * rng.uniform(0.5, 1.1)
    level = rng.uniform(0.2, 0.7)
    for _ in range(int(rng.integers(1, 4))):
        edge = level + rng.uniform(0.01, 0.12) * _noise(rng, int(rng.integers(2, 12)))[:1]
        layer = _leaves(rng) if rng.random() < 0.6 else _boxes(rng)
        out = np.where((y > edge)[..., None], layer, out).astype(np.float32)
        level += rng.uniform(0.05, 0.25)
    return out


Maker = Callable[[np.random.Generator], Array]
_SURFACES: tuple[Maker, ...] = (_plain, _plain, _cloudy, _boards, _boards, _stripes, _leaves)
_CLUTTERS: tuple[Maker, ...] = (_boxes, _pieces, _pieces, _landscape, _landscape, _leaves)
