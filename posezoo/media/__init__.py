"""Photos, films and cameras: found, read frame by frame, and written."""

from .frames import Frame
from .sources import Camera, Film, Images, Photo, Source, find_sources

__all__ = ["Camera", "Film", "Frame", "Images", "Photo", "Source", "find_sources"]
