"""Tasks: what differs between data sets. `make_task` picks the one that a model is made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from ...datasets.descriptors import CocoSet, MpiiSet, find_file, pose_set_of
from ...datasets.imagenet import read_imagenet
from ...predictor import PosePredictor
from ...zoo.model import Classifier, Tokenizer, ZooModel
from ..settings import EvaluationSettings, RunOptions
from .base import EvaluationTask
from .coco import CocoTask
from .imagenet import ImagenetTask
from .mpii import MpiiTask
from .reconstruction import ReconstructionTask

__all__ = [
    "CocoTask",
    "EvaluationTask",
    "ImagenetTask",
    "MpiiTask",
    "ReconstructionTask",
    "make_task",
]


def make_task(
    model: ZooModel,
    data: Path,
    settings: EvaluationSettings,
    run: RunOptions,
    device: torch.device,
) -> EvaluationTask[Any]:
    """Read the samples of the data set that a model is for, and put the model on its device.

    Raises:
        DataError: files are missing or malformed.
        InputError: the model does not belong to a known data set, or to none with its keypoints.
    """
    if isinstance(model, Classifier):
        return ImagenetTask(
            model, read_imagenet(data)[: settings.limit], device=device, dtype=settings.dtype,
            batch_size=run.batch_size, workers=run.workers,
        )  # fmt: skip
    data_set = pose_set_of(model.pretrained_cfg)
    if isinstance(model, Tokenizer):
        return ReconstructionTask(
            model, settings.annotations or data_set.val.find_annotations(data), data,
            device=device, dtype=settings.dtype, flip_test=settings.flip_test is not False,
            workers=run.workers, limit=settings.limit,
        )  # fmt: skip
    predictor = PosePredictor(
        model, device=device, dtype=settings.dtype, batch_size=run.batch_size,
        flip_test=settings.flip_test,
    )  # fmt: skip
    annotations = settings.annotations or data_set.val.find_annotations(data)
    if isinstance(data_set, MpiiSet):
        truth = find_file(data, data_set.truth)
        return MpiiTask(
            predictor, annotations, data, truth, workers=run.workers, limit=settings.limit
        )
    return CocoTask(
        predictor, annotations, data, _boxes(settings, data_set, data), workers=run.workers,
        limit=settings.limit,
    )  # fmt: skip


def _boxes(settings: EvaluationSettings, data_set: CocoSet, data: Path) -> Literal["gt"] | Path:
    if settings.boxes == "gt":
        return "gt"
    common = settings.boxes == "det"
    return find_file(data, data_set.detections) if common else Path(settings.boxes)
