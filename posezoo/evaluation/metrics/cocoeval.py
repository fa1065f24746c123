"""pycocotools' COCOeval for keypoints with the matching of a whole data set at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .matching import Found, People, curves, match, oks_blocks

try:
    from pycocotools.cocoeval import COCOeval
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "scoring COCO keypoints needs pycocotools; run: pip install 'posezoo[eval]'"
    ) from error

__all__ = ["FastCOCOeval"]

Array = NDArray[Any]
Rows = list[dict[str, Any]]


class FastCOCOeval(COCOeval):
    """Drop-in for `COCOeval(ground_truth, results, "keypoints")`: its numbers, much sooner.

    Everything not named here, `evaluate()` and `summarize()` too, is pycocotools' own. `ious`,
    `evalImgs` and `eval` hold what they hold there.

    Quirk: pycocotools takes a person or detection with id 0 for nobody; here it counts.
    """

    def _prepare(self) -> None:
        """Match everybody as soon as the rows are there; the methods below hand it out."""
        super()._prepare()
        if len(self.params.maxDets) != 1 or not self.params.useCats:
            raise InputError(
                f"maxDets is {self.params.maxDets} and useCats {self.params.useCats}; keypoints "
                "are scored at one number of detections, [20], and by category, 1"
            )
        self._categories = {k: _Category(self, k) for k in self.params.catIds}

    def computeOks(self, imgId: int, catId: int) -> Array | list[Any]:
        """Return OKS of the best detections with all people of an image, `(D, G)`."""
        return self._categories[catId].oks.get(imgId, [])

    def evaluateImg(
        self, imgId: int, catId: int, aRng: list[float], maxDet: int
    ) -> dict[str, Any] | None:
        """Return the matches of an image for one range of areas."""
        entry = self._categories[catId].entry(imgId, self.params.areaRng.index(aRng))
        if entry is None:
            return None
        return {
            "image_id": imgId, "category_id": catId, "aRng": aRng, "maxDet": maxDet, **entry,
        }  # fmt: skip

    def accumulate(self) -> None:
        """Turn the matches into precision and recall.

        `eval` holds precision and scores `(T, R, categories, areas, 1)` and recall
        `(T, categories, areas, 1)`, -1 where there is nobody to find.
        """
        params = self._paramsEval
        counts = len(params.iouThrs), len(params.recThrs), len(params.catIds), len(params.areaRng)
        precision, scores = -np.ones((*counts, 1)), -np.ones((*counts, 1))
        recall = -np.ones((counts[0], *counts[2:], 1))
        for k, category in enumerate(self._categories.values()):
            for a, found in enumerate(curves(category.found, category.matches, params.recThrs)):
                if found is not None:
                    precision[:, :, k, a, 0] = found.precision
                    scores[:, :, k, a, 0] = found.scores
                    recall[:, k, a, 0] = found.recall
        self.eval = {
            "params": params,
            "counts": [*counts, 1],
            "precision": precision,
            "recall": recall,
            "scores": scores,
        }


class _Category:
    """The people and detections of one category, matched."""

    def __init__(self, evaluation: FastCOCOeval, category: int) -> None:
        params = evaluation.params
        images = [int(i) for i in params.imgIds]
        persons = [evaluation._gts[i, category] for i in images]
        detections = [_best(evaluation._dts[i, category], params.maxDets[-1]) for i in images]
        self.persons, self.person_rows = _flattened(images, persons)
        self.detections, self.detection_rows = _flattened(images, detections)
        count = len(params.kpt_oks_sigmas)
        self.people = People(
            image_ids=_column(self.persons, "image_id"),
            bboxes_xywh=_column(self.persons, "bbox", 4),
            areas=_column(self.persons, "area"),
            keypoints=_column(self.persons, "keypoints", count, 3),
            is_crowd=_column(self.persons, "iscrowd") > 0,
            is_ignored=_column(self.persons, "ignore") > 0,
        )
        self.found = Found(
            image_ids=_column(self.detections, "image_id"),
            scores=_column(self.detections, "score"),
            areas=_column(self.detections, "area"),
            keypoints=_column(self.detections, "keypoints", count, 3),
        )
        blocks = list(oks_blocks(self.people, self.found, params.kpt_oks_sigmas))
        self.matches = match(blocks, self.people, self.found, params.iouThrs, params.areaRng)
        self.oks = {
            self.persons[persons[0]]["image_id"]: oks[rows >= 0]
            for block in blocks
            for rows, persons, oks in zip(block.detections, block.people, block.oks)
        }
        # the last one stands for nobody: 0, as in pycocotools
        self.person_ids = np.array([person["id"] for person in self.persons] + [0])
        self.detection_ids = np.array([found["id"] for found in self.detections] + [0])

    def entry(self, image_id: int, a: int) -> dict[str, Any] | None:
        """Return what `evalImgs` holds of an image in the area range number `a`."""
        persons, detections = self.person_rows[image_id], self.detection_rows[image_id]
        if persons == detections == slice(0, 0):
            return None
        matches, found = self.matches, self.detections[detections]
        ignored = matches.people_ignored[a, persons]
        order = np.argsort(ignored, kind="stable")  # people to find stand first
        return {
            "dtIds": [detection["id"] for detection in found],
            "gtIds": [self.persons[persons][i]["id"] for i in order],
            "dtMatches": self.person_ids[matches.person_of[a, :, detections]].astype(float),
            "gtMatches": self.detection_ids[matches.detection_of[a, :, persons][:, order]].astype(
                float
            ),
            "dtScores": [detection["score"] for detection in found],
            "gtIgnore": ignored[order].astype(int),
            "dtIgnore": matches.is_ignored[a, :, detections],
        }


def _best(detections: Rows, count: int) -> Rows:
    """Return the best-scored detections, earlier ones first among equals."""
    return sorted(detections, key=lambda detection: -detection["score"])[:count]


def _flattened(images: list[int], rows: list[Rows]) -> tuple[Rows, dict[int, slice]]:
    """Return the rows of all images in one list, and where those of each image stand."""
    flat: Rows = []
    places = {}
    for image_id, of_image in zip(images, rows):
        places[image_id] = slice(len(flat), len(flat) + len(of_image)) if of_image else slice(0, 0)
        flat += of_image
    return flat, places


def _column(rows: Rows, field: str, *shape: int) -> Array:
    """Return a field of all rows, `(N, *shape)`."""
    return np.array([row[field] for row in rows]).reshape(-1, *shape)
