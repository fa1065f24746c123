"""People in photos, films and cameras, frame by frame: what `PosePredictor.stream` does."""

from .found import FrameResult
from .options import StreamOptions
from .stream import PoseStream
from .units import Unit, units_of

__all__ = ["FrameResult", "PoseStream", "StreamOptions", "Unit", "units_of"]
