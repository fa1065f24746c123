"""MPII in the form of the HRNet lineage: people by centre and scale, and the scorer's file.

Coordinates count from 1 in the files and from 0 here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import load_json
from ..geometry import mpii_center_size
from .descriptors import MPII
from .matlab import load_mat
from .names import find_images
from .samples import Sample, rows_by_image
from .tables import Table, real_numbers

__all__ = [
    "MAT_NAMES",
    "MpiiAnnotations",
    "MpiiSample",
    "MpiiTruth",
    "read_mpii",
    "read_mpii_annotations",
    "read_mpii_truth",
]

MAT_NAMES = (
    "rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor",
    "neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri",
)  # fmt: skip
_HEAD_SHARE = 0.6  # of the head box's diagonal


@dataclass(frozen=True, kw_only=True)
class MpiiAnnotations:
    """The `P` people of an annotation file, in file order.

    `image_names` names the image of each; `keypoints (P, 16, 3)` are x, y in image pixels and 1
    where annotated (else all 0); `centers (P, 2)` and `box_sizes (P, 2)` are the crops in image
    pixels, padding included; `table` has the rows of the file.
    """

    image_names: list[str]
    keypoints: NDArray[np.float64]
    centers: NDArray[np.float64]
    box_sizes: NDArray[np.float64]
    table: Table


@dataclass(frozen=True, kw_only=True)
class MpiiSample(Sample):
    """One image and the `N` people annotated in it.

    `person_ids (N,)` are the rows of the annotation file, `centers (N, 2)` x, y from 0 and
    `box_sizes (N, 2)` w, h, padding included, both in image pixels.
    """

    person_ids: NDArray[np.int64]
    centers: NDArray[np.float64]
    box_sizes: NDArray[np.float64]

    @property
    def count(self) -> int:
        """`N`."""
        return len(self.person_ids)


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
        for name, array, shape in (
            ("keypoints", self.keypoints, (count, 16, 2)),
            ("is_missing", self.is_missing, (count, 16)),
            ("head_sizes", self.head_sizes, (count,)),
        ):
            if array.shape != shape:
                raise DataError(
                    f"{name} of {count} people has shape {array.shape}, expected {shape}"
                )
        usable = (self.head_sizes > 0) & np.isfinite(self.head_sizes)
        if not usable.all():
            row = int(usable.argmin())
            raise DataError(
                f"head size of person {row} is {self.head_sizes[row]}; valid: finite, above 0"
            )

    def select(self, people: list[int]) -> MpiiTruth:
        """Return some of the people, by row."""
        return MpiiTruth(
            keypoints=self.keypoints[people],
            is_missing=self.is_missing[people],
            head_sizes=self.head_sizes[people],
        )


def read_mpii_annotations(path: str | Path) -> MpiiAnnotations:
    """Read `train.json` or `valid.json` of the HRNet lineage, or the files of mmpose.

    They have one form: a list of `image`, `center`, `scale`, `joints` (16 x 2) and `joints_vis`.

    Raises:
        DataError: the file is malformed or lists nobody.
    """
    table = Table(load_json(path), f"{path}: people")
    if not len(table):
        raise DataError(f"{path} is an empty list; valid: at least one person")
    is_annotated = table.floats("joints_vis", (16,))[..., None] > 0  # (P, 16, 1)
    joints = np.where(is_annotated, table.floats("joints", (16, 2)) - 1.0, 0.0)
    centers, box_sizes = mpii_center_size(table.floats("center", (2,)), table.floats("scale"))
    return MpiiAnnotations(
        image_names=table.texts("image"),
        keypoints=np.concatenate([joints, is_annotated], axis=2),  # (P, 16, 3)
        centers=centers,
        box_sizes=box_sizes,
        table=table,
    )


def read_mpii(annotations: str | Path, images: str | Path) -> list[MpiiSample]:
    """Read MPII people, grouped by image in the order of the file.

    Args:
        annotations: see `read_mpii_annotations`.
        images: the folder of the images, or the one that holds `images/`.

    Raises:
        DataError: the file is malformed, or an image file is missing.
    """
    people = read_mpii_annotations(annotations)
    usable = (people.box_sizes > 1).all(axis=1) & (people.box_sizes < 1e9).all(axis=1)
    if not usable.all():
        unit = "the height in units of 200 pixels, with a crop of 1 to 1e9 pixels"
        raise people.table.blame(int(usable.argmin()), "scale", f"a number above 0, {unit}")
    files = list(dict.fromkeys(people.image_names))
    numbers = {name: i for i, name in enumerate(files)}
    rows = rows_by_image(np.array([numbers[name] for name in people.image_names]))
    return [
        MpiiSample(
            path=path,
            person_ids=rows[i],
            centers=people.centers[rows[i]],
            box_sizes=people.box_sizes[rows[i]],
        )
        for i, path in enumerate(find_images(Path(images), files, MPII.val.images, annotations))
    ]


def read_mpii_truth(path: str | Path) -> MpiiTruth:
    """Read `gt_valid.mat` (mmpose: `mpii_gt_val.mat`).

    Raises:
        DataError: the file is unreadable, a variable is missing or has another shape, joints
            come in another order, or a head box has no size.
    """
    content = load_mat(path)
    absent = {"dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src"} - set(content)
    if absent:
        raise DataError(f"{path} has no variable {', '.join(sorted(absent))}; give gt_valid.mat")
    cells = np.ravel(content["dataset_joints"])
    names = ["".join(map(str, np.ravel(cell)[:1])) for cell in cells]
    if tuple(names) != MAT_NAMES:
        raise DataError(f"{path}: dataset_joints is {names}; valid: {', '.join(MAT_NAMES)}")
    positions, heads, missing = (
        real_numbers(content[name], f"{path}: {name}")
        for name in ("pos_gt_src", "headboxes_src", "jnt_missing")
    )
    count = positions.shape[-1] if positions.ndim else 0
    for name, values, shape in (
        ("pos_gt_src", positions, (16, 2, count)),
        ("headboxes_src", heads, (2, 2, count)),
        ("jnt_missing", missing, (16, count)),
    ):
        if values.shape != shape:
            raise DataError(f"{path}: {name} has shape {values.shape}, expected {shape}")
    if not np.isin(missing, (0, 1)).all():
        raise DataError(f"{path}: jnt_missing holds other values than 0 and 1")
    is_missing = missing.T != 0  # (N, 16)
    keypoints = np.moveaxis(positions, -1, 0) - 1.0  # (N, 16, 2)
    keypoints[is_missing] = 0.0
    if not np.isfinite(keypoints).all():
        raise DataError(f"{path}: pos_gt_src holds NaN for a joint that is not missing")
    sizes = _HEAD_SHARE * np.linalg.norm(heads[1] - heads[0], axis=0)  # of two corners
    try:
        return MpiiTruth(keypoints=keypoints, is_missing=is_missing, head_sizes=sizes)
    except DataError as error:
        raise DataError(f"{path}: {error}; headboxes_src is damaged") from error
