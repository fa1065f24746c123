"""Work in units: a few photos, or a whole film. A unit is done by one process, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..media.sources import Photo, Source

__all__ = ["Unit", "units_of"]

_PHOTOS = 16  # per unit


@dataclass(frozen=True)
class Unit:
    """Sources that are handled together.

    Attributes:
        sources: photos, or one film or camera.
        in_time: whether its frames follow one another, so that people can be tracked.
    """

    sources: tuple[Source, ...]
    in_time: bool


def units_of(sources: Sequence[Source], *, track: bool) -> list[Unit]:
    """Divide sources, in order; tracked photos of one folder are one unit."""
    units: list[Unit] = []

    def kind(source: Source) -> tuple[bool, str]:
        photo = isinstance(source, Photo)
        return photo, str(source.path.parent) if isinstance(source, Photo) and track else ""

    for (is_photo, _), group in groupby(sources, kind):
        members = list(group)
        size = 1 if not is_photo else len(members) if track else _PHOTOS
        for first in range(0, len(members), size):
            in_time = track if is_photo else True
            units.append(Unit(tuple(members[first : first + size]), in_time))
    return units
