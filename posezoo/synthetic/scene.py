"""Rendered people with exact keypoints: one picture from a seed, without a network.

Articulated bodies with clothes, shading, occluders and textured backgrounds. They replace photos
where there are none; numbers on them compare with no published number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..skeletons import COCO_17, Skeleton
from .annotate import annotate, head_box
from .body import Body, sample_body
from .figure import Outfit, paint_body
from .stage import Stage
from .surroundings import develop, paint_background, paint_occluder

__all__ = ["Scene", "render_scene"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture, uint8 RGB (H, W, 3), and its `P` people, nearest last.

    `keypoints (P, K, 3)` hold x, y in image pixels and v: 2 in sight, 1 hidden, 0 not labelled
    (then x = y = 0). `bboxes (P, 4)` are xyxy around what is in sight, `areas (P,)` its pixels;
    `head_bboxes (P, 4)` go around the head, hair aside, in sight or not.
    """

    image: NDArray[np.uint8]
    keypoints: Array
    bboxes: Array
    areas: Array
    head_bboxes: Array


def render_scene(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (256, 256),
    people: int | None = None,
    skeleton: Skeleton = COCO_17,
) -> Scene:
    """Render one picture; the same arguments give the same bytes.

    Args:
        seed: whatever `numpy.random.default_rng` takes.
        size: (H, W) in pixels.
        people: how many are painted; None draws 1 to 3. Those with too little in sight are
            left out of the annotations.
        skeleton: which keypoints; their names must be those of COCO, COCO-WholeBody or MPII.

    Raises:
        InputError: a size under 32 pixels, no people, or a keypoint the body does not have.
    """
    if min(size) < 32 or (people is not None and people < 1):
        raise InputError(
            f"cannot render {people} people on {size[0]} x {size[1]} pixels (H x W); "
            "give at least 1 person and 32 x 32"
        )
    rng = np.random.default_rng(seed)
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2])) if people is None else people
    angle = rng.uniform(-2.6, -0.5)
    light = (float(np.cos(angle)), float(np.sin(angle)))
    stage = Stage(paint_background(rng, size), light)
    bodies = [sample_body(rng) for _ in range(count)]
    _check_names(skeleton, bodies[0])
    heights = np.sort(rng.uniform(0.55, 1.05, count) * size[0] * (0.92 if count == 1 else 0.8))
    columns = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    positions = []
    for i, body in enumerate(bodies):
        positions.append(_position(rng, body, float(heights[i]), float(columns[i]), size))
        paint_body(stage, body, Outfit.sample(rng), positions[i], float(heights[i]), i)
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1])):
        paint_occluder(rng, stage)
    picture, labels = stage.finish()
    found = [
        annotate(body, positions[i], float(heights[i]), labels, i, skeleton)
        for i, body in enumerate(bodies)
    ]
    heads = [head_box(b, xy, float(h)) for b, xy, h in zip(bodies, positions, heights)]
    kept = [(*row, head) for row, head in zip(found, heads) if row is not None]
    return Scene(
        image=develop(rng, picture),
        keypoints=np.array([row[0] for row in kept]).reshape(-1, skeleton.num_keypoints, 3),
        bboxes=np.array([row[1] for row in kept]).reshape(-1, 4),
        areas=np.array([row[2] for row in kept]),
        head_bboxes=np.array([row[3] for row in kept]).reshape(-1, 4),
    )


def _check_names(skeleton: Skeleton, body: Body) -> None:
    for name in skeleton.keypoint_names:
        if name not in body.points:
            raise InputError(
                f"rendered bodies have no keypoint {name!r} (skeleton {skeleton.name!r}); use the "
                "names of COCO, COCO-WholeBody or MPII"
            )


def _position(
    rng: np.random.Generator, body: Body, height: float, column: float, size: tuple[int, int]
) -> Array:
    """Return where the pelvis (x, y) goes: mostly inside the picture, now and then cut off."""
    xy = np.array([point[:2] for point in body.points.values()]) * height
    low, high = xy.min(axis=0), xy.max(axis=0)
    x = column * size[1] - (low[0] + high[0]) / 2
    bottom = rng.uniform(0.9, 1.0) if rng.random() < 0.85 else rng.uniform(1.0, 1.35)
    y = bottom * size[0] - high[1] - 0.02 * height
    return np.array([x, max(y, 0.03 * size[0] - low[1]) if rng.random() < 0.9 else y])
