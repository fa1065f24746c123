"""Augmentation: of one person (which part of the image is cropped, turned how, mirrored or not),
and the settings of timm's for classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..skeletons import Skeleton

__all__ = ["Augmentation", "ClassAugmentation", "mirror_keypoints", "rotate_matrix"]

Array = NDArray[np.float64]

_LOWER = ("hip", "knee", "ankle", "toe", "heel", "pelvis")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much is changed, and how often.

    Args:
        flip: probability of mirroring.
        half_body: probability of cropping to the upper or lower half only, where more than
            `half_body_more_than` keypoints are labelled.
        shift: largest shift of the centre in each direction as a share of the box, and
            `shift_probability`.
        scale: standard deviation of the factor on the box, which is clipped to 1 - scale and
            1 + scale.
        rotation: standard deviation in degrees, clipped at twice that, and
            `rotation_probability`.
        color, grid: probabilities of other colours and of a grid of holes, see `pixels`.

    Raises:
        InputError: a probability outside 0 to 1, or an amount that is negative or without bound.
    """

    flip: float = 0.5
    half_body: float = 0.0
    half_body_more_than: int = 8
    shift: float = 0.0
    shift_probability: float = 0.3
    scale: float = 0.0
    rotation: float = 0.0
    rotation_probability: float = 0.6
    color: float = 0.0
    grid: float = 0.0

    def __post_init__(self) -> None:
        _check_shares(
            self, "flip", "half_body", "shift_probability", "scale", "rotation_probability",
            "color", "grid",
        )  # fmt: skip
        for name in ("half_body_more_than", "shift", "rotation"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"augmentation.{name} is {value}; it must be finite, 0 or above")

    def sample(
        self,
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
        moves = rng.uniform(-self.shift, self.shift, 2)
        if rng.random() < self.shift_probability:
            center = center + moves * box
        flipped = rng.random() < self.flip
        if rng.random() < self.half_body:
            half = self._half_body(rng, keypoints, skeleton, aspect)
            center, box = half if half is not None else (center, box)
        factor = np.clip(1 + self.scale * rng.normal(), 1 - self.scale, 1 + self.scale)
        angle = np.clip(self.rotation * rng.normal(), -2 * self.rotation, 2 * self.rotation)
        turned = rng.random() < self.rotation_probability
        return center, box * factor, float(angle) if turned else 0.0, flipped

    def _half_body(
        self, rng: np.random.Generator, keypoints: Array, skeleton: Skeleton, aspect: float
    ) -> tuple[Array, Array] | None:
        """Return centre and size around the upper or the lower keypoints, or None.

        Quirk: the upper half is taken when a normal draw is below 0.5, so in 69 % of cases; face
        and hands of a whole body count as lower. The published weights were trained so.
        """
        labelled = keypoints[:, 2] > 0
        if labelled.sum() <= self.half_body_more_than:
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


@dataclass(frozen=True, kw_only=True)
class ClassAugmentation:
    """How images of classes are changed; the defaults are those of DeiT (arXiv 2012.12877).

    Args:
        auto_augment: timm's name of a RandAugment policy. Colour jitter is part of it; a
            separate one, as the published commands give, is ignored by timm beside it.
        erase: probability of erasing a rectangle with noise.
        mixup, cutmix: alpha of each; where both are above 0, a batch gets either with 0.5.
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        InputError: a share outside 0 to 1, or a negative alpha.
    """

    auto_augment: str = "rand-m9-mstd0.5-inc1"
    erase: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        _check_shares(self, "erase", "label_smoothing")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"augmentation.{name} is {value}; it must be finite, 0 or above")


def _check_shares(settings: Augmentation | ClassAugmentation, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise InputError(f"augmentation.{name} is {value}; it must lie in 0 to 1")


def rotate_matrix(matrix: Array, center: Array, degrees: float) -> Array:
    """Turn a crop matrix (2, 3) about the place where `center` (image pixels) lands."""
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
