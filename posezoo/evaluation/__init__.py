"""What a published number needs: data set readers, scorers and, in `runner`, the runs."""

from ..datasets.samples import (
    BoxRule,
    ClassSample,
    ImageSample,
    MpiiSample,
    box_source_of,
    clean_boxes,
    read_coco,
    read_imagenet_flat,
    read_imagenet_folders,
    read_mpii,
)
from .metrics.coco import (
    CocoStats,
    FastCOCOeval,
    WholeBodyStats,
    coco_results,
    evaluate_coco,
    evaluate_wholebody,
    oks_nms,
    rescore,
)
from .metrics.imagenet import ClassificationStats, evaluate_classification, score_logits
from .metrics.pckh import MpiiTruth, PckhStats, evaluate_pckh, read_mpii_truth

__all__ = [
    "BoxRule",
    "ClassSample",
    "ClassificationStats",
    "CocoStats",
    "FastCOCOeval",
    "ImageSample",
    "MpiiSample",
    "MpiiTruth",
    "PckhStats",
    "WholeBodyStats",
    "box_source_of",
    "clean_boxes",
    "coco_results",
    "evaluate_classification",
    "evaluate_coco",
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
