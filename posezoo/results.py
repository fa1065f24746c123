"""What a predictor returns for one image: `PoseResult`."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, InputError, UnknownModelError
from .h36m import H36M_17, to_h36m17
from .skeletons import Skeleton, get_skeleton

if TYPE_CHECKING:
    from PIL import Image

    from .images import ImageSource

__all__ = ["CSV_HEADER", "Keypoint", "PoseResult", "rescore"]

Array = NDArray[np.float32]

CSV_HEADER = (
    "person", "id", "bbox_score", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2",
    "keypoint", "x", "y", "score",
)  # fmt: skip
"""The columns of `PoseResult.csv_rows`."""

_THRESHOLD = float(np.float32(0.2))  # of a type with the scores, so that 0.2 does not count
_GOOD = 0.3  # a keypoint score above it counts as found in `repr`
_LISTED = 5  # persons in `repr`
_PREVIEW = 640  # pixels of the longer side of the picture in a notebook
_CANVAS = (44, 47, 54)  # colour behind poses that are drawn without their image


class Keypoint(NamedTuple):
    """One keypoint of one person: (x, y) in image pixels, and the network's score."""

    x: float
    y: float
    score: float


def rescore(
    keypoint_scores: NDArray[Any], bbox_scores: NDArray[Any], threshold: float = 0.2
) -> NDArray[np.float64]:
    """Return the score of each person, `(N,)`.

    It is the box score times the mean of those keypoint scores `(N, K)` that exceed
    `threshold`, 0 if none does.
    """
    scores = np.asarray(keypoint_scores, dtype=np.float64)
    counts = scores > threshold
    sums = np.where(counts, scores, 0.0).sum(axis=1)  # (N,)
    means: NDArray[np.float64] = sums / np.maximum(counts.sum(axis=1), 1)
    return means * np.asarray(bbox_scores, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoseResult:
    """The poses of `N` persons in one image, as float32 arrays.

    `keypoints (N, K, 2)` are (x, y) in image pixels, `keypoint_scores (N, K)` network
    confidences (no probabilities; `posezoo.codecs` says what they are for each kind of network),
    `bboxes (N, 4)` xyxy in image pixels, `bbox_scores (N,)` the detector's confidences,
    `image_size` (H, W). `ids (N,)`, int64, are the numbers of the persons' tracks in a film, None
    where nobody was tracked.

    Index with an integer, a slice, a mask or an array of indices to select persons; iterate to
    get them one by one, each as a result of length 1. One person's keypoints go by name:
    `result[0]["left_wrist"]` is its `Keypoint`.

    A result does not hold its image, which may be a hundred times larger; `draw` and `show` take
    it.

    Raises:
        InputError: an array whose shape does not fit the others or the skeleton, or ids that are
            no integers.
    """

    keypoints: Array
    keypoint_scores: Array
    bboxes: Array
    bbox_scores: Array
    skeleton: Skeleton
    image_size: tuple[int, int]
    ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count, k = len(self.bboxes), self.skeleton.num_keypoints
        shapes = {
            "keypoints": (count, k, 2),
            "keypoint_scores": (count, k),
            "bboxes": (count, 4),
            "bbox_scores": (count,),
        }
        for name, shape in shapes.items():
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise InputError(
                    f"{name} has shape {array.shape}, expected {shape} for {count} persons with "
                    f"the {k} keypoints of {self.skeleton.name!r}"
                )
            object.__setattr__(self, name, array)
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise InputError(f"image_size is {self.image_size!r}, expected (H, W) in pixels")
        if self.ids is not None:
            object.__setattr__(self, "ids", _checked_ids(self.ids, count))

    def __len__(self) -> int:
        return len(self.bboxes)

    @overload
    def __getitem__(self, index: str) -> Keypoint: ...
    @overload
    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> PoseResult: ...
    def __getitem__(
        self, index: str | int | slice | NDArray[Any] | list[int]
    ) -> PoseResult | Keypoint:
        """Return the selected persons, or by its name a keypoint of the only one.

        An integer selects one person and keeps the first axis.
        """
        if isinstance(index, str):
            return self._keypoint(index)
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"person {index} of a result with {len(self)} persons")
            index = [int(index)]
        if isinstance(index, list):
            index = np.asarray(index, dtype=None if index else np.intp)
        return dataclasses.replace(
            self,
            keypoints=self.keypoints[index],
            keypoint_scores=self.keypoint_scores[index],
            bboxes=self.bboxes[index],
            bbox_scores=self.bbox_scores[index],
            ids=None if self.ids is None else self.ids[index],
        )

    def _keypoint(self, name: str) -> Keypoint:
        names = self.skeleton.keypoint_names
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise InputError(
                f"{self.skeleton.name!r} has no keypoint {name!r}; {hint}valid: "
                "result.skeleton.keypoint_names"
            )
        if len(self) != 1:
            raise InputError(
                f"{name!r} of a result with {len(self)} persons; select one of them: "
                f"result[0][{name!r}]"
            )
        k = names.index(name)
        x, y = self.keypoints[0, k].tolist()
        return Keypoint(x, y, float(self.keypoint_scores[0, k]))

    def __iter__(self) -> Iterator[PoseResult]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        (height, width), k = self.image_size, self.skeleton.num_keypoints
        people = "1 person" if len(self) == 1 else f"{len(self)} people"
        lines = [
            f"PoseResult: {people}, {k} keypoints of {self.skeleton.name!r}, "
            f"image of {height} x {width} pixels (H x W)"
        ]
        for i in range(min(len(self), _LISTED)):
            track = "" if self.ids is None else f"id {self.ids[i]}, "
            box = ", ".join(f"{value:.1f}" for value in self.bboxes[i])
            found = int((self.keypoint_scores[i] > _GOOD).sum())
            lines.append(
                f"  {i}: {track}box ({box}) score {self.bbox_scores[i]:.2f}, "
                f"{found} keypoints above {_GOOD}"
            )
        if len(self) > _LISTED:
            lines.append(f"  and {len(self) - _LISTED} more")
        return "\n".join(lines)

    def draw(
        self, image: ImageSource | None = None, *, threshold: float = 0.3, boxes: bool = False
    ) -> Image.Image:
        """Return a copy of the image with the poses drawn onto it; a notebook shows it.

        Args:
            image: the image the result belongs to; None takes an empty one of its size.
            threshold: keypoints with a lower score, and limbs that end in one, are left out.
            boxes: also draw the boxes.

        Raises:
            InputError: the image cannot be read, or has another size than the result says.
        """
        from .draw import draw_poses

        if image is None:
            image = np.broadcast_to(np.array(_CANVAS, np.uint8), (*self.image_size, 3))
        return draw_poses(image, self, threshold=threshold, boxes=boxes)

    def show(
        self, image: ImageSource | None = None, *, threshold: float = 0.3, boxes: bool = False
    ) -> None:
        """Draw, and open the picture in the viewer of this computer or notebook.

        Raises:
            InputError: as `draw`, or there is no viewer.
        """
        from PIL import ImageShow

        if not ImageShow.show(self.draw(image, threshold=threshold, boxes=boxes)):
            raise InputError("no program here shows pictures; save it: result.draw(image).save(…)")

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows: the poses without their image, at most 640 pixels wide."""
        factor = min(1.0, _PREVIEW / max(self.image_size))
        height, width = (max(1, round(side * factor)) for side in self.image_size)
        small = dataclasses.replace(
            self,
            keypoints=self.keypoints * np.float32(factor),
            bboxes=self.bboxes * np.float32(factor),
            image_size=(height, width),
        )
        buffer = io.BytesIO()
        small.draw().save(buffer, "PNG")
        return buffer.getvalue()

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return one row of a COCO result file per person.

        `keypoints` is flat [x, y, score, ...]; whole-body poses are split into the five lists
        that COCO-WholeBody uses. `score` is the box score times the mean of the keypoint scores
        above 0.2 (0 if there is none), `bbox` xywh. Numbers that are not finite, which JSON does
        not have, become 0: a keypoint with its score, a box with the score of its person. Persons
        that were tracked have a `track_id`.
        """
        fields = self.skeleton.coco_fields
        people = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], 2)  # (N, K, 3)
        people = np.where(np.isfinite(people).all(axis=2, keepdims=True), people, 0)
        boxes = np.concatenate([self.bboxes, self.bbox_scores[:, None]], 1)  # (N, 5)
        boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0)
        scores = rescore(people[..., 2], boxes[:, 4], _THRESHOLD).tolist()
        rows = []
        for i, (x1, y1, x2, y2) in enumerate(boxes[:, :4].tolist()):
            row: dict[str, Any] = {
                "image_id": image_id,
                "category_id": 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": scores[i],
            }
            if self.ids is not None:
                row["track_id"] = int(self.ids[i])
            for field, (start, stop) in fields.items():
                row[field] = people[i, start:stop].reshape(-1).tolist()
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with names; numbers that are not finite become None.

        Tracked persons have an `id`, and the result says `tracked`. A skeleton of one's own is
        written out, one that posezoo knows is only named.
        """
        data: dict[str, Any] = {
            "image_size": [int(side) for side in self.image_size],
            "skeleton": self.skeleton.name,
            "keypoint_names": list(self.skeleton.keypoint_names),
            "parts": {part: list(span) for part, span in self.skeleton.parts.items()},
        }
        if not _is_known(self.skeleton):
            data["sigmas"] = list(self.skeleton.sigmas)
            data["flip_pairs"] = [list(pair) for pair in self.skeleton.flip_pairs]
            data["limbs"] = [list(pair) for pair in self.skeleton.limbs]
        persons: list[dict[str, Any]] = [
            {
                "bbox": _plain(self.bboxes[i]),
                "bbox_score": _plain(self.bbox_scores[i]),
                "keypoints": _plain(self.keypoints[i]),
                "keypoint_scores": _plain(self.keypoint_scores[i]),
            }
            for i in range(len(self))
        ]
        if self.ids is not None:
            data["tracked"] = True
            persons = [{"id": int(i)} | person for i, person in zip(self.ids, persons)]
        return data | {"persons": persons}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PoseResult:
        """Return the result that `to_dict` wrote, with the same bits; None becomes NaN.

        Raises:
            DataError: not such a record.
        """
        try:
            skeleton, persons = _read_skeleton(data), data["persons"]
            k = skeleton.num_keypoints
            shapes = {
                "bbox": (4,), "bbox_score": (), "keypoints": (k, 2), "keypoint_scores": (k,),
            }  # fmt: skip
            arrays = {
                name: np.array([person[name] for person in persons], np.float32)
                .reshape(len(persons), *shape)
                for name, shape in shapes.items()
            }  # fmt: skip
            height, width = data["image_size"]
            return cls(
                keypoints=arrays["keypoints"],
                keypoint_scores=arrays["keypoint_scores"],
                bboxes=arrays["bbox"],
                bbox_scores=arrays["bbox_score"],
                skeleton=skeleton,
                image_size=(height, width),
                ids=np.array([p["id"] for p in persons], np.int64) if data.get("tracked") else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if type(error) is KeyError else str(error)
            raise DataError(f"not a result as PoseResult.to_dict() writes it: {what}") from error

    def csv_rows(self) -> Iterator[tuple[int | str, ...]]:
        """Yield one row per person and keypoint, with the columns of `CSV_HEADER`.

        Numbers are written as short as they can be and still be read as the same float32; those
        that are not finite, and the id of a person who was not tracked, are empty.
        """
        for i in range(len(self)):
            track = "" if self.ids is None else int(self.ids[i])
            box = tuple(map(_short, (self.bbox_scores[i], *self.bboxes[i])))
            points = zip(self.skeleton.keypoint_names, self.keypoints[i], self.keypoint_scores[i])
            for name, (x, y), score in points:
                yield i, track, *box, name, _short(x), _short(y), _short(score)

    def to_csv(self) -> str:
        """Return a table for pandas and spreadsheets: `CSV_HEADER` and `csv_rows`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        writer.writerows(self.csv_rows())
        return text.getvalue()

    def to_h36m17(self) -> PoseResult:
        """Return the persons with the 17 joints of Human3.6M, as lifting networks take them.

        `posezoo.h36m` has the order and says of which keypoints each joint is the mean; its score
        is the smallest of theirs.

        Raises:
            InputError: the keypoints are not COCO's or COCO-WholeBody's.
        """
        keypoints, scores = to_h36m17(self.keypoints, self.keypoint_scores, self.skeleton)
        return dataclasses.replace(
            self, keypoints=keypoints, keypoint_scores=scores, skeleton=H36M_17
        )

    def to_supervision(self) -> Any:
        """Return `supervision.KeyPoints` with the same persons, points and scores.

        Its `data` hold the boxes as `xyxy` and, in a film, the ids as `tracker_id`; versions
        before 0.29, which have no field for the scores of boxes, find them there as
        `detection_confidence`.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision() needs the package supervision: pip install 'posezoo[supervision]'"
            ) from error
        data: dict[str, Any] = {"xyxy": self.bboxes}
        if self.ids is not None:
            data["tracker_id"] = self.ids
        named = {field.name for field in dataclasses.fields(supervision.KeyPoints)}
        if "keypoint_confidence" in named:  # since 0.29
            return supervision.KeyPoints(
                xy=self.keypoints,
                keypoint_confidence=self.keypoint_scores,
                detection_confidence=self.bbox_scores,
                data=data,
            )
        data["detection_confidence"] = self.bbox_scores
        return supervision.KeyPoints(xy=self.keypoints, confidence=self.keypoint_scores, data=data)


def _plain(array: Any) -> Any:
    values = np.asarray(array).astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()


def _short(value: np.float32) -> str:
    return str(value) if np.isfinite(value) else ""


def _checked_ids(ids: Any, count: int) -> NDArray[np.int64]:
    array = np.asarray(ids)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu"):
        raise InputError(
            f"ids are {array.dtype} of shape {array.shape}, expected {count} integers, one per "
            "person"
        )
    return array.astype(np.int64)


def _is_known(skeleton: Skeleton) -> bool:
    """Tell whether the name alone says which skeleton it is."""
    try:
        return get_skeleton(skeleton.name) == skeleton
    except UnknownModelError:
        return False


def _read_skeleton(data: Mapping[str, Any]) -> Skeleton:
    """Return the skeleton of a record of `to_dict`."""
    names = tuple(data["keypoint_names"])
    if "sigmas" in data:
        flip_pairs, limbs = (
            tuple((int(a), int(b)) for a, b in data[kind]) for kind in ("flip_pairs", "limbs")
        )
        return Skeleton(
            name=data["skeleton"],
            keypoint_names=names,
            flip_pairs=flip_pairs,
            sigmas=tuple(data["sigmas"]),
            limbs=limbs,
            parts={part: (int(a), int(b)) for part, (a, b) in data["parts"].items()},
        )
    skeleton = get_skeleton(data["skeleton"])
    if skeleton.keypoint_names != names:
        raise DataError(f"the keypoint names are not those of {skeleton.name!r}")
    return skeleton
