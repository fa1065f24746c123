"""COCO and COCO-WholeBody scores: result rows to AP and AR.

COCO: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; whole body: Jin et
al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020. Protocol of the published
tables: mmpose, whose scorer drops detections without any positive keypoint score.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...datasets.coco import (
    Annotations,
    AnnotationSource,
    Results,
    ResultSource,
    read_annotations,
    read_results,
)
from ...errors import DataError, InputError
from ...skeletons import Skeleton
from .matching import curves, match

__all__ = ["CocoStats", "WholeBodyStats", "evaluate_coco", "evaluate_wholebody"]

Array = NDArray[Any]

_MAX_DETECTIONS = 20  # per image, by score
_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of OKS
_RECALL_POINTS = np.linspace(0, 1, 101)
_AREA_RANGES = {"": (0, 1e10), "_m": (32**2, 96**2), "_l": (96**2, 1e10)}  # square pixels
_COLUMNS = ("Body", "Foot", "Face", "Hand", "Whole")


@dataclass(frozen=True, kw_only=True)
class CocoStats:
    """The ten COCO keypoint statistics as fractions, -1 where there is nobody to find.

    `_m` and `_l` are people of medium (32² to 96² square pixels) and large area. `removed`
    counts the detections left out because none of their keypoint scores was positive.
    """

    ap: float
    ap50: float
    ap75: float
    ap_m: float
    ap_l: float
    ar: float
    ar50: float
    ar75: float
    ar_m: float
    ar_l: float
    removed: int

    def to_dict(self) -> dict[str, float]:
        """Return the values under the names of the field: AP, AP50, …, AR_L, and removed."""
        values = dataclasses.asdict(self)
        removed = values.pop("removed")
        return {name.upper(): value for name, value in values.items()} | {"removed": removed}


@dataclass(frozen=True, kw_only=True)
class WholeBodyStats:
    """COCO-WholeBody statistics per part, and of all 133 keypoints."""

    body: CocoStats
    feet: CocoStats
    face: CocoStats
    left_hand: CocoStats
    right_hand: CocoStats
    whole: CocoStats

    def table(self) -> dict[str, float]:
        """Return the ten columns of the published tables; a hand is the plain mean of both."""
        columns = {"Body": self.body, "Foot": self.feet, "Face": self.face, "Whole": self.whole}
        row: dict[str, float] = {}
        for kind in ("ap", "ar"):
            values = {name: getattr(stats, kind) for name, stats in columns.items()}
            hands = [getattr(hand, kind) for hand in (self.left_hand, self.right_hand)]
            values["Hand"] = -1.0 if -1 in hands else sum(hands) / 2
            row |= {f"{name} {kind.upper()}": value for name, value in values.items()}
        return {f"{n} {k}": row[f"{n} {k}"] for n in _COLUMNS for k in ("AP", "AR")}

    def to_dict(self) -> dict[str, Any]:
        """Return the table columns and, below `parts`, the statistics of each part."""
        parts = {f.name: getattr(self, f.name).to_dict() for f in dataclasses.fields(self)}
        return {**self.table(), "parts": parts}


def evaluate_coco(
    ground_truth: AnnotationSource,
    results: ResultSource,
    skeleton: Skeleton,
    *,
    detection_area: Literal["keypoints", "bbox"] = "keypoints",
) -> CocoStats:
    """Score result rows against COCO annotations, both as content or as a JSON file.

    Args:
        ground_truth: annotations of all images of the set, those without results too.
        results: rows of `image_id`, `category_id`, `keypoints`, `score` (and `bbox`).
        skeleton: decides the number of keypoints and the sigmas.
        detection_area: what decides whether an unmatched detection is medium or large: the box
            around its keypoints, or the `bbox` of the row (mmpose 1.x).

    Raises:
        DataError: a file is malformed, a number is not finite, an image is unknown, or nobody
            has labelled keypoints.
        InputError: the skeleton is one of whole body.
    """
    if len(skeleton.parts) > 1:
        raise InputError(f"skeleton {skeleton.name!r} has parts; use evaluate_wholebody")
    people = _read_people(ground_truth, skeleton)
    found = read_results(results, skeleton, people, area_of_bbox=detection_area == "bbox")
    return _score(people, found, skeleton, (0, skeleton.num_keypoints))


def evaluate_wholebody(
    ground_truth: AnnotationSource, results: ResultSource, skeleton: Skeleton
) -> WholeBodyStats:
    """Score whole-body rows part by part; arguments and errors as in `evaluate_coco`.

    Every part uses the person's score and segment area, the box around the body keypoints as
    the area of a detection, and the people with a labelled keypoint of that part.

    Quirk: the `*_valid` flags of the annotations are not consulted, as upstream does not.
    """
    spans = dict(skeleton.parts) | {"whole": (0, skeleton.num_keypoints)}
    parts = [field.name for field in dataclasses.fields(WholeBodyStats)]
    if set(spans) != set(parts):
        raise InputError(f"skeleton {skeleton.name!r} is not that of whole body; use evaluate_coco")
    people = _read_people(ground_truth, skeleton)
    found = read_results(results, skeleton, people, area_of_bbox=False)
    # one after the other, a third of a second each: threads gain nothing, and a process that may
    # hold a CUDA context is not forked for less than a second
    return WholeBodyStats(**{part: _score(people, found, skeleton, spans[part]) for part in parts})


def _read_people(source: AnnotationSource, skeleton: Skeleton) -> Annotations:
    """Return the people, those of an image in a row."""
    people = read_annotations(source, skeleton)
    if not people.is_counted.any():
        raise DataError(f"{people.source} holds nobody with labelled keypoints; AP is undefined")
    return people.select(np.argsort(people.image_ids, kind="stable"))


def _score(
    people: Annotations, found: Results, skeleton: Skeleton, span: tuple[int, int]
) -> CocoStats:
    """Score a range of keypoints; people without a label in it are ignored."""
    part = slice(*span)
    is_positive = (found.keypoints[:, part, 2] > 0).any(axis=1)
    rows = _best_per_image(found, np.flatnonzero(is_positive))
    best = Results(
        image_ids=found.image_ids[rows],
        scores=found.scores[rows],
        areas=found.areas[rows],
        keypoints=found.keypoints[rows, part],
    )
    matches = match(
        people.of_keypoints(part), best, skeleton.sigmas[part], _THRESHOLDS,
        list(_AREA_RANGES.values()),
    )  # fmt: skip
    precision, recall = curves(best.scores, matches, _RECALL_POINTS)
    values: dict[str, float] = {}
    for a, ending in enumerate(_AREA_RANGES):
        for kind, each in (("ap", precision[a]), ("ar", recall[a])):
            values[kind + ending] = float(np.mean(each))
            if not ending:  # thresholds 0.50, 0.55, ..., 0.95
                values[f"{kind}50"], values[f"{kind}75"] = (float(np.mean(each[t])) for t in (0, 5))
    return CocoStats(**values, removed=int((~is_positive).sum()))


def _best_per_image(found: Results, rows: Array) -> Array:
    """Return those of `rows` that are among the 20 best of their image, by image and score."""
    rows = rows[np.lexsort((-found.scores[rows], found.image_ids[rows]))]
    first, counts = np.unique(found.image_ids[rows], return_index=True, return_counts=True)[1:]
    rank = np.arange(len(rows)) - np.repeat(first, counts)
    best: Array = rows[rank < _MAX_DETECTIONS]
    return best
