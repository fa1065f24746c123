"""The training of the packaged person detector: `python -m posezoo.training.finder --help`."""

from .loop import train_finder
from .loss import finder_loss
from .photos import Photos, second_views

__all__ = ["Photos", "finder_loss", "second_views", "train_finder"]
