"""The training of the packaged person detector: `python -m posezoo.training.detector --help`."""

from .loop import train_detector
from .loss import detector_loss
from .photos import Photos, second_views

__all__ = ["Photos", "detector_loss", "second_views", "train_detector"]
