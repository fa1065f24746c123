"""What an annotator would mark on a painted body: keypoints, box, area, head box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..skeletons import Skeleton
from .body import Body
from .face import HEAD_RADII
from .figure import PARTS

__all__ = ["annotate", "head_box"]

Array = NDArray[np.float64]

_HEAD_POINTS = ("nose", "eye", "ear", "top")
_MIN_SHARE = 0.3  # of a person in sight, below which nobody would annotate keypoints


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


def head_box(body: Body, pelvis: Array, height: float) -> Array:
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
