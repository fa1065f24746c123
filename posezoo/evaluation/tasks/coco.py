"""COCO and COCO-WholeBody keypoints, and sets in their form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...datasets.coco import Annotations, read_annotations
from ...datasets.samples import ImageSample, read_coco
from ...predictor import CropRequest, PosePredictor
from ..metrics.coco import evaluate_coco, evaluate_wholebody
from ..metrics.coco_rows import coco_results
from ..reading import Rows
from .base import DIGITS, NO_IMAGE, Array, PoseTask

__all__ = ["CocoTask", "area_notes"]


class CocoTask(PoseTask[ImageSample]):
    """Keypoints of a COCO-form set, scored by AP.

    Args:
        predictor: the model and every setting.
        annotations, images, boxes: see `read_coco`.
        workers: threads that read images.
        limit: only the first so many images.
        subset: leave out images that are missing.
        category: see `person_category`.
    """

    samples: Sequence[ImageSample]

    def __init__(
        self,
        predictor: PosePredictor,
        annotations: Path,
        images: Path,
        boxes: Literal["gt"] | Path,
        *,
        workers: int = 4,
        limit: int | None = None,
        subset: bool = False,
        category: str | None = None,
    ) -> None:
        super().__init__(predictor, workers)
        skeleton = predictor.skeleton
        convention = predictor.convention
        self.has_bboxes = convention.results_have_boxes
        people = read_annotations(annotations, skeleton, category)
        samples = read_coco(
            people, images, boxes=boxes, skeleton=skeleton, rule=convention, subset=subset
        )
        self.samples = samples[:limit]
        self.people = people
        if limit is not None or subset:
            self.people = people.of_images([sample.image_id for sample in self.samples])
        self.box_source = samples[0].box_source
        self.counts = {
            "images": len(self.people.all_image_ids),
            "people": int(self.people.is_counted.sum()),
            f"boxes of {self.box_source}": sum(sample.count for sample in self.samples),
        }
        boxes_xyxy = np.concatenate([sample.bboxes for sample in self.samples])
        tiny = int((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] < 1).any(axis=1).sum())
        self.notes = area_notes(self.people)
        self.notes += [f"boxes of less than a pixel: {tiny}"] * bool(tiny)
        with np.errstate(over="ignore", invalid="ignore"):  # told apart below
            requests = [self.request(sample, NO_IMAGE) for sample in self.samples]
        self.require_sizes(
            np.concatenate([request.box_sizes for request in requests]),
            np.concatenate([sample.box_ids for sample in self.samples]),
            annotations if boxes == "gt" else boxes,
        )

    def request(self, sample: ImageSample, image: NDArray[np.uint8]) -> CropRequest:
        return self.predictor.request(image, sample.bboxes)

    def rows(self, sample: ImageSample, keypoints: Array, scores: Array, box_sizes: Array) -> Rows:
        return coco_results(
            image_id=sample.image_id,
            category=self.people.category,
            box_ids=sample.box_ids,
            keypoints=keypoints,
            keypoint_scores=scores,
            bbox_scores=sample.bbox_scores,
            areas=box_sizes.astype(np.float64).prod(axis=1),
            skeleton=self.predictor.skeleton,
            # mmpose 1.x writes boxes, and its scorer then takes the areas from them
            bboxes=sample.bboxes if self.has_bboxes else None,
            digits=DIGITS,
        )

    def score(self, results: Rows) -> dict[str, Any]:
        skeleton = self.predictor.skeleton
        if len(skeleton.parts) > 1:
            return evaluate_wholebody(self.people, results, skeleton).to_dict()
        area: Literal["bbox", "keypoints"] = "bbox" if self.has_bboxes else "keypoints"
        return evaluate_coco(self.people, results, skeleton, detection_area=area).to_dict()


def area_notes(people: Annotations) -> list[str]:
    """Say how many people have the area of their box."""
    count = people.derived_areas
    return [f"people without an area, for which that of their box counts: {count}"] * bool(count)
