"""What differs between data sets: files to samples, outputs to rows, rows to statistics.

A task is made once per run. `predict` turns any subset of its samples into rows, in order;
`score` takes the rows of all samples. In between, rows are plain JSON, so that they can be
written, merged and read again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from .. import PosePredictor, build_transform
from ..errors import DataError, InputError
from ..predictor import CropRequest
from ..transforms import load_image
from .coco import coco_results, evaluate_coco, evaluate_wholebody
from .datasets import ClassSample, ImageSample, MpiiSample, read_coco, read_mpii
from .imagenet import evaluate_classification, score_logits
from .pckh import MpiiTruth, evaluate_pckh, read_mpii_truth

__all__ = ["BadImage", "CocoTask", "ImagenetTask", "MpiiTask", "Rows", "Task"]

Rows = list[Any]
"""What one sample gives, as JSON types."""

_CPU_BATCH = 16  # larger batches fall out of a CPU's cache
_FAR = -1e5  # where the joints of a person without prediction lie: nowhere near


class BadImage(str):
    """The reason for which the image of a sample could not be used."""


class Task(Protocol):
    """One data set with its boxes, and the model that is asked about it."""

    box_source: str

    @property
    def paths(self) -> list[Path]:
        """The image of each sample."""

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        """Yield the rows of the samples, in order."""

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        """Return the statistics, given the rows of every sample in order."""

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        """Return what the result file holds."""


class _PoseTask:
    """Crops of people, batches filled across images that threads read ahead."""

    samples: Sequence[ImageSample | MpiiSample]

    def __init__(self, predictor: PosePredictor, workers: int) -> None:
        self.predictor = predictor
        self.workers = workers

    @property
    def paths(self) -> list[Path]:
        return [sample.path for sample in self.samples]

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        sizes: deque[np.ndarray | BadImage] = deque()

        def requests() -> Iterator[CropRequest]:
            for sample, image in zip(chosen, read_ahead(chosen, _read, self.workers)):
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
        self.annotations = annotations
        self.limit = limit
        self.geometry = predictor.cfg.input.geometry
        self.samples: list[ImageSample] = read_coco(
            annotations,
            images,
            boxes=boxes,
            skeleton=predictor.skeleton,
            rule=self.geometry,  # type: ignore[arg-type]
        )[:limit]
        self.box_source = self.samples[0].box_source

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
            bboxes=sample.bboxes if self.geometry == "mmpose1" else None,
        )

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        return [row for of_image in rows for row in of_image]

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        truth: Any = json.loads(self.annotations.read_text(encoding="utf-8"))
        if self.limit is not None:
            wanted = {sample.image_id for sample in self.samples}
            truth["images"] = [i for i in truth["images"] if i["id"] in wanted]
            truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in wanted]
        results, skeleton = self.result_rows(rows), self.predictor.skeleton
        if self.predictor.cfg.dataset == "coco_wholebody":
            return evaluate_wholebody(truth, results, skeleton).to_dict()
        area: Any = "bbox" if self.geometry == "mmpose1" else "keypoints"
        return evaluate_coco(truth, results, skeleton, detection_area=area).to_dict()


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
        self.people = sorted(int(i) for s in self.samples for i in s.person_ids)

    def request(self, sample: MpiiSample, image: np.ndarray) -> CropRequest:
        return CropRequest(image=image, centers=sample.centers, box_sizes=sample.box_sizes)

    def rows(
        self, sample: MpiiSample, keypoints: np.ndarray, scores: np.ndarray, box_sizes: np.ndarray
    ) -> Rows:
        return [
            {"person_id": int(i), "keypoints": points.tolist(), "keypoint_scores": s.tolist()}
            for i, points, s in zip(sample.person_ids, keypoints, scores)
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
        self.model = model.to(device).eval()
        self.samples = samples
        self.device, self.dtype = device, dtype
        self.batch_size = min(batch_size, _CPU_BATCH) if device.type == "cpu" else batch_size
        self.workers = workers
        self.transform: Any = build_transform(
            model.pretrained_cfg  # type: ignore[arg-type]
        )

    @property
    def paths(self) -> list[Path]:
        return [sample.path for sample in self.samples]

    @torch.inference_mode()
    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        waiting: list[torch.Tensor | BadImage] = []
        labels: list[int] = []
        for sample, image in zip(chosen, read_ahead(chosen, self._read, self.workers)):
            waiting.append(image)
            labels.append(sample.label)
            if len(waiting) == self.batch_size:
                yield from self._run(waiting, labels)
                waiting, labels = [], []
        yield from self._run(waiting, labels)

    def _read(self, sample: ClassSample) -> torch.Tensor | BadImage:
        try:
            return self.transform(Image.fromarray(load_image(sample.path)))
        except InputError as error:
            return BadImage(error)

    def _run(
        self, images: list[torch.Tensor | BadImage], labels: list[int]
    ) -> Iterator[Rows | BadImage]:
        good = [(i, x) for i, x in enumerate(images) if not isinstance(x, BadImage)]
        found: dict[int, Rows] = {}
        if good:
            batch = torch.stack([x for _, x in good]).to(self.device, non_blocking=True)
            half = self.dtype != torch.float32
            with torch.autocast(self.device.type, self.dtype, enabled=half):
                logits = self.model(batch)
            wanted = torch.tensor([labels[i] for i, _ in good], device=self.device)
            rows = score_logits(logits, wanted).double().cpu().tolist()
            found = {i: row for (i, _), row in zip(good, rows)}
        for i, image in enumerate(images):
            yield image if isinstance(image, BadImage) else found[i]

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        return list(rows)

    def score(self, rows: Sequence[Rows]) -> dict[str, Any]:
        return evaluate_classification(np.array([row for row in rows if row])).to_dict()


# ------------------------------------------------------------------------------- reading

_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


def _read(sample: ImageSample | MpiiSample) -> np.ndarray | BadImage:
    try:
        image = load_image(sample.path)
    except InputError as error:
        return BadImage(error)
    size = getattr(sample, "size", None)
    if size is not None and image.shape[:2] != size:
        return BadImage(
            f"{sample.path} is {image.shape[0]}x{image.shape[1]} (HxW), "
            f"annotated as {size[0]}x{size[1]}: it is another image"
        )
    return image


def read_ahead(samples: Sequence[Any], read: Callable[[Any], Any], workers: int) -> Iterator[Any]:
    """Yield `read(sample)` in order, with a few dozen read ahead by threads.

    Pillow releases the interpreter lock while it decodes.
    """
    ahead: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for sample in samples:
                ahead.append(pool.submit(read, sample))
                if len(ahead) >= 8 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
