"""A rendered film: people who move, cross, leave and come back, with exact keypoints and ids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..results import PoseResult
from ..skeletons import COCO_17, Skeleton
from .body import Body, sample_body
from .figure import Outfit, paint_body
from .scene import annotate
from .stage import Stage
from .surroundings import paint_background

__all__ = ["FilmFrame", "noisy_poses", "render_film"]

Array = NDArray[np.float64]

_STEP = 24  # frames from one key pose of a person to the next


@dataclass(frozen=True, kw_only=True)
class FilmFrame:
    """A picture, uint8 RGB (H, W, 3), and the `P` people in sight in it.

    `ids (P,)` are their numbers from 0, the same in all frames; `keypoints (P, K, 3)` x, y in
    image pixels and v: 2 in sight, 1 hidden, 0 outside the picture or turned away (then x = y =
    0); `bboxes (P, 4)` xyxy around what is in sight.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.int64]
    keypoints: Array
    bboxes: Array


def render_film(
    seed: int | tuple[int, ...],
    frames: int = 300,
    size: tuple[int, int] = (270, 480),
    people: int = 3,
    skeleton: Skeleton = COCO_17,
) -> Iterator[FilmFrame]:
    """Render a film; the same arguments give the same bytes.

    The people walk from one side to the other and back, each at its own speed, so that all of
    them cross; the first walks so far that it leaves the picture and comes back. The nearest are
    painted last. A film has 25 frames a second if somebody asks.

    Args:
        seed: whatever `numpy.random.default_rng` takes.
        frames: how many.
        size: (H, W) in pixels.
        people: how many there are; those with too little in sight are not in a frame.
        skeleton: which keypoints; their names must be those of COCO, COCO-WholeBody or MPII.

    Raises:
        InputError: a size under 32 pixels, no people or no frames.
    """
    if min(size) < 32 or people < 1 or frames < 1:
        raise InputError(
            f"cannot render {frames} frames of {people} people on {size[0]} x {size[1]} pixels "
            "(H x W); give at least 1 frame, 1 person and 32 x 32"
        )
    rng = np.random.default_rng(seed)
    background = paint_background(rng, size)
    keys = [[sample_body(rng) for _ in range(frames // _STEP + 2)] for _ in range(people)]
    outfits = [Outfit.sample(rng) for _ in range(people)]
    heights = np.sort(rng.uniform(0.6, 0.85, people)) * size[0]
    phases = rng.uniform(0, 1) + np.arange(people) / people
    periods = rng.uniform(0.4, 0.8, people) * max(frames, 100)
    for frame in range(frames):
        stage = Stage(background, light=(-0.6, -0.8))
        bodies, pelvises = [], []
        for i in range(people):
            bodies.append(_between(keys[i][frame // _STEP], keys[i][frame // _STEP + 1], frame))
            swing = math.cos(2 * math.pi * (frame / periods[i] + phases[i]))
            reach = 0.75 if i == 0 else 0.38  # of the width; above 0.5 it leaves the picture
            x, y = (0.5 + reach * swing) * size[1], 0.95 * size[0] - 0.5 * heights[i]
            pelvises.append(np.array([x, y]))
            paint_body(stage, bodies[i], outfits[i], pelvises[i], float(heights[i]), i)
        picture, labels = stage.finish()
        rows = [
            (i, found)
            for i in range(people)
            if (found := annotate(bodies[i], pelvises[i], float(heights[i]), labels, i, skeleton))
        ]
        yield FilmFrame(
            image=np.asarray(picture).copy(),
            ids=np.array([i for i, _ in rows], np.int64),
            keypoints=np.array([r[0] for _, r in rows]).reshape(-1, skeleton.num_keypoints, 3),
            bboxes=np.array([r[1] for _, r in rows]).reshape(-1, 4),
        )


def _between(first: Body, second: Body, frame: int) -> Body:
    """Return the body on its way between two key poses, slow at both."""
    share = 0.5 - 0.5 * math.cos(math.pi * (frame % _STEP) / _STEP)
    points = {n: (1 - share) * p + share * second.points[n] for n, p in first.points.items()}
    u, _, v = np.linalg.svd((1 - share) * first.head_axes + share * second.head_axes)
    return Body(
        points=points,
        head=(1 - share) * first.head + share * second.head,
        head_axes=u @ v,
    )


def noisy_poses(
    frame: FilmFrame, rng: np.random.Generator, skeleton: Skeleton = COCO_17
) -> tuple[PoseResult, NDArray[np.int64]]:
    """Return a frame's people as a detector and a pose network would find them, and their ids.

    Keypoints jitter by 0.8% of the person's size, hidden ones by three times that and with low
    scores, and one in fifty is far off. Boxes jitter by 2%. A person is missed in 3% of the
    frames, more often the more of it is hidden; when another one is in front, in half of the
    frames the pose found is that of the other. The order is random.
    """
    size = np.sqrt(np.prod(frame.bboxes[:, 2:] - frame.bboxes[:, :2], axis=1))  # (P,)
    flags = frame.keypoints[..., 2]
    in_sight = (flags == 2).mean(axis=1)  # (P,)
    poses = frame.keypoints[..., :2].copy()
    poses[flags == 0] = rng.uniform(0, frame.image.shape[1::-1], ((flags == 0).sum(), 2))
    for i in range(len(poses) - 1):  # the next ones are nearer
        overlap = _overlap(frame.bboxes[i], frame.bboxes[i + 1 :])
        if overlap.max() > 0.6 and in_sight[i] < 0.5 and rng.random() < 0.5:
            poses[i] = frame.keypoints[i + 1 + overlap.argmax(), :, :2]
    spread = np.where(flags == 2, 0.008, 0.024) * size[:, None]
    spread = np.where(rng.random(flags.shape) < 0.02, 0.08 * size[:, None], spread)
    scores = np.select([flags == 2, flags == 1], [0.9, 0.45], 0.08)
    seen = rng.random(len(poses)) > 0.03 + 0.3 * (in_sight < 0.3)
    order = rng.permutation(len(poses))
    order = order[seen[order]]
    result = PoseResult(
        keypoints=(poses + rng.normal(0, 1, poses.shape) * spread[..., None])[order],
        keypoint_scores=np.clip(scores + rng.normal(0, 0.06, scores.shape), 0.01, 1)[order],
        bboxes=(frame.bboxes + rng.normal(0, 0.02, (len(poses), 4)) * size[:, None])[order],
        bbox_scores=np.clip(0.6 + 0.4 * in_sight - rng.exponential(0.05, len(poses)), 0.5, 1)[
            order
        ],
        skeleton=skeleton,
        image_size=(frame.image.shape[0], frame.image.shape[1]),
    )
    return result, frame.ids[order]


def _overlap(box: Array, others: Array) -> Array:
    """Return the share of a box (4,) that each of the others (P, 4) covers."""
    first, last = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared: Array = np.prod(np.maximum(last - first, 0), axis=1)
    return shared / float(np.prod(box[2:] - box[:2]))
