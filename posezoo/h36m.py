"""The 17 joints of Human3.6M, which networks that lift poses into space take as input.

Order and names are those of VideoPose3D (arXiv:1811.11742), MotionBERT and their successors. The
formulas are those with which MotionBERT (arXiv:2210.06551) makes such poses of COCO's, except that
a score is the smallest of those that a joint is made of, not their mean: a joint between two
points is no better than the worse of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .skeletons import Skeleton

__all__ = ["H36M_17", "to_h36m17"]

_HIPS = ("left_hip", "right_hip")
_SHOULDERS = ("left_shoulder", "right_shoulder")

# joint -> the COCO keypoints whose mean it is. The spine, half way from pelvis to thorax, is the
# mean of all four; Human3.6M's own "neck" is at the nose, its "head" at the top of the head, for
# which COCO has no better than the middle of the eyes.
_MEANS = {
    "pelvis": _HIPS,
    "right_hip": ("right_hip",),
    "right_knee": ("right_knee",),
    "right_ankle": ("right_ankle",),
    "left_hip": ("left_hip",),
    "left_knee": ("left_knee",),
    "left_ankle": ("left_ankle",),
    "spine": (*_HIPS, *_SHOULDERS),
    "thorax": _SHOULDERS,
    "nose": ("nose",),
    "head": ("left_eye", "right_eye"),
    "left_shoulder": ("left_shoulder",),
    "left_elbow": ("left_elbow",),
    "left_wrist": ("left_wrist",),
    "right_shoulder": ("right_shoulder",),
    "right_elbow": ("right_elbow",),
    "right_wrist": ("right_wrist",),
}
_NAMES = tuple(_MEANS)

H36M_17 = Skeleton(
    name="h36m",
    keypoint_names=_NAMES,
    flip_pairs=((4, 1), (5, 2), (6, 3), (11, 14), (12, 15), (13, 16)),
    # Human3.6M is not scored by OKS; these are COCO's of the nearest keypoint
    sigmas=(
        0.107, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.107, 0.079, 0.026, 0.026,
        0.079, 0.072, 0.062, 0.079, 0.072, 0.062,
    ),
    limbs=(
        (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10),
        (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
    ),
    parts={"body": (0, 17)},
)  # fmt: skip


def to_h36m17(
    keypoints: NDArray[Any], scores: NDArray[Any], skeleton: Skeleton
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn poses `(N, K, 2)` and scores `(N, K)` into `(N, 17, 2)` and `(N, 17)` of `H36M_17`.

    Raises:
        InputError: the skeleton lacks a keypoint that is needed: it is not COCO's or whole body.
    """
    index = {name: i for i, name in enumerate(skeleton.keypoint_names)}
    missing = sorted({name for names in _MEANS.values() for name in names} - set(index))
    if missing:
        raise InputError(
            f"skeleton {skeleton.name!r} has no {', '.join(missing)}; Human3.6M's joints are made "
            "of the keypoints of COCO or COCO-WholeBody"
        )
    groups = [[index[name] for name in names] for names in _MEANS.values()]
    points = [keypoints[:, group].mean(axis=1, dtype=np.float64) for group in groups]
    return (
        np.stack(points, axis=1).astype(np.float32),  # (N, 17, 2)
        np.stack([scores[:, group].min(axis=1) for group in groups], axis=1).astype(np.float32),
    )
