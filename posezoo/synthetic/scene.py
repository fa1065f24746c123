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
from .body import HEAD_RADII, Body, sample_body
from .figure import PARTS, Outfit, paint_body
from .stage import Stage
from .surroundings import develop, paint_background, paint_occluder

__all__ = ["Scene", "annotate", "render_scene"]

Array = NDArray[np.float64]

_HEAD_POINTS = ("nose", "eye", "ear", "top")
_MIN_SHARE = 0.3  # of a person in sight, below which nobody would annotate keypoints


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
    heads = [_head_box(b, xy, float(h)) for b, xy, h in zip(bodies, positions, heights)]
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


def annotate(
    body: Body, pelvis: Array, height: float, labels: NDArray[np.int32], index: int,
    skeleton: Skeleton,
) -> tuple[Array, Array, float] | None:  # fmt: skip
    """Return keypoints (K, 3), the box xyxy and the area of what is in sight, or None.

    Args:
        body: as painted with its pelvis at (x, y) and so many pixels per body height.
        labels: (H, W) what is in front at each pixel.
        index: which body it is, counted from 0.
        skeleton: which keypoints.
    """
    first = 1 + index * len(PARTS)
    own = (labels >= first) & (labels < first + len(PARTS))
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    area = float(own.sum())
    # a body of one part's depth covers about a tenth of its height squared
    if area < max(60.0, _MIN_SHARE * 0.09 * height**2):
        return None
    box = np.array([columns[0], rows[0], columns[-1] + 1.0, rows[-1] + 1.0])
    keypoints = np.zeros((skeleton.num_keypoints, 3))
    for k, name in enumerate(skeleton.keypoint_names):
        x, y = pelvis + body.points[name][:2] * height
        if not (box[0] - 2 <= x <= box[2] + 2 and box[1] - 2 <= y <= box[3] + 2):
            continue  # outside the picture, or with a part of which nothing is in sight
        if not (0 <= x < labels.shape[1] and 0 <= y < labels.shape[0]):
            continue
        if _faces_away(body, name):
            continue
        front = int(labels[int(y + 0.5) if y + 0.5 < labels.shape[0] else -1,
                           int(x + 0.5) if x + 0.5 < labels.shape[1] else -1]) - first  # fmt: skip
        seen = 0 <= front < len(PARTS) and PARTS[front] in _carriers(name)
        keypoints[k] = x, y, 2 if seen else 1
    return (keypoints, box, area) if keypoints[:, 2].any() else None


def _head_box(body: Body, pelvis: Array, height: float) -> Array:
    """Return the box xyxy around the ellipsoid of the head."""
    center = pelvis + body.head[:2] * height
    reach = np.linalg.norm(body.head_axes * HEAD_RADII, axis=1)[:2] * height
    return np.concatenate([center - reach, center + reach])


def _faces_away(body: Body, name: str) -> bool:
    """Tell whether a point of the head is on its far side."""
    if name.startswith("face-") or name.split("_")[-1] in ("nose", "eye", "ear"):
        limit = 0.03 if name.endswith("ear") else 0.012
        return bool(body.points[name][2] - body.head[2] > limit)
    return False


def _carriers(name: str) -> tuple[str, ...]:
    """Return the parts on which a keypoint sits."""
    side, _, joint = name.partition("_")
    if name.startswith("face-") or name.split("_")[-1] in _HEAD_POINTS:
        return ("head",)
    parts = {
        "hip": ("torso", f"{side}_thigh"),
        "knee": (f"{side}_thigh", f"{side}_shin"),
        "ankle": (f"{side}_shin", f"{side}_foot"),
        "shoulder": ("torso", f"{side}_upper_arm"),
        "elbow": (f"{side}_upper_arm", f"{side}_forearm"),
        "wrist": (f"{side}_forearm", f"{side}_hand"),
        "heel": (f"{side}_foot", f"{side}_shin"),
        "big_toe": (f"{side}_foot",),
        "small_toe": (f"{side}_foot",),
        "neck": ("torso", "head"),
    }
    if side in ("left", "right"):
        return parts.get(joint, (f"{side}_hand", f"{side}_forearm"))
    return ("torso", "head")
