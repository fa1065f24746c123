"""The canvas: a picture and, of the same size, which part of whom is in front at each pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["Color", "Stage", "random_color", "shade"]

Array = NDArray[np.float64]
Color = tuple[int, int, int]

_ZOOM = 2  # painted larger and shrunk, for smooth edges


class Stage:
    """A canvas of size (H, W), painted from back to front, and what is in front where.

    Args:
        background: the picture to paint on.
        light: direction (x, y) in which surfaces get lighter.

    Attributes:
        label: what is written into the second picture by all that is painted, 0 for things that
            are no body.
    """

    def __init__(self, background: Image.Image, light: tuple[float, float]) -> None:
        self.size = (background.height, background.width)
        larger = (background.width * _ZOOM, background.height * _ZOOM)
        self.image = background.resize(larger, Image.Resampling.NEAREST)
        self.labels = Image.new("I", background.size)
        self.pen = ImageDraw.Draw(self.image)
        self.label_pen = ImageDraw.Draw(self.labels)
        self.light = light
        self.label = 0

    def limb(self, a: Array, b: Array, radii: tuple[float, float], color: Color) -> None:
        """Paint a tapered limb between two points, shaded across, in pixels."""
        self._capsule(self.label_pen, a, b, radii, self.label, 1.0)
        if max(radii) < 1.5:
            self._capsule(self.pen, a, b, radii, color, _ZOOM)
            return
        for shrink, shift, factor in ((1.0, 0.0, 0.72), (0.8, 0.16, 0.9), (0.5, 0.3, 1.08)):
            move = np.array(self.light) * min(radii) * shift
            thinner = (radii[0] * shrink, radii[1] * shrink)
            self._capsule(self.pen, a + move, b + move, thinner, shade(color, factor), _ZOOM)

    def polygon(self, points: Array, color: Color) -> None:
        """Fill a polygon (N, 2) in pixels."""
        self.pen.polygon([tuple(p) for p in (points * _ZOOM).tolist()], fill=color)
        self.label_pen.polygon([tuple(p) for p in points.tolist()], fill=self.label)

    def stroke(self, points: Array, width: float, color: Color) -> None:
        """Paint a line on top of what is there; it belongs to the part below it."""
        flat = [tuple(p) for p in (points * _ZOOM).tolist()]
        self.pen.line(flat, fill=color, width=max(1, round(width * _ZOOM)))

    def finish(self) -> tuple[Image.Image, NDArray[np.int32]]:
        """Return the picture at its own size and the labels (H, W)."""
        return self.image.reduce(_ZOOM), np.asarray(self.labels)

    @staticmethod
    def _capsule(
        pen: ImageDraw.ImageDraw, a: Array, b: Array, radii: tuple[float, float],
        fill: Color | int, zoom: float,
    ) -> None:  # fmt: skip
        (ax, ay), (bx, by) = (a * zoom).tolist(), (b * zoom).tolist()
        ra, rb = radii[0] * zoom, radii[1] * zoom
        pen.ellipse((ax - ra, ay - ra, ax + ra, ay + ra), fill=fill)
        pen.ellipse((bx - rb, by - rb, bx + rb, by + rb), fill=fill)
        length = math.hypot(bx - ax, by - ay)
        if length > 0.1:
            nx, ny = (ay - by) / length, (bx - ax) / length
            pen.polygon(
                [(ax + nx * ra, ay + ny * ra), (bx + nx * rb, by + ny * rb),
                 (bx - nx * rb, by - ny * rb), (ax - nx * ra, ay - ny * ra)],
                fill=fill,
            )  # fmt: skip


def shade(color: Color, factor: float) -> Color:
    """Make a colour lighter or darker."""
    r, g, b = (min(255, round(c * factor)) for c in color)
    return r, g, b


def random_color(rng: np.random.Generator) -> Color:
    """Draw a colour: mostly muted, some bright, some nearly black or white."""
    base = rng.uniform(20, 235)
    r, g, b = np.clip(base + rng.normal(0, rng.choice([8, 30, 70]), 3), 5, 250).astype(int)
    return int(r), int(g), int(b)
