"""Person boxes for photos that belong to no data set, as `posezoo predict --boxes` takes them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..files import load_json
from .categories import only_category, person_category
from .coco import to_xyxy
from .names import FileName
from .samples import rows_by_image
from .tables import Table, describe

__all__ = ["BoxEntry", "PhotoBoxes", "read_boxes"]

_LOGGER = logging.getLogger(__name__)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxEntry:
    """What a file says about one image.

    Attributes:
        name: of the image, or its id as text.
        bboxes: `(N, 4)` xyxy in image pixels, `scores (N,)`.
        size: (H, W) that the file records, None where it does not.
        fault: why the boxes cannot be used, None where they can.
    """

    name: str
    bboxes: Array
    scores: Array
    size: tuple[int, int] | None = None
    fault: InputError | None = None


class PhotoBoxes:
    """Boxes by image.

    Args:
        source: the file.
        entries: what it says about each image.

    Raises:
        DataError: no entry can be used.
    """

    def __init__(self, source: str, entries: Sequence[BoxEntry]) -> None:
        if entries and all(entry.fault for entry in entries):
            raise DataError(str(entries[0].fault))
        self.source, self.entries = source, entries
        self._index: dict[str, list[tuple[FileName, BoxEntry]]] = defaultdict(list)
        for entry in entries:
            name = FileName(entry.name)
            self._index[name.parts[-1] if name.parts else ""].append((name, entry))

    def match(self, photos: Sequence[Path]) -> list[BoxEntry | InputError]:
        """Return the entry of each photo, or why there is none that can be used.

        The entry whose path agrees with the photo's in most parts counts: the whole name where it
        is relative. Names without extension and ids fit photos of that stem; the digits after the
        last `_` of a stem are its id, too.
        """
        found = [self._entry(photo) for photo in photos]
        users: dict[str, set[Path]] = defaultdict(set)
        for photo, entry in zip(photos, found):
            if isinstance(entry, BoxEntry):
                users[entry.name].add(photo.absolute())
        for i, (photo, entry) in enumerate(zip(photos, found)):
            if isinstance(entry, BoxEntry) and len(users[entry.name]) > 1:
                others = ", ".join(map(str, sorted(users[entry.name] - {photo.absolute()})[:3]))
                found[i] = InputError(
                    f"{self.source}: the entry {entry.name!r} fits {photo} and also {others}; "
                    "write names with their folders"
                )
            elif isinstance(entry, BoxEntry) and entry.fault is not None:
                found[i] = entry.fault
        return found

    def _entry(self, photo: Path) -> BoxEntry | InputError:
        path = FileName(str(photo.absolute()))
        keys = [path.parts[-1], FileName(photo.stem).parts[-1]]
        digits = photo.stem.rpartition("_")[2]
        if digits.isascii() and digits.isdecimal():
            keys.append(str(int(digits)))
        for key in dict.fromkeys(keys):
            named = self._index.get(key, [])
            folder = FileName(str(photo.absolute().parent / key))
            fits = [(name.fits(folder), entry) for name, entry in named]
            most = max((count for count, _ in fits), default=0)
            best = [entry for count, entry in fits if count == most > 0]
            if len(best) > 1:
                names = ", ".join(repr(entry.name) for entry in best[:3])
                return InputError(f"{self.source}: {photo} may be {names}; give unique names")
            if best:
                return best[0]
        near = [entry.name for _, entry in self._index.get(keys[0], [])][:3]
        return InputError(
            f"{self.source} has no entry for {photo} (looked for {', '.join(dict.fromkeys(keys))}"
            + (f"; it has {', '.join(near)}" if near else "")
            + "); add one, or leave --boxes out to use a detector"
        )


def read_boxes(path: Path, threshold: float = 0.0, category: str | None = None) -> PhotoBoxes:
    """Read person boxes by file name, or by image id where the file has no names.

    Three forms are understood: COCO annotations without their crowds, a COCO detection list, and
    `{"photo.jpg": [[x1, y1, x2, y2], …]}`. Rows without a category are people. Crowds, rows of
    other categories and boxes below the threshold are counted in the log. A malformed box makes
    the boxes of its image unusable, and no others.

    Args:
        path: the file.
        threshold: smallest score of a detection that is used.
        category: name or id of the category of people, see `person_category`.

    Raises:
        DataError: unreadable, or none of these.
    """
    try:
        content = load_json(path)
        if not isinstance(content, Mapping):
            return _detected(Table(content, f"{path}: detections"), path, threshold, category)
        if "annotations" in content:
            return _annotated(content, path, category)
        entries = [_by_hand(name, rows, f"{path}: {name}") for name, rows in content.items()]
        return PhotoBoxes(str(path), entries)
    except ValueError as error:
        reason = str(error).removeprefix("cannot read ").removeprefix(f"{path}: ")
        raise DataError(
            f"{path} holds no boxes: {reason}; give COCO annotations, a COCO detection list, or "
            "{file name: [[x1, y1, x2, y2], …]}"
        ) from error


def _by_hand(name: str, rows: Any, where: str) -> BoxEntry:
    corners = "valid: a list of boxes, each [x1, y1, x2, y2]"

    def read() -> tuple[Array, Array]:
        if not isinstance(rows, list):
            raise DataError(f"{where} is {describe(rows)}; {corners}")
        for i, row in enumerate(rows):
            if not isinstance(row, list):
                raise DataError(f"{where}[{i}] is {describe(row)}; {corners}")
        boxes = Table([{"box": row} for row in rows], where).floats("box", (4,))
        return boxes, np.ones(len(boxes))

    return _entry(name, None, read)


def _annotated(content: Mapping[str, Any], path: Path, category: str | None) -> PhotoBoxes:
    images = Table(content.get("images"), f"{path}: images")
    ids = images.integers("id", minimum=0)
    images.require_unique("id", ids)
    people = Table(content["annotations"], f"{path}: annotations")
    number = person_category(content.get("categories"), people, str(path), category)
    people = only_category(people, number, default=number)
    is_crowd = people.integers("iscrowd", minimum=0, maximum=1, default=0) == 1
    if is_crowd.any():
        _LOGGER.warning("%s: %d crowds are left out", people.name, is_crowd.sum())
    people = people.select(~is_crowd)
    image_ids = people.integers("image_id", minimum=0)
    people.require_known("image_id", image_ids, ids, "this file")
    rows = rows_by_image(image_ids)
    sizes: dict[int, tuple[int, int]] = {}
    if images.has("width") and images.has("height"):
        columns = (images.integers(side, minimum=1) for side in ("height", "width"))
        sizes = {i: (h, w) for i, h, w in zip(ids.tolist(), *(c.tolist() for c in columns))}
    entries = [
        _from_rows(name, sizes.get(i), people, rows.get(i, np.zeros(0, np.int64)), None)
        for i, name in zip(ids.tolist(), images.texts("file_name"))
    ]
    return PhotoBoxes(str(path), entries)


def _detected(table: Table, path: Path, threshold: float, category: str | None) -> PhotoBoxes:
    if not len(table):
        raise DataError(f"{path} is an empty list")
    number = person_category(None, table, str(path), category)
    people = only_category(table, number, default=number)
    rows = rows_by_image(people.integers("image_id", minimum=0))
    entries = [_from_rows(str(i), None, people, rows[i], threshold) for i in rows]
    return PhotoBoxes(str(path), entries)


def _from_rows(
    name: str,
    size: tuple[int, int] | None,
    people: Table,
    rows: NDArray[np.int64],
    threshold: float | None,
) -> BoxEntry:
    def read() -> tuple[Array, Array]:
        chosen = people.pick(rows)
        boxes = chosen.floats("bbox", (4,))
        if threshold is None:
            return to_xyxy(boxes), np.ones(len(boxes))
        scores = chosen.floats("score")
        keep = scores >= threshold
        if not keep.all():
            _LOGGER.info("%s: %d boxes below %g", name, (~keep).sum(), threshold)
        return to_xyxy(boxes)[keep], scores[keep]

    return _entry(name, size, read)


def _entry(
    name: str, size: tuple[int, int] | None, read: Callable[[], tuple[Array, Array]]
) -> BoxEntry:
    try:
        boxes, scores = read()
    except DataError as error:
        nobody, none = np.zeros((0, 4)), np.zeros(0)
        return BoxEntry(
            name=name, bboxes=nobody, scores=none, size=size, fault=InputError(str(error))
        )
    return BoxEntry(name=name, bboxes=boxes, scores=scores, size=size)
