"""What a published number needs: readers of data sets, scorers, and `evaluate_model`."""

from ..datasets import (
    BoxRule,
    ClassSample,
    ImageSample,
    MpiiSample,
    MpiiTruth,
    box_source_of,
    clean_boxes,
    read_coco,
    read_imagenet_flat,
    read_imagenet_folders,
    read_mpii,
    read_mpii_truth,
)
from ..runs.shares import Share
from .metrics.coco import CocoStats, WholeBodyStats, evaluate_coco, evaluate_wholebody
from .metrics.coco_rows import coco_results, oks_nms, rescore
from .metrics.imagenet import ClassificationStats, evaluate_classification, score_logits
from .metrics.pckh import PckhStats, evaluate_pckh
from .record import EvaluationRecord
from .runner import evaluate_model
from .settings import EvaluationSettings, RunOptions

__all__ = [
    "BoxRule",
    "ClassSample",
    "ClassificationStats",
    "CocoStats",
    "EvaluationRecord",
    "EvaluationSettings",
    "ImageSample",
    "MpiiSample",
    "MpiiTruth",
    "PckhStats",
    "RunOptions",
    "Share",
    "WholeBodyStats",
    "box_source_of",
    "clean_boxes",
    "coco_results",
    "evaluate_classification",
    "evaluate_coco",
    "evaluate_model",
    "evaluate_pckh",
    "evaluate_wholebody",
    "oks_nms",
    "read_coco",
    "read_imagenet_flat",
    "read_imagenet_folders",
    "read_mpii",
    "read_mpii_truth",
    "rescore",
    "score_logits",
]
