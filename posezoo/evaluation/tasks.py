"""What differs between data sets: files to samples, outputs to rows, rows to statistics.

A task is made once per run. `predict` turns any subset of its samples into rows, in order;
`score` takes the rows of all samples. In between, rows are plain JSON, so that they can be
written, merged and read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import PosePredictor, build_transform
from ..datasets.coco import read_annotations
from ..datasets.samples import ClassSample, ImageSample, MpiiSample, read_coco, read_mpii
from ..device import Download, upload
from ..errors import DataError, InputError
from ..predictor import CropRequest
from ..transforms import load_image
from .metrics.coco import coco_results, evaluate_coco, evaluate_wholebody
from .metrics.imagenet import evaluate_classification, score_logits
from .metrics.pckh import MpiiTruth, evaluate_pckh, read_mpii_truth
from .reading import BadImage, ReadAhead, read_sample

__all__ = ["CocoTask", "ImagenetTask", "MpiiTask", "Rows", "Task"]

Rows = list[Any]
"""What one sample gives, as JSON types."""

_CPU_BATCH = 16  # larger batches fall out of a CPU's cache
_DIGITS = 4  # of written coordinates and scores
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)
_FAR = -1e5  # where the joints of a person without prediction lie: nowhere near


class Task(Protocol):
    """One data set with its boxes, and the model that is asked about it."""

    box_source: str
    unit: str
    """What a forward takes many of: "box" or "image"."""

    @property
    def paths(self) -> list[Path]:
        """The image of each sample."""

    @property
    def counts(self) -> list[int]:
        """The number of units in each sample."""

    @property
    def seconds_waited(self) -> float:
        """How long `predict` had to wait for images."""

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        """Yield the rows of the samples, in order."""

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        """Return the statistics, given the rows of every sample in order."""

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        """Return what the result file holds."""


class _PoseTask:
    """Crops of people, batches filled across images that threads read ahead."""

    samples: Sequence[ImageSample | MpiiSample]
    unit = "box"

    def __init__(self, predictor: PosePredictor, workers: int) -> None:
        self.predictor = predictor
        self.read_ahead = ReadAhead(read_sample, workers)

    @property
    def paths(self) -> list[Path]:
        return [sample.path for sample in self.samples]

    @property
    def seconds_waited(self) -> float:
        return self.read_ahead.seconds_waited

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        sizes: deque[np.ndarray | BadImage] = deque()

        def requests() -> Iterator[CropRequest]:
            for sample, image in zip(chosen, self.read_ahead(chosen)):
                if isinstance(image, BadImage):
                    sizes.append(image)
                    nobody = np.zeros((0, 2), np.float32)
                    yield CropRequest(image=_NO_IMAGE, centers=nobody, box_sizes=nobody)
                    continue
                request = self.request(sample, image)
                sizes.append(request.box_sizes)
                yield request

        for sample, (keypoints, scores) in zip(chosen, self.predictor.predict_crops(requests())):
            box_sizes = sizes.popleft()
            if isinstance(box_sizes, BadImage):
                yield box_sizes
            else:
                yield self.rows(sample, keypoints, scores, box_sizes)

    def require_sizes(self, box_sizes: np.ndarray, box_ids: np.ndarray, source: Any) -> None:
        """Refuse boxes `(N, 2)` that no crop can be cut from, before anything runs.

        Raises:
            DataError: a padded box without width (for "tokenpose": of one pixel), or one that
                is not finite in float32.
        """
        least = 1 if self.predictor.cfg.input.geometry == "tokenpose" else 0
        bad = ~(np.isfinite(box_sizes).all(axis=1) & (box_sizes[:, 0] > least))
        if bad.any():
            i = int(bad.argmax())
            raise DataError(
                f"{source}: box {box_ids[i]} is {box_sizes[i, 0]} x {box_sizes[i, 1]} pixels with "
                f"padding; valid: a finite width above {least}. {int(bad.sum())} of {len(bad)} "
                "boxes are like that: leave them out"
            )

    def request(self, sample: Any, image: np.ndarray) -> CropRequest:
        raise NotImplementedError

    def rows(
        self, sample: Any, keypoints: np.ndarray, scores: np.ndarray, box_sizes: np.ndarray
    ) -> Rows:
        raise NotImplementedError


class CocoTask(_PoseTask):
    """COCO or COCO-WholeBody keypoints, whichever the model is for.

    Args:
        predictor: the model and every setting.
        annotations, images, boxes: see `read_coco`.
        workers: threads that read images.
        limit: only the first so many images.
    """

    def __init__(
        self,
        predictor: PosePredictor,
        annotations: Path,
        images: Path,
        boxes: Literal["gt"] | Path,
        *,
        workers: int = 4,
        limit: int | None = None,
    ) -> None:
        super().__init__(predictor, workers)
        geometry: Any = predictor.cfg.input.geometry
        self.has_bboxes = geometry == "mmpose1"
        people = read_annotations(annotations, predictor.skeleton)
        samples = read_coco(people, images, boxes=boxes, skeleton=predictor.skeleton, rule=geometry)
        self.samples: list[ImageSample] = samples[:limit]
        self.people = people
        if limit is not None:
            self.people = people.of_images([sample.image_id for sample in self.samples])
        self.box_source = samples[0].box_source
        with np.errstate(over="ignore", invalid="ignore"):  # told apart below
            requests = [self.request(sample, _NO_IMAGE) for sample in self.samples]
        self.require_sizes(
            np.concatenate([request.box_sizes for request in requests]),
            np.concatenate([sample.box_ids for sample in self.samples]),
            annotations if boxes == "gt" else boxes,
        )

    @property
    def counts(self) -> list[int]:
        return [len(sample.bboxes) for sample in self.samples]

    def request(self, sample: ImageSample, image: np.ndarray) -> CropRequest:
        return self.predictor.request(image, sample.bboxes)

    def rows(
        self, sample: ImageSample, keypoints: np.ndarray, scores: np.ndarray, box_sizes: np.ndarray
    ) -> Rows:
        return coco_results(
            image_id=sample.image_id,
            box_ids=sample.box_ids,
            keypoints=keypoints,
            keypoint_scores=scores,
            bbox_scores=sample.bbox_scores,
            areas=box_sizes.astype(np.float64).prod(axis=1),
            skeleton=self.predictor.skeleton,
            # mmpose 1.x writes boxes, and its scorer then takes the areas from them
            bboxes=sample.bboxes if self.has_bboxes else None,
            digits=_DIGITS,
        )

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        return [row for of_image in rows for row in of_image]

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        results, skeleton = self.result_rows(rows), self.predictor.skeleton
        if len(skeleton.parts) > 1:
            return evaluate_wholebody(self.people, results, skeleton).to_dict()
        area: Any = "bbox" if self.has_bboxes else "keypoints"
        return evaluate_coco(self.people, results, skeleton, detection_area=area).to_dict()


class MpiiTask(_PoseTask):
    """MPII single persons by annotated centre and scale.

    Args:
        predictor: the model and every setting.
        annotations: `valid.json`.
        images: folder of the images.
        truth: `gt_valid.mat`.
        workers, limit: as in `CocoTask`.
    """

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
        count = sum(len(sample.person_ids) for sample in everybody)
        if count != len(self.truth.keypoints):
            raise DataError(
                f"{annotations} has {count} people, {truth} {len(self.truth.keypoints)}; they "
                "belong to different sets"
            )
        self.samples: list[MpiiSample] = everybody[:limit]
        self.require_sizes(
            np.concatenate([sample.box_sizes for sample in self.samples]),
            np.concatenate([sample.person_ids for sample in self.samples]),
            annotations,
        )
        self.people = sorted(int(i) for s in self.samples for i in s.person_ids)

    @property
    def counts(self) -> list[int]:
        return [len(sample.person_ids) for sample in self.samples]

    def request(self, sample: MpiiSample, image: np.ndarray) -> CropRequest:
        return CropRequest(image=image, centers=sample.centers, box_sizes=sample.box_sizes)

    def rows(
        self, sample: MpiiSample, keypoints: np.ndarray, scores: np.ndarray, box_sizes: np.ndarray
    ) -> Rows:
        return [
            {"person_id": int(i), "keypoints": points.tolist(), "keypoint_scores": s.tolist()}
            for i, points, s in zip(sample.person_ids, _rounded(keypoints), _rounded(scores))
        ]

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        flat = [row for of_image in rows for row in of_image]
        return sorted(flat, key=lambda row: row["person_id"])

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        found = {row["person_id"]: row["keypoints"] for row in self.result_rows(rows)}
        nowhere = [[_FAR, _FAR]] * 16
        predictions = np.array([found.get(i, nowhere) for i in self.people])
        truth = MpiiTruth(
            keypoints=self.truth.keypoints[self.people],
            is_missing=self.truth.is_missing[self.people],
            head_sizes=self.truth.head_sizes[self.people],
        )
        return evaluate_pckh(predictions, truth).to_dict()


class ImagenetTask:
    """ImageNet-1k classification.

    Args:
        model: a classifier; `device`, `dtype` and `batch_size` as in `PosePredictor`.
        samples: images with labels, from `read_imagenet_folders` or `read_imagenet_flat`.
    """

    box_source = "none"
    unit = "image"

    def __init__(
        self,
        model: nn.Module,
        samples: Sequence[ClassSample],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 128,
        workers: int = 4,
    ) -> None:
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.model = model.to(device, self.wide).eval()
        self.samples = samples
        self.device, self.dtype = device, dtype
        self.batch_size = min(batch_size, _CPU_BATCH) if device.type == "cpu" else batch_size
        self.read_ahead = ReadAhead(self._read, workers)
        self.transform: Any = build_transform(
            model.pretrained_cfg  # type: ignore[arg-type]
        )

    @property
    def paths(self) -> list[Path]:
        return [sample.path for sample in self.samples]

    @property
    def counts(self) -> list[int]:
        return [1] * len(self.samples)

    @property
    def seconds_waited(self) -> float:
        return self.read_ahead.seconds_waited

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        images = self.read_ahead(chosen)
        previous: Iterator[Rows | BadImage] = iter(())
        for first in range(0, len(chosen), self.batch_size):
            batch = chosen[first : first + self.batch_size]
            running = self._start(batch, [next(images) for _ in batch])
            yield from previous  # fetched after the next batch was started
            previous = running
        yield from previous

    def _read(self, sample: ClassSample) -> Tensor | BadImage:
        try:
            return self.transform(Image.fromarray(load_image(sample.path)))
        except InputError as error:
            return BadImage(error)

    @torch.inference_mode()
    def _start(
        self, samples: Sequence[ClassSample], images: Sequence[Tensor | BadImage]
    ) -> Iterator[Rows | BadImage]:
        """Run a batch; what is returned waits for it."""
        good = [i for i, image in enumerate(images) if not isinstance(image, BadImage)]
        if not good:
            return iter(images)  # type: ignore[arg-type]
        batch = torch.stack([images[i] for i in good])  # type: ignore[misc]
        labels = upload(np.array([samples[i].label for i in good]), self.device)
        half = self.dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(self.device.type, self.dtype if half else None, enabled=half):
            logits = self.model(upload(batch, self.device).to(self.wide))
        found = Download(score_logits(logits, labels))
        return self._rows(images, found)

    @staticmethod
    def _rows(images: Sequence[Tensor | BadImage], found: Download) -> Iterator[Rows | BadImage]:
        rows = iter(found.numpy().astype(np.float64).round(6).tolist())
        for image in images:
            yield image if isinstance(image, BadImage) else next(rows)

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        return list(rows)

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        return evaluate_classification(np.array([row for row in rows if row])).to_dict()


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64).round(_DIGITS)
