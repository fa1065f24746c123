"""The data sets that posezoo knows: the files of each, its keypoints and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DataError, InputError
from ..skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton
from ..zoo.config import PretrainedCfg

__all__ = [
    "COCO",
    "COCO_WHOLEBODY",
    "DATA_SETS",
    "IMAGENET",
    "MPII",
    "CocoSet",
    "DataSet",
    "ImagenetSet",
    "MpiiSet",
    "PoseSet",
    "Split",
    "data_set_of",
    "find_file",
    "pose_set_of",
]

_FOLDERS = ("", "annotations", "annot", "person_detection_results")


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a data set.

    Attributes:
        name: what the data set calls it.
        images: folder of its images.
        annotations: names that its annotation file goes by.
    """

    name: str
    images: str
    annotations: tuple[str, ...]

    def find_annotations(self, data: Path) -> Path:
        """Return the annotation file below the folder of the data set.

        Raises:
            DataError: there is none.
        """
        return find_file(data, self.annotations)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set in the layout in which it is published.

    Attributes:
        name: in configurations.
        folder: its usual folder among those of other data sets.
        train, val: the parts to learn from and to evaluate on.
        metric: name of the number by which the best weights are kept, and `statistic`, under
            which the statistics of an evaluation have it.
        note: is printed below a table row.
        counts: how many images, annotated people and boxes of a detector the published `val` has;
            a run on less or more compares with no published number. Empty for other data.
    """

    name: str
    folder: str
    train: Split
    val: Split
    metric: str
    statistic: str
    note: str = ""
    counts: Mapping[str, int] = field(default_factory=dict, hash=False)

    def split(self, name: str) -> Split:
        """Return the part of a name.

        Raises:
            InputError: no such part.
        """
        parts = {part.name: part for part in (self.train, self.val)}
        if name not in parts:
            raise InputError(f"{self.name} has no split {name!r}; valid: {', '.join(parts)}")
        return parts[name]


@dataclass(frozen=True, kw_only=True)
class CocoSet(DataSet):
    """People in the form of COCO; `detections` are names of the common detection file, if any."""

    skeleton: Skeleton
    detections: tuple[str, ...] = ("COCO_val2017_detections_AP_H_56_person.json",)


@dataclass(frozen=True, kw_only=True)
class MpiiSet(DataSet):
    """People in the form of the HRNet lineage; `truth` are the names of the scorer's file."""

    skeleton: Skeleton
    truth: tuple[str, ...] = ("gt_valid.mat", "mpii_gt_val.mat")


@dataclass(frozen=True, kw_only=True)
class ImagenetSet(DataSet):
    """Images with a class: a folder for each, or those of the development kit in one folder.

    `truth` lists the classes of the latter, `synsets` says what its numbers mean.
    """

    truth: str = "ILSVRC2012_validation_ground_truth.txt"
    synsets: tuple[str, ...] = ("meta.mat", "synsets.txt")


PoseSet = CocoSet | MpiiSet


COCO = CocoSet(
    name="coco",
    folder="coco",
    train=Split(
        name="train2017", images="train2017", annotations=("person_keypoints_train2017.json",)
    ),
    val=Split(name="val2017", images="val2017", annotations=("person_keypoints_val2017.json",)),
    metric="AP",
    statistic="AP",
    counts={"images": 5000, "people": 6352, "boxes of det56.4": 104125},
    skeleton=COCO_17,
)
COCO_WHOLEBODY = CocoSet(
    name="coco_wholebody",
    folder="coco",
    train=Split(
        name="train2017", images="train2017", annotations=("coco_wholebody_train_v1.0.json",)
    ),
    val=Split(name="val2017", images="val2017", annotations=("coco_wholebody_val_v1.0.json",)),
    metric="AP",
    statistic="Whole AP",
    counts={"images": 5000, "boxes of det56.4": 104125},
    skeleton=COCO_WHOLEBODY_133,
)
MPII = MpiiSet(
    name="mpii",
    folder="mpii",
    train=Split(name="train", images="images", annotations=("train.json", "mpii_train.json")),
    val=Split(name="valid", images="images", annotations=("valid.json", "mpii_val.json")),
    metric="PCKh",
    statistic="mean",
    counts={"people": 2958},
    note="PCKh; mean_at_0_11 is what the HRNet lineage prints as Mean@0.1",
    skeleton=MPII_16,
)
IMAGENET = ImagenetSet(
    name="in1k",
    folder="imagenet",
    train=Split(name="train", images="train", annotations=()),
    val=Split(name="val", images="val", annotations=()),
    metric="top1",
    statistic="top1",
    counts={"images": 50000},
)
DATA_SETS: dict[str, PoseSet | ImagenetSet] = {
    data_set.name: data_set for data_set in (COCO, COCO_WHOLEBODY, MPII, IMAGENET)
}


def data_set_of(cfg: PretrainedCfg) -> PoseSet | ImagenetSet:
    """Return the data set that a model is for; keypoints of one's own have the layout of COCO.

    Raises:
        InputError: posezoo knows no such data set.
    """
    if cfg.own_skeleton is not None:
        own = cfg.own_skeleton
        return replace(COCO, name=cfg.dataset, skeleton=own, detections=(), counts={})
    if cfg.dataset not in DATA_SETS:
        raise InputError(
            f"{cfg.name} is for the data set {cfg.dataset!r}; known: {', '.join(DATA_SETS)}, and "
            "COCO's layout with own_skeleton"
        )
    return DATA_SETS[cfg.dataset]


def pose_set_of(cfg: PretrainedCfg) -> PoseSet:
    """Return the data set of a pose model or tokenizer.

    Raises:
        InputError: the model is for images with a class, or for an unknown data set.
    """
    data_set = data_set_of(cfg)
    if isinstance(data_set, ImagenetSet):
        raise InputError(f"{cfg.name} is a {cfg.task} model; it has no crops of people")
    return data_set


def find_file(data: Path, names: Sequence[str]) -> Path:
    """Return the first of `names` in the folder of a data set or in one of its usual subfolders.

    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    paths = [data / folder / name for name in names for folder in _FOLDERS]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f"no {' or '.join(names)} below {data} (looked at {', '.join(map(str, paths))})"
    )
