"""From images on disk to a table row: read, predict, score, record.

Images are read by worker threads (Pillow releases the interpreter lock), each once; the
predictor fills its batches across them. The settings are those of the model's recipe; whatever
else was chosen stands in the record.
"""

from __future__ import annotations

import json
import platform
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from .. import PosePredictor, __version__
from ..errors import DataError
from ..predictor import CropRequest
from ..transforms import load_image
from .coco import coco_results, evaluate_coco, evaluate_wholebody
from .datasets import ImageSample, read_coco

__all__ = ["EvaluationRecord", "evaluate", "find_files", "predict_samples"]

_ANNOTATIONS = {
    "coco": "person_keypoints_val2017.json",
    "coco_wholebody": "coco_wholebody_val_v1.0.json",
}
_DETECTIONS = "COCO_val2017_detections_AP_H_56_person.json"


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One measured row: what was measured, on what, with what, and how long it took.

    `statistics` are fractions. `seconds` is wall time by stage; decoding of images runs beside
    the network, so it counts only what the network waited for.
    """

    model: str
    dataset: str
    box_source: str
    statistics: Mapping[str, Any]
    settings: Mapping[str, Any]
    images: int
    boxes: int
    results: int
    seconds: Mapping[str, float]
    environment: Mapping[str, str]
    weights: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def find_files(
    data: Path, dataset: str, boxes: str | Path
) -> tuple[Path, Path, Literal["gt"] | Path]:
    """Return (annotations, images, boxes) of a COCO folder, where the files usually lie.

    Args:
        data: the folder; annotations may be in it or in `annotations/`, a detection file also
            in `person_detection_results/`.
        dataset: "coco" or "coco_wholebody".
        boxes: "gt", "det" for the common detection file (person AP 56.4), or a file.

    Raises:
        DataError: a file is not there; the message names the places looked at.
    """

    def find(name: str, *folders: str) -> Path:
        places = [data / folder / name for folder in ("", "annotations", *folders)]
        for place in places:
            if place.is_file():
                return place
        raise DataError(f"no {name} at any of {', '.join(map(str, places))}")

    annotations = find(_ANNOTATIONS[dataset])
    if boxes == "det":
        return annotations, data, find(_DETECTIONS, "person_detection_results")
    return annotations, data, "gt" if boxes == "gt" else Path(boxes)


def evaluate(
    predictor: PosePredictor,
    annotations: Path,
    images: Path,
    boxes: Literal["gt"] | Path,
    *,
    out: Path | None = None,
    workers: int = 4,
    limit: int | None = None,
    progress: bool = False,
) -> EvaluationRecord:
    """Evaluate a pose model on COCO or COCO-WholeBody keypoints.

    Args:
        predictor: holds the model and every setting.
        annotations, images, boxes: see `read_coco`.
        out: folder for `results.json` (COCO result rows) and `record.json`.
        workers: threads that read images.
        limit: only the first so many images; the record says so, the numbers compare with
            nothing.
        progress: show a bar.

    Raises:
        DataError: malformed files, missing images, non-finite predictions.
    """
    clock = _Clock()
    cfg = predictor.cfg
    samples = read_coco(
        annotations,
        images,
        boxes=boxes,
        skeleton=predictor.skeleton,
        rule=cfg.input.geometry,  # type: ignore[arg-type]
    )[:limit]
    clock.stop("read")
    rows = predict_samples(predictor, samples, workers=workers, progress=progress)
    clock.stop("predict")
    statistics = _score(predictor, annotations, rows, [s.image_id for s in samples], limit)
    clock.stop("score")
    record = EvaluationRecord(
        model=cfg.name,
        dataset=cfg.dataset,
        box_source=samples[0].box_source,
        statistics=statistics,
        settings={
            "flip_test": predictor.flip_test,
            "dtype": str(predictor.dtype).removeprefix("torch."),
            "batch_size": predictor.batch_size,
            "input_size": list(cfg.input.size),
            "geometry": cfg.input.geometry,
            "limit": limit,
        },
        images=len(samples),
        boxes=sum(len(s.bboxes) for s in samples),
        results=len(rows),
        seconds=clock.seconds,
        environment=_environment(predictor.device),
        weights=dict(getattr(predictor.model, "origin", {})),
    )
    if out is not None:
        _write(out / "results.json", rows)
        _write(out / "record.json", record.to_dict())
    return record


def predict_samples(
    predictor: PosePredictor,
    samples: list[ImageSample],
    *,
    workers: int = 4,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Return the COCO result rows of all samples: poses, rescoring, OKS-NMS.

    Raises:
        DataError: an image cannot be read or differs from its annotated size, or the network
            gave numbers that are not finite.
    """
    rows: list[dict[str, Any]] = []
    writes_boxes = predictor.cfg.input.geometry == "mmpose1"  # its scorer takes areas from them
    sizes: deque[np.ndarray] = deque()

    def requests() -> Iterator[CropRequest]:
        for sample, image in zip(samples, _read_ahead(samples, workers)):
            request = predictor.request(image, sample.bboxes)
            sizes.append(request.box_sizes)
            yield request

    bar = tqdm(total=sum(len(s.bboxes) for s in samples), unit="box", disable=not progress)
    with bar:
        for sample, (keypoints, scores) in zip(samples, predictor.predict_crops(requests())):
            rows += coco_results(
                image_id=sample.image_id,
                box_ids=sample.box_ids,
                keypoints=keypoints,
                keypoint_scores=scores,
                bbox_scores=sample.bbox_scores,
                areas=sizes.popleft().astype(np.float64).prod(axis=1),
                skeleton=predictor.skeleton,
                bboxes=sample.bboxes if writes_boxes else None,
            )
            bar.update(len(sample.bboxes))
    return rows


def _read_ahead(samples: Iterable[ImageSample], workers: int) -> Iterator[np.ndarray]:
    """Yield the images in order, with a few dozen read ahead by threads."""
    ahead: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for sample in samples:
                ahead.append(pool.submit(_read, sample))
                if len(ahead) >= 8 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _read(sample: ImageSample) -> np.ndarray:
    image = load_image(sample.path)
    if sample.size is not None and image.shape[:2] != sample.size:
        raise DataError(
            f"{sample.path} is {image.shape[0]}x{image.shape[1]} (HxW), "
            f"annotated as {sample.size[0]}x{sample.size[1]}; it is another image"
        )
    return image


def _score(
    predictor: PosePredictor,
    annotations: Path,
    rows: list[dict[str, Any]],
    image_ids: list[int],
    limit: int | None,
) -> dict[str, Any]:
    truth: Any = json.loads(annotations.read_text(encoding="utf-8"))
    if limit is not None:
        wanted = set(image_ids)
        truth["images"] = [i for i in truth["images"] if i["id"] in wanted]
        truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in wanted]
    if predictor.cfg.dataset == "coco_wholebody":
        return evaluate_wholebody(truth, rows, predictor.skeleton).to_dict()
    area: Literal["bbox", "keypoints"] = (
        "bbox" if predictor.cfg.input.geometry == "mmpose1" else "keypoints"
    )
    return evaluate_coco(truth, rows, predictor.skeleton, detection_area=area).to_dict()


class _Clock:
    """Wall time between stops."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def _environment(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "posezoo": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": f"{device} {name}".strip(),
        "threads": str(torch.get_num_threads()),
    }


def _write(path: Path, value: Any) -> None:
    from .._checkpoints import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
