"""Results made by hand, and a rendered film."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from posezoo.results import PoseResult
from posezoo.skeletons import COCO_17
from posezoo.synthetic import noisy_poses, render_film

POSE = np.random.default_rng(0).uniform(0, 1, (17, 2)) * [40, 100]


def people(
    *corners: tuple[float, float],
    ids: list[int] | None = None,
    scores: NDArray[np.float64] | float = 0.9,
    shift: NDArray[np.float64] | float = 0.0,
) -> PoseResult:
    """Persons of 40 x 100 pixels in the same pose, by their upper left corners."""
    at = np.array(corners, np.float64).reshape(-1, 2)
    return PoseResult(
        keypoints=POSE + at[:, None] + shift,
        keypoint_scores=np.broadcast_to(scores, (len(at), 17)),
        bboxes=np.concatenate([at, at + [40, 100]], axis=1),
        bbox_scores=np.ones(len(at)),
        skeleton=COCO_17,
        image_size=(480, 640),
        ids=None if ids is None else np.array(ids),
    )


@cache
def film() -> list[tuple[PoseResult, NDArray[np.int64]]]:
    """300 frames of three people who cross, as a network would see them, and who is who."""
    rng = np.random.default_rng(1)
    return [noisy_poses(frame, rng) for frame in render_film(11, size=(135, 240))]
