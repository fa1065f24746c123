"""Readers: the files of COCO, COCO-WholeBody, MPII and ImageNet to samples.

Nothing here opens an image; that the files exist is checked while reading, so that a run does
not end halfway for want of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import mpii_center_size
from ..skeletons import Skeleton
from .coco import Annotations, read_annotations, read_detections
from .tables import Table, load_json

__all__ = [
    "BoxRule",
    "ClassSample",
    "ImageSample",
    "MpiiSample",
    "box_source_of",
    "clean_boxes",
    "read_coco",
    "read_imagenet_flat",
    "read_imagenet_folders",
    "read_mpii",
]

BoxRule = Literal["mmpose0", "mmpose0_16", "mmpose1", "tokenpose"]

_KNOWN_DETECTIONS = (  # person AP of the detectors behind the common files
    (re.compile(r"AP_H_56(?!\d)"), "det56.4"),
    (re.compile(r"AP_H_609(?!\d)"), "det60.9"),
)
_DEVKIT_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """One image and the `N` person boxes to crop from it.

    `bboxes (N, 4)` are xyxy image pixels, `bbox_scores (N,)` 1 for annotated boxes, `box_ids
    (N,)` the positions in the list that the boxes came from. `size` is (H, W) as annotated.
    `box_source` says which boxes these are: "gt", "det56.4", or the stem of another file.
    """

    image_id: int
    path: Path
    size: tuple[int, int] | None
    bboxes: NDArray[np.float64]
    bbox_scores: NDArray[np.float64]
    box_ids: NDArray[np.int64]
    box_source: str


@dataclass(frozen=True, kw_only=True)
class MpiiSample:
    """One image and the `N` people annotated in it.

    `person_ids (N,)` are the rows of the annotation file, `centers (N, 2)` x, y from 0 and
    `box_sizes (N, 2)` w, h, padding included, both in image pixels.
    """

    path: Path
    person_ids: NDArray[np.int64]
    centers: NDArray[np.float64]
    box_sizes: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClassSample:
    """One image and its class, the place of its WordNet id among the sorted 1000."""

    path: Path
    label: int


def read_coco(
    annotations: str | Path | Annotations,
    images: str | Path,
    *,
    boxes: Literal["gt"] | Path,
    skeleton: Skeleton,
    rule: BoxRule,
) -> list[ImageSample]:
    """Read the images of a COCO or COCO-WholeBody set that have person boxes, in file order.

    Args:
        annotations: `person_keypoints_val2017.json` or `coco_wholebody_val_v1.0.json`, the path
            or what `read_annotations` made of it.
        images: the folder of the images, or the one that holds `val2017/`.
        boxes: "gt", or a detection file, whose boxes are used as they are.
        skeleton: the keypoints that the annotations hold.
        rule: which code base's cleaning of annotated boxes to follow; see `clean_boxes`.

    Annotated boxes are those of people who are no crowd and have a labelled body keypoint.
    Rows of other categories than person are left out and counted in the log.

    Raises:
        DataError: a file is malformed or gives no box, or an image file is missing.
    """
    people = read_annotations(annotations, skeleton)
    if boxes == "gt":
        xyxy, keep = _annotated_boxes(people, skeleton, rule)
        numbers, image_ids, scores = people.numbers, people.image_ids, np.ones(len(xyxy))
        source = "gt"
    else:
        found = read_detections(boxes, people)
        xyxy = _to_xyxy(found.bboxes_xywh)
        keep = np.ones(len(xyxy), dtype=bool)
        numbers, image_ids, scores = found.numbers, found.image_ids, found.scores
        source = box_source_of(boxes)
    if not keep.any():
        raise DataError(f"{people.source} holds no box to evaluate; all {len(keep)} were left out")
    has_sizes = people.images.has("width") and people.images.has("height")
    sizes = _sizes(people).tolist() if has_sizes else [None] * len(people.images)
    files = dict(zip(people.all_image_ids.tolist(), zip(people.images.texts("file_name"), sizes)))
    rows = _rows_by_image(image_ids, keep)
    wanted = [i for i in files if i in rows]
    paths = _find_images(Path(images), [files[i][0] for i in wanted], "val2017")
    return [
        ImageSample(
            image_id=i,
            path=path,
            size=None if files[i][1] is None else (files[i][1][0], files[i][1][1]),
            bboxes=xyxy[rows[i]],
            bbox_scores=scores[rows[i]],
            box_ids=numbers[rows[i]],
            box_source=source,
        )
        for i, path in zip(wanted, paths)
    ]


def box_source_of(path: str | Path) -> str:
    """Name a detection file: by its person AP where it is a common one, else by its stem."""
    stem = Path(path).stem
    return next((label for known, label in _KNOWN_DETECTIONS if known.search(stem)), stem)


def clean_boxes(
    bboxes_xywh: NDArray[np.float64],
    areas: NDArray[np.float64],
    sizes: NDArray[np.int64],
    rule: BoxRule,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clip annotated boxes to their images as one of four code bases does.

    Args:
        bboxes_xywh: `(N, 4)` boxes of the annotation file.
        areas: `(N,)` areas of the segments.
        sizes: `(N, 2)` image sizes (H, W).
        rule: "mmpose0" (0.29), "mmpose0_16" (0.16), "mmpose1" (1.x) or "tokenpose".

    Returns:
        Boxes xyxy `(N, 4)` and, `(N,)`, whether the code base keeps them.

    Quirk: "mmpose0_16" and "tokenpose" count pixels, so a width of 50 ends 49 further right.
    """
    start, wh = bboxes_xywh[:, :2], bboxes_xywh[:, 2:]
    last = sizes[:, ::-1] - 1.0  # (N, 2) as x, y
    if rule == "mmpose1":
        corners = [np.clip(point, 0, last) for point in (start, start + wh)]
        boxes = np.concatenate(corners, axis=1)  # (N, 4)
        return boxes, np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    one = 0.0 if rule == "mmpose0" else 1.0
    first = np.maximum(start, 0)
    end = np.minimum(last, first + np.maximum(wh - one, 0))
    if rule == "tokenpose":
        keep = (areas > 0) & (end >= first).all(axis=1)
        return np.concatenate([first, end + 1], axis=1), keep
    keep = (areas > 0) & (end > first).all(axis=1)
    return np.concatenate([first, end], axis=1), keep


def _annotated_boxes(
    people: Annotations, skeleton: Skeleton, rule: BoxRule
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    row_of = {image_id: row for row, image_id in enumerate(people.all_image_ids.tolist())}
    rows = np.array([row_of[i] for i in people.image_ids.tolist()], dtype=np.int64)
    sizes = _sizes(people)[rows]
    boxes, keep = clean_boxes(people.bboxes_xywh, people.areas, sizes, rule)
    body = people.keypoints[:, slice(*skeleton.parts["body"])]
    # for whole body the code bases ask for any number beside zero, for COCO for a label
    entries = body if len(skeleton.parts) > 1 else body[:, :, 2:]
    is_labelled: NDArray[np.bool_] = np.any(entries > 0, axis=(1, 2))
    return boxes, keep & ~people.is_crowd & is_labelled


def _sizes(people: Annotations) -> NDArray[np.int64]:
    """Return the (H, W) of all images, `(I, 2)`."""
    columns = [people.images.integers(field, minimum=1) for field in ("height", "width")]
    return np.stack(columns, axis=1)


def _to_xyxy(bboxes_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([bboxes_xywh[:, :2], bboxes_xywh[:, :2] + bboxes_xywh[:, 2:]], axis=1)


def _rows_by_image(
    image_ids: NDArray[np.int64], keep: NDArray[np.bool_]
) -> dict[int, NDArray[np.int64]]:
    """Map each image id to its kept rows, in order."""
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(image_ids[rows], kind="stable")]
    ids, starts = np.unique(image_ids[rows], return_index=True)
    return dict(zip(ids.tolist(), np.split(rows, starts[1:])))


def _find_images(folder: Path, names: Sequence[str], below: str) -> list[Path]:
    """Return the paths of image files that lie in `folder` or in its subfolder `below`."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of the images")
    root = next((r for r in (folder, folder / below) if (r / names[0]).is_file()), folder)
    paths = [root / name for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images are missing, first {missing[0]}; images must "
            f"lie in {folder} or in {folder / below}"
        )
    return paths


def read_mpii(annotations: str | Path, images: str | Path) -> list[MpiiSample]:
    """Read MPII people, grouped by image in the order of the file.

    `valid.json` of the HRNet lineage and `mpii_val.json` of mmpose have one form: a list of
    `image`, `center`, `scale`, `joints` (16 x 2) and `joints_vis`, coordinates counted from 1.

    Args:
        annotations: such a file.
        images: the folder of the images, or the one that holds `images/`.

    Raises:
        DataError: the file is malformed, or an image file is missing.
    """
    people = Table(load_json(annotations), f"{annotations}: people")
    if not len(people):
        raise DataError(f"{annotations} is an empty list; valid: at least one person")
    names = people.texts("image")
    people.floats("joints", (16, 2))
    people.floats("joints_vis", (16,))
    scales = people.floats("scale")
    centers, box_sizes = mpii_center_size(people.floats("center", (2,)), scales)
    usable = (box_sizes > 1).all(axis=1) & (box_sizes < 1e9).all(axis=1)
    if not usable.all():
        row = int(usable.argmin())
        unit = "the height in units of 200 pixels, with a crop of 1 to 1e9 pixels"
        raise people.blame(row, "scale", f"a number above 0, {unit}")
    files = list(dict.fromkeys(names))
    numbers = {name: i for i, name in enumerate(files)}
    rows = _rows_by_image(
        np.array([numbers[name] for name in names]), np.ones(len(names), dtype=bool)
    )
    return [
        MpiiSample(
            path=path, person_ids=rows[i], centers=centers[rows[i]], box_sizes=box_sizes[rows[i]]
        )
        for i, path in enumerate(_find_images(Path(images), files, "images"))
    ]


def read_imagenet_folders(images: str | Path) -> list[ClassSample]:
    """Read ImageNet-1k sorted into one folder per class, named by WordNet id (`n01440764`).

    Raises:
        DataError: the folders are not the 1000 classes, or one of them holds no image.
    """
    from torchvision.datasets import ImageFolder

    root = Path(images)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the class folders")
    expected = _wordnet_ids()
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        parts = [
            f"{len(names)} {kind}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
            for kind, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        raise DataError(
            f"{root} holds {len(found)} class folders, not the 1000 of ImageNet-1k; "
            + "; ".join(parts)
        )
    try:
        samples = ImageFolder(str(root)).samples
    except FileNotFoundError as error:
        raise DataError(f"{root}: {error}") from error
    return [ClassSample(path=Path(path), label=label) for path, label in samples]


def read_imagenet_flat(
    images: str | Path, ground_truth: str | Path, synsets: str | Path
) -> list[ClassSample]:
    """Read ImageNet-1k validation images that lie in one folder, in the order of their numbers.

    Args:
        images: folder of `ILSVRC2012_val_00000001.JPEG` and so on.
        ground_truth: `ILSVRC2012_validation_ground_truth.txt` of the development kit, one
            ILSVRC2012_ID (1 to 1000) per image.
        synsets: what those numbers mean: `meta.mat` of the same kit, or a text file whose
            line i is the WordNet id of ILSVRC2012_ID i. They are not in sorted order.

    Raises:
        DataError: a file is malformed, or images and lines do not match one to one.
    """
    label_of = _labels_of_devkit_ids(Path(synsets))
    lines = _text_lines(Path(ground_truth))
    bad = [i for i, s in enumerate(lines) if not (s.isdecimal() and 1 <= int(s) <= len(label_of))]
    if bad:
        raise DataError(
            f"{ground_truth}: line {bad[0] + 1} is {lines[bad[0]]!r}; valid: an ILSVRC2012_ID "
            f"from 1 to {len(label_of)}"
        )
    root = Path(images)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder of the validation images")
    names = {int(m[1]): m[0] for e in root.iterdir() if (m := _DEVKIT_NAME.fullmatch(e.name))}
    unpaired = sorted(set(names) ^ set(range(1, len(lines) + 1)))
    if unpaired:
        raise DataError(
            f"{root} holds {len(names)} validation images, {ground_truth} {len(lines)} lines; "
            f"first number in only one of them: {unpaired[0]}"
        )
    return [
        ClassSample(path=root / names[i], label=label_of[int(line) - 1])
        for i, line in enumerate(lines, 1)
    ]


def _wordnet_ids() -> list[str]:
    """Return the WordNet ids of ImageNet-1k in the order of the class index."""
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_names()


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as text: {error}") from error


def _labels_of_devkit_ids(path: Path) -> list[int]:
    """Return the class index of each ILSVRC2012_ID, the first for ID 1."""
    ids = _meta_mat(path) if path.suffix == ".mat" else _text_lines(path)
    expected = _wordnet_ids()
    if sorted(ids) != expected:
        unknown = sorted(set(ids) - set(expected))
        raise DataError(
            f"{path} lists {len(ids)} synsets, not the 1000 of ImageNet-1k once each"
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
        )
    if ids == expected:
        raise DataError(
            f"{path} lists the synsets in sorted order, which is not that of ILSVRC2012_ID; give "
            "meta.mat of the development kit"
        )
    index = {name: i for i, name in enumerate(expected)}
    return [index[name] for name in ids]


def _meta_mat(path: Path) -> list[str]:
    """Return the WordNet ids of the 1000 low-level synsets by ILSVRC2012_ID."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist())
        return [name for number, name in sorted(pairs) if number <= 1000]
    except Exception as error:  # scipy raises many kinds on a damaged file
        raise DataError(
            f"cannot read {path} as meta.mat of the ILSVRC2012 development kit: {error!r}"
        ) from error
