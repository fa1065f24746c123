"""ImageNet-1k: folders of classes, or the images and lists of the development kit, to samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .descriptors import IMAGENET
from .matlab import load_mat
from .samples import Sample

__all__ = [
    "ClassSample",
    "class_names",
    "read_class_folders",
    "read_imagenet",
    "read_imagenet_flat",
    "read_imagenet_folders",
    "wordnet_ids",
]

_CLASSES = 1000

_DEVKIT_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ClassSample(Sample):
    """One image and its class, the position of its WordNet id among the sorted 1000."""

    label: int


def read_imagenet(data: Path, num_classes: int = _CLASSES) -> list[ClassSample]:
    """Read the validation images from the folder of the data set.

    It holds class folders, here or in `val/`, or the images of the development kit, here or in
    `val/`, beside its list of classes and `meta.mat` or `synsets.txt`. Another number of classes
    than 1000 are one's own: a folder for each, here or in `val/`.

    Raises:
        DataError: see `read_class_folders`, `read_imagenet_folders` and `read_imagenet_flat`.
    """
    images = data / IMAGENET.val.images
    if not images.is_dir():
        images = data
    if num_classes != _CLASSES:
        return read_class_folders(images, num_classes)
    truth = data / IMAGENET.truth
    if not truth.is_file():
        return read_imagenet_folders(images)
    kit, plain = (data / name for name in IMAGENET.synsets)
    return read_imagenet_flat(images, truth, kit if kit.is_file() else plain)


def read_imagenet_folders(images: str | Path) -> list[ClassSample]:
    """Read ImageNet-1k sorted into one folder per class, named by WordNet id (`n01440764`).

    Raises:
        DataError: the folders are not the 1000 classes, or one of them holds no image.
    """
    root = Path(images)
    expected, found = wordnet_ids(), class_names(root)
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
    return _in_folders(root)


def read_class_folders(root: Path, num_classes: int) -> list[ClassSample]:
    """Read images sorted into one folder per class of one's own, numbered by sorted names.

    Raises:
        DataError: another number of folders, or one of them holds no image.
    """
    names = class_names(root)
    if len(names) != num_classes:
        raise DataError(
            f"{root} holds {len(names)} class folders ({', '.join(names[:5])} …); the model has "
            f"{num_classes} classes"
        )
    return _in_folders(root)


def class_names(root: Path) -> list[str]:
    """Return the names of the class folders, sorted.

    Raises:
        DataError: there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the class folders")
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())


def _in_folders(root: Path) -> list[ClassSample]:
    from torchvision.datasets import ImageFolder

    try:
        samples = ImageFolder(str(root)).samples
    except FileNotFoundError as error:
        raise DataError(f"{root}: {error}") from error
    return [ClassSample(path=Path(path), label=label) for path, label in samples]


def read_imagenet_flat(
    images: str | Path, ground_truth: str | Path, synsets: str | Path
) -> list[ClassSample]:
    """Read ImageNet-1k validation images out of one folder, in the order of their numbers.

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


def wordnet_ids() -> list[str]:
    """Return the WordNet ids of ImageNet-1k in the order of the class index."""
    from timm.data import ImageNetInfo

    names: list[str] = ImageNetInfo("imagenet-1k").label_names()
    return names


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as text: {error}") from error


def _labels_of_devkit_ids(path: Path) -> list[int]:
    """Return the class index of each ILSVRC2012_ID, the first for ID 1."""
    ids = _meta_mat(path) if path.suffix == ".mat" else _text_lines(path)
    expected = wordnet_ids()
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
    content = load_mat(path, squeeze=True)
    try:
        synsets = content["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist())
        return [name for number, name in sorted(pairs) if number <= 1000]
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not meta.mat of the ILSVRC2012 development kit: {error!r}"
        ) from error
