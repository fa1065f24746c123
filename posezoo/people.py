"""Images with the boxes of their people: given ones, or those that a detector finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .detectors import PeopleFinder
from .errors import InputError
from .geometry import check_bboxes
from .images import ImageSource, load_image

__all__ = ["Item", "Located", "locate"]

Item = tuple[ImageSource, np.ndarray | None, np.ndarray | None]
"""An image, boxes or None for the detector's, and their scores or None."""

Located = tuple[np.ndarray, np.ndarray, np.ndarray]
"""An image, boxes (N, 4) and scores (N,)."""


def locate(
    items: Iterable[Item | InputError], finder: PeopleFinder
) -> Iterator[Located | InputError]:
    """Yield each item with its boxes and scores, in order, or why it has none.

    Images without boxes wait until there are enough of them for the detector.

    Raises:
        WeightsUnavailableError: the detector's weights cannot be fetched.
    """
    waiting: list[np.ndarray | Located | InputError] = []
    for item in items:
        waiting.append(_read(item))
        is_known = len(waiting) == 1 and not isinstance(waiting[0], np.ndarray)
        if is_known or len(waiting) >= finder.batch_size:
            yield from _complete(waiting, finder)
            waiting = []
    yield from _complete(waiting, finder)


def _read(item: Item | InputError) -> np.ndarray | Located | InputError:
    """Return an image with its given boxes, an image alone, or why there is none."""
    try:
        if isinstance(item, InputError):
            return item
        source, bboxes, bbox_scores = item
        image = load_image(source)
        if bboxes is None:
            if bbox_scores is not None:
                raise InputError("bbox_scores without bboxes; give both or neither")
            return image
        boxes = check_bboxes(bboxes, (image.shape[0], image.shape[1]))
        scores = np.ones(len(boxes)) if bbox_scores is None else np.asarray(bbox_scores)
        if scores.shape != (len(boxes),) or not np.isfinite(scores.astype(np.float64)).all():
            raise InputError(
                f"bbox_scores must be {len(boxes)} finite numbers, one per box; "
                f"got shape {scores.shape}"
            )
        return image, boxes, scores.astype(np.float32)
    except InputError as error:
        return error


def _complete(
    read: list[np.ndarray | Located | InputError], finder: PeopleFinder
) -> Iterator[Located | InputError]:
    """Yield what was read; images alone get the boxes that the detector finds in them."""
    found = iter(finder.find([image for image in read if isinstance(image, np.ndarray)]))
    for image in read:
        if not isinstance(image, np.ndarray):
            yield image
            continue
        people = next(found)
        yield people if isinstance(people, InputError) else (image, *people)
