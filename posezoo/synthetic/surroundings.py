"""What is around the people: a textured background with clutter, things in front, the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .stage import Stage, random_color

__all__ = ["develop", "paint_background", "paint_occluder"]


def paint_background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Paint a textured scene of size (H, W), with clutter."""
    height, width = size
    cells = int(rng.integers(2, 9))
    coarse = rng.normal(0, rng.uniform(5, 28), (cells, cells, 3))
    image = np.zeros((height, width, 3), np.float32)
    top, bottom = np.array(random_color(rng)), np.array(random_color(rng))
    horizon = int(height * rng.uniform(0.35, 0.85))
    image[:horizon], image[horizon:] = top, bottom
    for amount, grid in ((1.0, coarse), (0.5, rng.normal(0, rng.uniform(2, 24), (40, 40, 3)))):
        bytes_ = np.clip(128 + grid, 0, 255).astype(np.uint8)
        wave = Image.fromarray(bytes_).resize((width, height), Image.Resampling.BICUBIC)
        image += amount * (np.asarray(wave, np.float32) - 128)
    canvas = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(2, 14)):
        _paint_thing(rng, pen, size)
    return canvas.filter(ImageFilter.BoxBlur(float(rng.uniform(0, 1.5))))


def _paint_thing(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Paint a box, a disc, a bar that may look like a limb, or a fan of lines."""
    height, width = size
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    w, h = rng.uniform(0.03, 0.25, 2) * [width, height]
    color, kind = random_color(rng), rng.integers(4)
    if kind == 0:
        pen.rectangle((x, y, x + w, y + h), fill=color)
    elif kind == 1:
        pen.ellipse((x, y, x + w, y + h), fill=color)
    elif kind == 2:
        end = (x + rng.normal(0, 0.2) * width, y + rng.normal(0, 0.2) * height)
        pen.line([(x, y), end], fill=color, width=int(rng.integers(2, 3 + height // 20)))
    else:
        for i in range(int(rng.integers(3, 8))):
            shift = i * max(3.0, 0.03 * width)
            pen.line([(x + shift, y), (x + shift, y + h)], fill=color, width=2)


def paint_occluder(rng: np.random.Generator, stage: Stage) -> None:
    """Paint a post, board or ball in front of everything."""
    height, width = stage.size
    center = rng.uniform([0, 0.3 * height], [width, height])
    reach = rng.normal(0, 0.12, 2) * [width, height]
    radius = float(rng.uniform(0.015, 0.06) * height)
    stage.limb(center - reach, center + reach, (radius, radius), random_color(rng))


def develop(rng: np.random.Generator, picture: Image.Image) -> NDArray[np.uint8]:
    """Make a photo of a painting: blur, exposure, tint, noise."""
    blurred = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.9))))
    pixels = np.asarray(blurred, np.float32)
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, 8)
    return np.clip(pixels * gain.astype(np.float32) + noise, 0, 255).astype(np.uint8)
