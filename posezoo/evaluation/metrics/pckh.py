"""PCKh: how many MPII joints lie within a share of the head size.

Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis",
CVPR 2014.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...skeletons import MPII_16

__all__ = ["MAT_NAMES", "MpiiTruth", "PckhStats", "evaluate_pckh", "read_mpii_truth"]

MAT_NAMES = (
    "rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor",
    "neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri",
)  # fmt: skip
_HEAD_SHARE = 0.6  # of the head box's diagonal
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
class MpiiTruth:
    """Annotated joints of `N` people, rows in the order of the annotation file.

    `keypoints (N, 16, 2)` are x, y from 0 in image pixels, `is_missing (N, 16)` marks joints
    that are not annotated, `head_sizes (N,)` are 0.6 of the head box's diagonal in pixels.

    Raises:
        DataError: shapes that do not fit together, or a head size that is not above 0 and finite.
    """

    keypoints: NDArray[np.float64]
    is_missing: NDArray[np.bool_]
    head_sizes: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.head_sizes)
        for name, shape in (
            ("keypoints", (count, 16, 2)),
            ("is_missing", (count, 16)),
            ("head_sizes", (count,)),
        ):
            found = getattr(self, name).shape
            if found != shape:
                raise DataError(f"{name} of {count} people has shape {found}, expected {shape}")
        usable = (self.head_sizes > 0) & np.isfinite(self.head_sizes)
        if not usable.all():
            row = int(usable.argmin())
            raise DataError(
                f"head size of person {row} is {self.head_sizes[row]}; valid: finite, above 0"
            )


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


def read_mpii_truth(path: str | Path) -> MpiiTruth:
    """Read `gt_valid.mat` (mmpose: `mpii_gt_val.mat`).

    Raises:
        DataError: the file is unreadable, a variable is missing or has another shape, joints
            come in another order, or a head box has no size.
    """
    content = _load_mat(Path(path))
    names = [str(np.ravel(cell)[0]) for cell in np.ravel(content["dataset_joints"])]
    if tuple(names) != MAT_NAMES:
        raise DataError(f"{path}: dataset_joints is {names}; valid: {', '.join(MAT_NAMES)}")
    positions, heads, missing = (
        _real(content[name], f"{path}: {name}")
        for name in ("pos_gt_src", "headboxes_src", "jnt_missing")
    )
    count = positions.shape[-1]
    for name, values, shape in (
        ("pos_gt_src", positions, (16, 2, count)),
        ("headboxes_src", heads, (2, 2, count)),
        ("jnt_missing", missing, (16, count)),
    ):
        if values.shape != shape:
            raise DataError(f"{path}: {name} has shape {values.shape}, expected {shape}")
    if not np.isin(missing, (0, 1)).all():
        raise DataError(f"{path}: jnt_missing holds other values than 0 and 1")
    is_missing = missing != 0
    sizes = _HEAD_SHARE * np.linalg.norm(heads[1] - heads[0], axis=0)
    usable = (sizes > 0) & np.isfinite(sizes)
    if not usable.all():
        row = int(usable.argmin())
        raise DataError(
            f"{path}: headboxes_src of person {row} has the corners {heads[:, :, row].tolist()}; "
            "valid: two different finite points"
        )
    keypoints = np.moveaxis(positions, -1, 0) - 1.0  # (N, 16, 2)
    keypoints[is_missing.T] = 0.0
    if not np.isfinite(keypoints).all():
        raise DataError(f"{path}: pos_gt_src holds NaN for a joint that is not missing")
    return MpiiTruth(keypoints=keypoints, is_missing=is_missing.T, head_sizes=sizes)


def _real(values: Any, what: str) -> NDArray[np.float64]:
    """Return an array of real numbers as float64."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what}: the type is {array.dtype}, expected real numbers")
    return array.astype(np.float64)


def _load_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises many kinds on a damaged file
        raise DataError(f"cannot read {path} as a MATLAB file: {error}") from error
    missing = {"dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src"} - set(content)
    if missing:
        raise DataError(f"{path} has no variable {', '.join(sorted(missing))}; give gt_valid.mat")
    return content


def evaluate_pckh(predictions: NDArray[Any], truth: MpiiTruth) -> PckhStats:
    """Score predicted joints `(N, 16, 2)`, x, y from 0 in image pixels, rows as in `truth`.

    Raises:
        DataError: the shape differs from the truth's, a prediction is not a finite number, or
            nobody has a certain joint annotated.
    """
    predictions = _real(predictions, "predictions")
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
        return ((errors <= threshold) & is_present).sum(axis=0) / counts

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
