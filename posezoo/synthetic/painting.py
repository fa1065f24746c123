"""Paint posed bodies with Pillow: clothes, skin, shading, faces, and who covers whom.

Besides the picture a second one of the same size says which part of which person, or which
thing, is in front at each pixel; visibility, boxes and areas are read from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .body import HEAD_RADII, Body

__all__ = ["PARTS", "Outfit", "Stage", "paint_background", "paint_body", "paint_thing"]

Array = NDArray[np.float64]
Color = tuple[int, int, int]

# Every part that is painted on its own; a keypoint is in sight where its own part is in front
PARTS = ("torso", "head", *(
    f"{side}_{part}" for side in ("left", "right")
    for part in ("thigh", "shin", "foot", "upper_arm", "forearm", "hand")
))  # fmt: skip
_ZOOM = 2  # painted larger and shrunk, for smooth edges
_SKINS: tuple[Color, ...] = (
    (255, 219, 190), (241, 194, 155), (224, 172, 128), (198, 134, 92), (141, 85, 54), (92, 58, 40),
)  # fmt: skip
_HAIRS: tuple[Color, ...] = (
    (30, 24, 22), (60, 42, 30), (105, 70, 40), (170, 120, 60), (220, 190, 120), (150, 150, 155),
    (150, 60, 35),
)  # fmt: skip


class Stage:
    """A canvas of size (H, W), painted from back to front, and what is in front where.

    `labels` counts 1 + PARTS of the first body painted, then those of the next; things that are
    no body are 0.
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


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """What one person looks like."""

    skin: Color
    hair: Color
    shirt: Color
    pants: Color
    shoes: Color
    long_sleeves: bool
    long_pants: bool
    skirt: bool
    long_hair: bool
    stripes: bool
    girth: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Outfit:
        """Draw an outfit."""
        skin = _SKINS[rng.integers(len(_SKINS))]
        return cls(
            skin=shade(skin, rng.uniform(0.92, 1.05)),
            hair=_HAIRS[rng.integers(len(_HAIRS))],
            shirt=random_color(rng),
            pants=random_color(rng),
            shoes=random_color(rng),
            long_sleeves=bool(rng.random() < 0.5),
            long_pants=bool(rng.random() < 0.65),
            skirt=bool(rng.random() < 0.15),
            long_hair=bool(rng.random() < 0.4),
            stripes=bool(rng.random() < 0.3),
            girth=float(rng.uniform(0.85, 1.3)),
        )


def random_color(rng: np.random.Generator) -> Color:
    """Draw a colour: mostly muted, some bright, some nearly black or white."""
    base = rng.uniform(20, 235)
    r, g, b = np.clip(base + rng.normal(0, rng.choice([8, 30, 70]), 3), 5, 250).astype(int)
    return int(r), int(g), int(b)


# ------------------------------------------------------------------------------- bodies


def paint_body(
    stage: Stage, body: Body, outfit: Outfit, place: Array, height: float, index: int
) -> None:
    """Paint a body whose pelvis is at `place` (x, y), part by part from back to front.

    Args:
        height: pixels per body height.
        index: which body it is, counted from 0, for the labels.
    """
    xy = {name: place + point[:2] * height for name, point in body.points.items()}
    depth = {name: point[2] for name, point in body.points.items()}
    order = [("torso", (depth["pelvis"] + depth["thorax"]) / 2), ("head", float(body.head[2]))]
    for side in ("left", "right"):
        for part, (a, b) in _ENDS.items():
            # what is level with the trunk is painted on it
            order.append((f"{side}_{part}", _depth(depth, f"{side}_{a}", f"{side}_{b}") - 0.01))
    for part, _ in sorted(order, key=lambda item: -item[1]):
        stage.label = 1 + index * len(PARTS) + PARTS.index(part)
        if part == "torso":
            _paint_torso(stage, xy, outfit, height)
        elif part == "head":
            _paint_head(stage, body, outfit, place, height)
        else:
            _paint_limb(stage, xy, outfit, height, *part.split("_", 1))
    stage.label = 0


_ENDS = {
    "thigh": ("hip", "knee"),
    "shin": ("knee", "ankle"),
    "foot": ("heel", "big_toe"),
    "upper_arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
    "hand": ("wrist", "middle_finger1"),
}
_RADII = {
    "thigh": (0.046, 0.032),
    "shin": (0.031, 0.019),
    "foot": (0.019, 0.016),
    "upper_arm": (0.028, 0.021),
    "forearm": (0.021, 0.014),
    "hand": (0.013, 0.015),
}


def _depth(depth: dict[str, float], a: str, b: str) -> float:
    return (depth[a] + depth[b]) / 2


def _paint_limb(
    stage: Stage, xy: dict[str, Array], outfit: Outfit, height: float, side: str, part: str
) -> None:
    first, last = _ENDS[part]
    a, b = xy[f"{side}_{first}"], xy[f"{side}_{last}"]
    thick = height * (outfit.girth if part not in ("hand", "foot") else 1.0)
    radii = (_RADII[part][0] * thick, _RADII[part][1] * thick)
    colors = {"thigh": outfit.pants, "foot": outfit.shoes, "upper_arm": outfit.shirt}
    if outfit.long_pants:
        colors["shin"] = outfit.pants
    if outfit.long_sleeves:
        colors["forearm"] = outfit.shirt
    if part == "hand":
        for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger"):
            ends = [xy[f"{side}_{finger}{joint}"] for joint in (1, 4)]
            stage.limb(ends[0], ends[1], (0.006 * height,) * 2, outfit.skin)
    stage.limb(a, b, radii, colors.get(part, outfit.skin))
    if part == "upper_arm" and not outfit.long_sleeves:  # bare from half way down
        middle = a + 0.6 * (b - a)
        stage.limb(middle, b, (radii[1] * 1.02, radii[1]), outfit.skin)
    if part == "thigh" and not (outfit.long_pants or outfit.skirt):
        stage.limb(a + 0.75 * (b - a), b, (radii[1] * 1.05, radii[1]), outfit.skin)


def _paint_torso(stage: Stage, xy: dict[str, Array], outfit: Outfit, height: float) -> None:
    thick = height * outfit.girth
    left, right = xy["left_shoulder"], xy["right_shoulder"]
    hips = (xy["left_hip"], xy["right_hip"])
    neck = xy["upper_neck"]
    stage.limb(xy["thorax"], neck, (0.03 * height, 0.027 * height), shade(outfit.skin, 0.9))
    stage.limb(*hips, (0.05 * thick, 0.05 * thick), outfit.pants)
    # the trunk, its sides drawn in at the waist
    chest = [p + 0.12 * (q - p) for p, q in ((left, hips[0]), (right, hips[1]))]
    waist = [p + 0.7 * (q - p) for p, q in ((left, hips[0]), (right, hips[1]))]
    stage.limb(chest[0], waist[0], (0.042 * thick, 0.04 * thick), outfit.shirt)
    stage.limb(chest[1], waist[1], (0.042 * thick, 0.04 * thick), outfit.shirt)
    stage.limb(left, right, (0.03 * thick, 0.03 * thick), outfit.shirt)
    middle = (waist[0] + waist[1]) / 2
    stage.limb(xy["thorax"], middle, (0.062 * thick, 0.056 * thick), outfit.shirt)
    stage.polygon(np.array([left, right, waist[1], waist[0]]), outfit.shirt)
    for t in (0.25, 0.5, 0.75) if outfit.stripes else ():
        ends = np.array([left + t * (waist[0] - left), right + t * (waist[1] - right)])
        stage.stroke(ends, 0.02 * height, outfit.pants)
    if outfit.skirt:
        hem = [h + 0.75 * (xy[f"{s}_knee"] - h) for s, h in zip(("left", "right"), hips)]
        out = 0.04 * thick * np.sign(hem[0] - hem[1])
        stage.polygon(np.array([waist[0], waist[1], hem[1] - out, hem[0] + out]), outfit.pants)


def _paint_head(stage: Stage, body: Body, outfit: Outfit, place: Array, height: float) -> None:
    axes = body.head_axes

    def at(x: float, y: float, z: float) -> Array:  # in radii of the head
        return place + (body.head + axes @ (np.array([x, y, z]) * HEAD_RADII))[:2] * height

    def ball(center: Array, scale: float, color: Color) -> None:
        stage.polygon(center + _outline(axes, height * scale), color)

    away = axes[2, 2]  # 1 facing the camera, -1 seen from behind
    hair = at(0.0, -0.16, 0.22)
    if outfit.long_hair and away > 0:
        stage.limb(at(0, 0, 0.5), at(0, 1.2, 0.6), (0.06 * height, 0.05 * height), outfit.hair)
    if away > -0.2:
        ball(hair, 1.08, outfit.hair)
        ball(at(0.0, 0.06, -0.03), 0.97, shade(outfit.skin, 0.86))
        ball(at(0.0, 0.08, -0.12), 0.84, outfit.skin)
        _paint_face(stage, at, outfit, height, away)
    else:
        ball(at(0.0, 0.05, 0.0), 0.97, shade(outfit.skin, 0.86))
        ball(hair, 1.02, outfit.hair)
        if outfit.long_hair:
            stage.limb(at(0, 0, 0.5), at(0, 1.3, 0.6), (0.06 * height, 0.05 * height), outfit.hair)
    for side in (1.0, -1.0):
        if axes[2, 0] * side < 0.35:  # an ear that is not on the far side
            ear, radius = at(side, 0.0, 0.12), 0.012 * height
            stage.limb(ear, ear + [0, radius], (radius, radius * 0.8), shade(outfit.skin, 0.92))


def _outline(axes: Array, scale: float) -> Array:
    """Return the outline (24, 2) of the head's ellipsoid as the camera sees it."""
    spread = (axes * HEAD_RADII)[:2]
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return (np.linalg.cholesky(spread @ spread.T) @ circle).T * scale


def _paint_face(
    stage: Stage,
    at: Callable[[float, float, float], Array],
    outfit: Outfit,
    height: float,
    away: float,
) -> None:
    if away < 0.15:
        return
    dark, width = shade(outfit.skin, 0.55), 0.008 * height
    for side in (1.0, -1.0):
        eye = at(0.42 * side, -0.13, -0.9)
        stage.stroke(np.array([eye - [width, 0], eye + [width, 0]]), width * 1.6, (245, 245, 245))
        stage.stroke(np.array([eye - [width / 2, 0], eye + [width / 2, 0]]), width, (35, 28, 25))
        brow = [at(0.2 * side, -0.36, -0.9), at(0.65 * side, -0.36, -0.7)]
        stage.stroke(np.array(brow), width * 0.7, outfit.hair)
    stage.stroke(np.array([at(0, -0.05, -1.0), at(0, 0.2, -1.18)]), width * 0.8, dark)
    mouth = [at(-0.3, 0.52, -0.8), at(0, 0.55, -0.84), at(0.3, 0.52, -0.8)]
    stage.stroke(np.array(mouth), width, (150, 60, 60))


# ------------------------------------------------------------------------------- surroundings


def paint_background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Paint a textured place with clutter, (H, W)."""
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
        paint_thing(rng, pen, size)
    return canvas.filter(ImageFilter.BoxBlur(float(rng.uniform(0, 1.5))))


def paint_thing(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
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
