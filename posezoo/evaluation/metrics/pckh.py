"""PCKh: how many MPII joints are found within a share of the head size.

Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis",
CVPR 2014.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.mpii import MpiiTruth
from ...datasets.tables import real_numbers
from ...errors import DataError
from ...skeletons import MPII_16

__all__ = ["PckhStats", "evaluate_pckh"]

_GROUPS = {
    "head": ("head_top",),
    "shoulder": ("left_shoulder", "right_shoulder"),
    "elbow": ("left_elbow", "right_elbow"),
    "wrist": ("left_wrist", "right_wrist"),
    "hip": ("left_hip", "right_hip"),
    "knee": ("left_knee", "right_knee"),
    "ankle": ("left_ankle", "right_ankle"),
}
_NOT_IN_MEAN = ("pelvis", "thorax")


@dataclass(frozen=True, kw_only=True)
class PckhStats:
    """Shares of correct joints as fractions, at 0.5 of the head size where not said otherwise.

    Groups are plain means of left and right; the means are weighted by the number of annotated
    joints and leave out pelvis and thorax.

    Quirk: what the HRNet lineage (TokenPose and TMPose too) prints as "Mean@0.1" is taken at
    0.11 of the head size, `mean_at_0_11`; mmpose takes it at 0.10.
    """

    head: float
    shoulder: float
    elbow: float
    wrist: float
    hip: float
    knee: float
    ankle: float
    mean: float
    mean_at_0_10: float
    mean_at_0_11: float

    def to_dict(self) -> dict[str, float]:
        """Return the values under their field names."""
        return dataclasses.asdict(self)


def evaluate_pckh(predictions: NDArray[Any], truth: MpiiTruth) -> PckhStats:
    """Score predicted joints `(N, 16, 2)`, x, y from 0 in image pixels, rows as in `truth`.

    Raises:
        DataError: the shape differs from the truth's, a prediction is not a finite number, or
            nobody has a certain joint annotated.
    """
    predictions = real_numbers(predictions, "predictions")
    if predictions.shape != truth.keypoints.shape:
        raise DataError(
            f"predictions have shape {predictions.shape}, the truth {truth.keypoints.shape}; "
            "one row per person of the annotation file is needed"
        )
    if not np.isfinite(predictions).all():
        row = int((~np.isfinite(predictions).all(axis=(1, 2))).argmax())
        raise DataError(f"the prediction for person {row} holds NaN or infinity")
    is_present = ~truth.is_missing
    counts = is_present.sum(axis=0)  # (16,)
    if not counts.all():
        joint = MPII_16.keypoint_names[int(counts.argmin())]
        raise DataError(f"nobody has {joint!r} annotated, so it has no PCKh; the truth is damaged")
    distances = np.linalg.norm(predictions - truth.keypoints, axis=-1)  # (N, 16)
    errors = distances / truth.head_sizes[:, None]

    def rates(threshold: float) -> NDArray[np.float64]:
        found: NDArray[np.float64] = ((errors <= threshold) & is_present).sum(axis=0) / counts
        return found

    index = {name: i for i, name in enumerate(MPII_16.keypoint_names)}
    weights = np.array([0 if n in _NOT_IN_MEAN else counts[i] for n, i in index.items()])
    at_half = rates(0.5)
    groups = {g: float(np.mean([at_half[index[n]] for n in ns])) for g, ns in _GROUPS.items()}
    return PckhStats(
        **groups,
        mean=float(np.average(at_half, weights=weights)),
        mean_at_0_10=float(np.average(rates(0.10), weights=weights)),
        mean_at_0_11=float(np.average(rates(0.11), weights=weights)),
    )
