"""Person boxes for images that come without: a detector by name, or any callable."""

from .base import BatchDetector, Detector
from .build import DETECTORS, build_detector
from .finder import PeopleFinder

__all__ = ["DETECTORS", "BatchDetector", "Detector", "PeopleFinder", "build_detector"]
