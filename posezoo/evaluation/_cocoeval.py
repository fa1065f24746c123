"""COCOeval for keypoints, with pycocotools' numbers in a fraction of its time.

pycocotools compares people pair by pair and tries every pair at every threshold in Python.
Here OKS is one array per image, only pairs that can match are tried, and curves are computed
for whole arrays. Sums run in the same order, so that results agree to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from pycocotools.cocoeval import COCOeval
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "scoring COCO keypoints needs pycocotools; run: pip install 'posezoo[eval]'"
    ) from error

__all__ = ["FastCOCOeval"]

Array = NDArray[Any]
People = list[dict[str, Any]]


class FastCOCOeval(COCOeval):
    """Drop-in for `COCOeval(ground_truth, results, "keypoints")`.

    Everything not named here, `evaluate()` and `summarize()` too, is pycocotools' own.
    """

    def computeOks(self, imgId: int, catId: int) -> Array | list[Any]:
        """Return OKS of the best detections with all people of an image, `(D, G)`.

        OKS is the mean of exp(-d² / (2 area (2 sigma)²)) over the labelled keypoints. For people
        without any, d is the distance to the box grown by its own size on every side, and
        the mean runs over all keypoints.
        """
        people = self._gts[imgId, catId]
        detections = _best(self._dts[imgId, catId], self.params.maxDets[-1])
        if not people or not detections:
            return []
        found = _keypoints(detections)[:, None]  # (D, 1, K, 3)
        truth = _keypoints(people)[None]  # (1, G, K, 3)
        is_labelled = truth[0, :, :, 2] > 0  # (G, K)
        has_labels: Array = np.any(is_labelled, axis=1)  # (G,)
        offsets = found[..., :2] - truth[..., :2]  # (D, G, K, 2)
        if not has_labels.all():
            x, y, width, height = np.array([person["bbox"] for person in people]).T
            low = np.stack([x - width, y - height], axis=1)[:, None]  # (G, 1, 2)
            high = np.stack([x + width * 2, y + height * 2], axis=1)[:, None]
            points = found[..., :2]
            beyond = np.maximum(0, low - points) + np.maximum(0, points - high)
            offsets = np.where(has_labels[:, None, None], offsets, beyond)
        areas = np.array([person["area"] for person in people])[:, None]  # (G, 1)
        spread = (np.asarray(self.params.kpt_oks_sigmas) * 2) ** 2  # (K,)
        distances = offsets[..., 0] ** 2 + offsets[..., 1] ** 2
        closeness = np.exp(-(distances / spread / (areas + np.spacing(1)) / 2))  # (D, G, K)
        oks = np.empty(closeness.shape[:2])
        for g, chosen in enumerate(np.where(has_labels[:, None], is_labelled, True)):
            # contiguous rows of the labelled ones, so that numpy adds them as pycocotools does
            rows = np.ascontiguousarray(closeness[:, g, chosen])
            oks[:, g] = rows.sum(axis=1) / rows.shape[1]
        return oks

    def evaluateImg(
        self, imgId: int, catId: int, aRng: list[float], maxDet: int
    ) -> dict[str, Any] | None:
        """Match the detections of an image for one range of areas."""
        people, all_detections = self._gts[imgId, catId], self._dts[imgId, catId]
        if not people and not all_detections:
            return None
        detections = _best(all_detections, maxDet)
        smallest, largest = aRng
        ignored = [bool(p["ignore"]) or not smallest <= p["area"] <= largest for p in people]
        order = sorted(range(len(people)), key=ignored.__getitem__)  # people to find come first
        people, ignored = [people[i] for i in order], [ignored[i] for i in order]
        shape = (len(self.params.iouThrs), len(detections))
        # ids of the partners, 0 for none, as accumulate() and users of evalImgs expect them
        detection_match, person_match = np.zeros(shape), np.zeros((shape[0], len(people)))
        detection_ignored = np.zeros(shape, dtype=bool)
        oks = self.ious[imgId, catId]
        if len(oks):
            is_crowd = [bool(p["iscrowd"]) for p in people]
            for t, d, g in _matches(oks[:, order], self.params.iouThrs, ignored, is_crowd):
                detection_match[t, d] = people[g]["id"]
                person_match[t, g] = detections[d]["id"]
                detection_ignored[t, d] = ignored[g]
        outside = np.array([not smallest <= d["area"] <= largest for d in detections], dtype=bool)
        return {
            "image_id": imgId,
            "category_id": catId,
            "aRng": aRng,
            "maxDet": maxDet,
            "dtIds": [d["id"] for d in detections],
            "gtIds": [p["id"] for p in people],
            "dtMatches": detection_match,
            "gtMatches": person_match,
            "dtScores": [d["score"] for d in detections],
            "gtIgnore": np.array(ignored, dtype=int),
            "dtIgnore": detection_ignored | ((detection_match == 0) & outside),
        }

    def accumulate(self) -> None:
        """Turn the matches into precision and recall at the parameters of `evaluate()`.

        `eval` holds precision and scores `(T, R, categories, areas, 1)` and recall
        `(T, categories, areas, 1)`, -1 where there is nobody to find.
        """
        params = self._paramsEval
        counts = len(params.iouThrs), len(params.recThrs), len(params.catIds), len(params.areaRng)
        precision, scores = -np.ones((*counts, 1)), -np.ones((*counts, 1))
        recall = -np.ones((counts[0], *counts[2:], 1))
        images = len(params.imgIds)
        for i in range(counts[2] * counts[3]):  # evalImgs runs over categories, areas, images
            found = [e for e in self.evalImgs[i * images : (i + 1) * images] if e is not None]
            k, a = divmod(i, counts[3])
            if found and not np.concatenate([e["gtIgnore"] for e in found]).all():
                curves = _curves(found, params.recThrs)
                precision[:, :, k, a, 0], recall[:, k, a, 0], scores[:, :, k, a, 0] = curves
        self.eval = {
            "params": params,
            "counts": [*counts, 1],
            "precision": precision,
            "recall": recall,
            "scores": scores,
        }


def _best(detections: People, count: int) -> People:
    """Return the best-scored detections, earlier ones first among equals."""
    return sorted(detections, key=lambda detection: -detection["score"])[:count]


def _keypoints(people: People) -> Array:
    """Return `(N, K, 3)`."""
    return np.array([p["keypoints"] for p in people]).reshape(len(people), -1, 3)


def _matches(
    oks: Array, thresholds: Array, ignored: list[bool], is_crowd: list[bool]
) -> list[tuple[int, int, int]]:
    """Match detections, best first, at each threshold; return (threshold, detection, person).

    A detection takes the free person of highest OKS, the later one among equals; people to
    ignore only if no other is left. Crowds stay free.
    """
    limits = np.minimum(thresholds, 1 - 1e-10).tolist()
    least = min(limits)
    ranked = []  # per detection: its candidates (OKS, person), first choice first
    for d, row in enumerate(oks.tolist()):
        near = [(not ignored[g], value, g) for g, value in enumerate(row) if value >= least]
        if near:
            ranked.append((d, [(value, g) for _, value, g in sorted(near, reverse=True)]))
    found = []
    for t, limit in enumerate(limits):
        taken = set()
        for d, candidates in ranked:
            for value, g in candidates:
                if value >= limit and g not in taken:
                    found.append((t, d, g))
                    if not is_crowd[g]:
                        taken.add(g)
                    break
    return found


def _curves(found: list[dict[str, Any]], recall_points: Array) -> tuple[Array, Array, Array]:
    """Return precision `(T, R)`, largest recall `(T,)` and scores `(T, R)` over many images."""
    all_scores = np.concatenate([e["dtScores"] for e in found])
    order = np.argsort(-all_scores, kind="stable")
    is_match = np.concatenate([e["dtMatches"] for e in found], axis=1)[:, order] != 0
    counts = ~np.concatenate([e["dtIgnore"] for e in found], axis=1)[:, order].astype(bool)
    people = np.count_nonzero(np.concatenate([e["gtIgnore"] for e in found]) == 0)
    right = np.cumsum(is_match & counts, axis=1).astype(np.float64)  # (T, D)
    wrong = np.cumsum(~is_match & counts, axis=1).astype(np.float64)
    recall = right / people
    precision = right / (wrong + right + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    at_points = np.zeros((len(recall), len(recall_points)))
    scores = np.zeros_like(at_points)
    for t, row in enumerate(recall):
        index = np.searchsorted(row, recall_points, side="left")
        index = index[index < len(row)]
        at_points[t, : len(index)] = precision[t, index]
        scores[t, : len(index)] = all_scores[order][index]
    return at_points, recall[:, -1] if len(order) else np.zeros(len(recall)), scores
