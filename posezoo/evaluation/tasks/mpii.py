"""MPII: single persons by annotated centre and scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.mpii import MpiiSample, read_mpii, read_mpii_truth
from ...errors import DataError
from ...predictor import CropRequest, PosePredictor
from ..metrics.pckh import evaluate_pckh
from ..reading import Rows
from .base import Array, PoseTask, rounded

__all__ = ["MpiiTask"]

_FAR = -1e5  # coordinates of the joints of a person without prediction


class MpiiTask(PoseTask[MpiiSample]):
    """Joints of MPII, scored by PCKh.

    Args:
        predictor: the model and every setting.
        annotations: `valid.json`.
        images: folder of the images.
        truth: `gt_valid.mat`.
        workers: threads that read images.
        limit: only the first so many images.
    """

    samples: Sequence[MpiiSample]
    box_source = "mpii"

    def __init__(
        self,
        predictor: PosePredictor,
        annotations: Path,
        images: Path,
        truth: Path,
        *,
        workers: int = 4,
        limit: int | None = None,
    ) -> None:
        super().__init__(predictor, workers)
        everybody = read_mpii(annotations, images)
        self.truth = read_mpii_truth(truth)
        count = sum(sample.count for sample in everybody)
        if count != len(self.truth.keypoints):
            raise DataError(
                f"{annotations} has {count} people, {truth} {len(self.truth.keypoints)}; they "
                "belong to different sets"
            )
        self.samples = everybody[:limit]
        self.require_sizes(
            np.concatenate([sample.box_sizes for sample in self.samples]),
            np.concatenate([sample.person_ids for sample in self.samples]),
            annotations,
        )
        self.counts = {"people": sum(sample.count for sample in self.samples)}
        self.people = sorted(int(i) for s in self.samples for i in s.person_ids)

    def request(self, sample: MpiiSample, image: NDArray[np.uint8]) -> CropRequest:
        return CropRequest(image=image, centers=sample.centers, box_sizes=sample.box_sizes)

    def rows(self, sample: MpiiSample, keypoints: Array, scores: Array, box_sizes: Array) -> Rows:
        return [
            {"person_id": int(i), "keypoints": points.tolist(), "keypoint_scores": s.tolist()}
            for i, points, s in zip(sample.person_ids, rounded(keypoints), rounded(scores))
        ]

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        return sorted(super().result_rows(rows), key=lambda row: row["person_id"])

    def score(self, results: Rows) -> dict[str, Any]:
        found = {row["person_id"]: row["keypoints"] for row in results}
        nowhere = [[_FAR, _FAR]] * 16
        predictions = np.array([found.get(i, nowhere) for i in self.people])
        return evaluate_pckh(predictions, self.truth.select(self.people)).to_dict()
