"""People through a film: the same number for the same person, and keypoints that do not jitter.

tracker, calm = Tracker(), OneEuroSmoother()
for result, seconds in frames:
    for smooth, at in calm.push(tracker.update(result), seconds):
        ...
"""

from .smoothing import OneEuroSmoother, SavitzkyGolaySmoother, Smoother
from .tracker import Tracker

__all__ = ["OneEuroSmoother", "SavitzkyGolaySmoother", "Smoother", "Tracker"]
