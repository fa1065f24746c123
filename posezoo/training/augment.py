"""Random crops of a person: which part of the image, turned by how much, mirrored or not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..skeletons import Skeleton
from ..zoo.recipe import Augmentation

__all__ = ["mirror_keypoints", "rotate_matrix", "sample_crop"]

Array = NDArray[np.float64]

_LOWER = ("hip", "knee", "ankle", "toe", "heel", "pelvis")


def sample_crop(
    augmentation: Augmentation,
    rng: np.random.Generator,
    center: Array,
    box: Array,
    keypoints: Array,
    skeleton: Skeleton,
    aspect: float,
) -> tuple[Array, Array, float, bool]:
    """Draw the crop: its centre (x, y), its size (w, h), degrees, and whether mirrored.

    Args:
        center, box: those of the whole person, box with padding and the right aspect.
        keypoints: (K, 3) in image pixels.
        aspect: w / h of the network's input.

    The order of the draws is fixed, so that the same generator gives the same crop.
    """
    moves = rng.uniform(-augmentation.shift, augmentation.shift, 2)
    if rng.random() < augmentation.shift_probability:
        center = center + moves * box
    flipped = rng.random() < augmentation.flip
    if rng.random() < augmentation.half_body:
        half = _half_body(augmentation.half_body_more_than, rng, keypoints, skeleton, aspect)
        center, box = half if half is not None else (center, box)
    factor = np.clip(
        1 + augmentation.scale * rng.normal(), 1 - augmentation.scale, 1 + augmentation.scale
    )
    angle = np.clip(
        augmentation.rotation * rng.normal(), -2 * augmentation.rotation, 2 * augmentation.rotation
    )
    turned = rng.random() < augmentation.rotation_probability
    return center, box * factor, float(angle) if turned else 0.0, flipped


def _half_body(
    more_than: int, rng: np.random.Generator, keypoints: Array, skeleton: Skeleton, aspect: float
) -> tuple[Array, Array] | None:
    """Return centre and size around the upper or the lower keypoints, or None.

    Quirk: the upper half is taken when a normal draw is below 0.5, so in 69 % of cases; face
    and hands of a whole body count as lower. The published weights were trained so.
    """
    labelled = keypoints[:, 2] > 0
    if labelled.sum() <= more_than:
        return None
    lower = np.array([n.endswith(_LOWER) for n in skeleton.keypoint_names])
    lower[skeleton.parts["body"][1] :] = True
    upper_drawn = rng.normal() < 0.5
    halves = [keypoints[labelled & ~lower, :2], keypoints[labelled & lower, :2]]
    first, second = halves if upper_drawn else halves[::-1]
    chosen = first if len(first) > 2 else second
    if len(chosen) < 2:
        return None
    width, height = np.maximum(np.ptp(chosen, axis=0), 1.0)
    size = np.array([max(width, height * aspect), max(height, width / aspect)])
    return chosen.mean(axis=0), size * 1.5


def rotate_matrix(matrix: Array, center: Array, degrees: float) -> Array:
    """Turn a crop matrix (2, 3) about the point that `center` (image pixels) is mapped to."""
    middle = matrix[:, :2] @ center + matrix[:, 2]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[c, -s], [s, c]])
    turned = turn @ matrix
    turned[:, 2] += middle - turn @ middle
    return turned


def mirror_keypoints(keypoints: Array, width: int, skeleton: Skeleton) -> Array:
    """Mirror keypoints (K, 3) in an input of `width` pixels and swap left and right."""
    mirrored = keypoints[list(skeleton.flip_indices)].copy()
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    return mirrored
