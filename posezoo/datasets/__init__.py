"""Data sets: what each consists of, and strict readers of its files."""

from .boxes import BoxEntry, PhotoBoxes, read_boxes
from .coco import Annotations, read_annotations
from .descriptors import DATA_SETS, DataSet, PoseSet, data_set_of
from .imagenet import ClassSample, read_imagenet, read_imagenet_flat, read_imagenet_folders
from .mpii import MpiiSample, MpiiTruth, read_mpii, read_mpii_truth
from .people import People, read_coco_people, read_mpii_people, training_people
from .samples import BoxRule, ImageSample, Sample, box_source_of, clean_boxes, read_coco

__all__ = [
    "DATA_SETS",
    "Annotations",
    "BoxEntry",
    "BoxRule",
    "ClassSample",
    "DataSet",
    "ImageSample",
    "MpiiSample",
    "MpiiTruth",
    "People",
    "PhotoBoxes",
    "PoseSet",
    "Sample",
    "box_source_of",
    "clean_boxes",
    "data_set_of",
    "read_annotations",
    "read_boxes",
    "read_coco",
    "read_coco_people",
    "read_imagenet",
    "read_imagenet_flat",
    "read_imagenet_folders",
    "read_mpii",
    "read_mpii_people",
    "read_mpii_truth",
    "training_people",
]
