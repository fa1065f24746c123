"""Paint a posed body part by part: clothes, skin, face."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .body import HEAD_RADII, Body
from .stage import Color, Stage, random_color, shade

__all__ = ["PARTS", "Outfit", "paint_body"]

Array = NDArray[np.float64]

# Every part that is painted on its own; a keypoint is in sight where its own part is in front
PARTS = ("torso", "head", *(
    f"{side}_{part}" for side in ("left", "right")
    for part in ("thigh", "shin", "foot", "upper_arm", "forearm", "hand")
))  # fmt: skip
_SKINS: tuple[Color, ...] = (
    (255, 219, 190), (241, 194, 155), (224, 172, 128), (198, 134, 92), (141, 85, 54), (92, 58, 40),
)  # fmt: skip
_HAIRS: tuple[Color, ...] = (
    (30, 24, 22), (60, 42, 30), (105, 70, 40), (170, 120, 60), (220, 190, 120), (150, 150, 155),
    (150, 60, 35),
)  # fmt: skip


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


def paint_body(
    stage: Stage, body: Body, outfit: Outfit, pelvis: Array, height: float, index: int
) -> None:
    """Paint a body from back to front. Its parts are labelled 1 + PARTS, those of the next body
    further on.

    Args:
        stage: where to.
        body: what.
        outfit: its looks.
        pelvis: (x, y) of its pelvis in pixels.
        height: pixels per body height.
        index: which body it is, counted from 0, for the labels.
    """
    xy = {name: pelvis + point[:2] * height for name, point in body.points.items()}
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
            _paint_head(stage, body, outfit, pelvis, height)
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


def _paint_head(stage: Stage, body: Body, outfit: Outfit, pelvis: Array, height: float) -> None:
    axes = body.head_axes

    def at(x: float, y: float, z: float) -> Array:  # in radii of the head
        point: Array = body.head + axes @ (np.array([x, y, z]) * HEAD_RADII)
        return pelvis + point[:2] * height

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
    outline: Array = (np.linalg.cholesky(spread @ spread.T) @ circle).T * scale
    return outline


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
