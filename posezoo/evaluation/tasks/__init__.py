"""Tasks: what differs between data sets. `make_task` picks the one that a model is made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ...datasets.descriptors import CocoSet, MpiiSet, find_file, pose_set_of
from ...datasets.imagenet import read_imagenet
from ...engines.network import ExportedNetwork
from ...optimization import optimize
from ...predictor import PosePredictor
from ...zoo.config import PretrainedCfg
from ...zoo.model import Classifier, PoseModel, Tokenizer
from ...zoo.wrapped import unwrap
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
    model: nn.Module,
    cfg: PretrainedCfg,
    data: Path,
    settings: EvaluationSettings,
    run: RunOptions,
    device: torch.device,
) -> EvaluationTask[Any]:
    """Read the samples of the data set that a model is for, and put a fast copy of the model on its
    device.

    Raises:
        DataError: files are missing or malformed.
        InputError: the model does not belong to a known data set, or to none with its keypoints.
    """
    network = unwrap(model)
    if settings.dtype == torch.float32 and isinstance(network, (PoseModel, Classifier)):
        model = network = optimize(network, device=device)  # other types are so in any case
    if cfg.task == "classification" and isinstance(network, (Classifier, ExportedNetwork)):
        return ImagenetTask(
            network, read_imagenet(data, network.num_classes)[: settings.limit],
            device=device, dtype=settings.dtype, compile=settings.compile,
            batch_size=run.batch_size, workers=run.workers,
        )  # fmt: skip
    data_set = pose_set_of(cfg)
    if isinstance(network, Tokenizer):
        return ReconstructionTask(
            network, settings.annotations or data_set.val.find_annotations(data), data,
            device=device, dtype=settings.dtype, flip_test=settings.flip_test is not False,
            workers=run.workers, limit=settings.limit, category=settings.category,
        )  # fmt: skip
    predictor = PosePredictor(
        model, device=device, dtype=settings.dtype, compile=settings.compile,
        batch_size=run.batch_size, flip_test=settings.flip_test,
    )  # fmt: skip
    annotations = settings.annotations or data_set.val.find_annotations(data)
    if isinstance(data_set, MpiiSet):
        truth = find_file(data, data_set.truth)
        return MpiiTask(
            predictor, annotations, data, truth, workers=run.workers, limit=settings.limit
        )
    return CocoTask(
        predictor, annotations, data, _boxes(settings, data_set, data), workers=run.workers,
        limit=settings.limit, subset=settings.images_subset, category=settings.category,
    )  # fmt: skip


def _boxes(settings: EvaluationSettings, data_set: CocoSet, data: Path) -> Literal["gt"] | Path:
    common = settings.boxes == "det"
    if settings.boxes == "gt" or (common and not data_set.detections):
        return "gt"
    return find_file(data, data_set.detections) if common else Path(settings.boxes)
