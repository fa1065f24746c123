"""`PeopleFinder`: images in, checked person boxes out, whatever the detector."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, PoseZooError
from ..geometry import bbox_problems
from ..zoo.config import PretrainedCfg
from .base import BatchDetector, Detector, Image
from .build import PACKAGED, build_detector, check_name

__all__ = ["PeopleFinder"]

_log = logging.getLogger(__name__)

Found = tuple[NDArray[np.float64], NDArray[np.float32]]
"""Boxes (N, 4) xyxy in image pixels, and their scores (N,)."""


@runtime_checkable
class _Detections(Protocol):
    """What supervision's `Detections` and its like have."""

    xyxy: Any
    confidence: Any


@runtime_checkable
class _WithClasses(Protocol):
    class_id: Any


@runtime_checkable
class _WithData(Protocol):
    data: Any


class PeopleFinder:
    """Ask a detector for the people in images, and check what it says.

    A bad box costs that box, with a logged warning; a detector that fails costs that image.

    Args:
        detector: a name of `posezoo.detectors.DETECTORS`, "auto", a `BatchDetector`, or any
            callable that takes one image, uint8 RGB (H, W, 3), and returns boxes (N, 4) xyxy in
            image pixels and scores (N,), or an object with `xyxy` and `confidence` such as
            supervision's `Detections`. None takes the whole image as one person. A detector by
            name is loaded when the first image arrives.
        device: where a detector by name runs.
        threshold: smallest box score kept; None is that of `build_detector` for a
            detector by name, else 0.
        max_people: most people of an image, those with the best scores; None is no limit.
        min_size: pixels; a box with a shorter side is left out.
        person_class: the `class_id` of a person where detections have one and no `class_name` in
            their `data`. It is 0 for ultralytics and transformers, 1 for RF-DETR.

    Raises:
        InputError: not a detector, or an option out of range.
    """

    def __init__(
        self,
        detector: str | BatchDetector | Detector | None = "auto",
        *,
        device: torch.device | str = "cpu",
        threshold: float | None = None,
        max_people: int | None = None,
        min_size: float = 1.0,
        person_class: int = 0,
    ) -> None:
        if isinstance(detector, str):
            check_name(detector)
        elif detector is not None and not callable(detector):
            raise InputError(
                f"detector is a {type(detector).__name__}; give a name, a callable that takes an "
                "image and returns boxes and scores, or None"
            )
        if threshold is not None and not math.isfinite(threshold):
            raise InputError(f"threshold is {threshold}; valid: a finite number")
        if threshold is not None and isinstance(detector, str) and not 0 <= threshold <= 1:
            raise InputError(
                f"threshold is {threshold}; valid for detector {detector!r}: a score from 0 to 1"
            )
        if max_people is not None and max_people < 1:
            raise InputError(f"max_people is {max_people}; valid: at least 1, or None")
        if not (math.isfinite(min_size) and min_size >= 0):
            raise InputError(f"min_size is {min_size}; valid: pixels, 0 or more")
        self.detector, self.device, self.threshold = detector, device, threshold
        self.max_people, self.min_size, self.person_class = max_people, min_size, person_class

    def beside(self, cfg: PretrainedCfg) -> PeopleFinder:
        """Return the finder to use with a model: where "auto" was asked for and the weights of the
        model are in the package, a copy with the detector of the package, so that nothing is
        fetched; else this one."""
        if self.detector != "auto" or not cfg.source.packaged:
            return self
        finder = copy(self)
        finder.detector = PACKAGED
        return finder

    def load(self) -> None:
        """Load a detector by name now.

        Raises:
            InputError, WeightsUnavailableError, IntegrityError: it cannot be loaded.
        """
        self._loaded()

    @property
    def batch_size(self) -> int:
        """Images that `find` should be given at a time. A detector by name is loaded for it."""
        detector = self._loaded()
        return detector.batch_size if isinstance(detector, BatchDetector) else 1

    def find(self, images: Sequence[Image]) -> list[Found | InputError]:
        """Return the people of each image, or why the detector has none for it.

        Raises:
            InputError, WeightsUnavailableError: a detector by name cannot be loaded.
        """
        if not images:
            return []
        detector = self._loaded()
        if detector is None:
            return [
                (np.array([[0.0, 0.0, image.shape[1], image.shape[0]]]), np.ones(1, np.float32))
                for image in images
            ]
        found: list[Found | InputError | None] = [None] * len(images)
        for group in _groups(images, self.batch_size):
            answers = _ask(detector, [images[i] for i in group])
            for i, answer in zip(group, answers):
                try:
                    found[i] = self._checked(answer, images[i].shape[:2])
                except InputError as error:
                    found[i] = error
        return [row for row in found if row is not None]

    def _loaded(self) -> BatchDetector | Detector | None:
        if isinstance(self.detector, str):
            self.detector = build_detector(
                self.detector, device=self.device, threshold=self.threshold
            )
        return self.detector

    def _checked(self, answer: Any, image_size: tuple[int, ...]) -> Found:
        """Return the usable boxes of what a detector said.

        Raises:
            InputError: it said why it failed, or something else than boxes and scores.
        """
        if isinstance(answer, InputError):
            raise answer
        boxes, scores = self._read(answer)
        height, width = image_size
        problems = [
            (~np.isfinite(scores), "has a score that is not finite"),
            *bbox_problems(boxes, (height, width)),
        ]
        bad = np.any([mask for mask, _ in problems], axis=0)  # (N,)
        if bad.any():
            first = int(bad.argmax())
            what = next(words for mask, words in problems if mask[first])
            _log.warning(
                "left out %d of the detector's %d boxes; box %d %s %s",
                bad.sum(), len(boxes), first, boxes[first].tolist(), what.removesuffix("; drop it"),
            )  # fmt: skip
        with np.errstate(invalid="ignore"):
            sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
        keep = ~bad & (sides >= self.min_size)
        if self.threshold is not None:
            keep &= scores >= self.threshold
        chosen = np.flatnonzero(keep)
        if self.max_people is not None:
            best = np.argsort(-scores[chosen], kind="stable")[: self.max_people]
            chosen = chosen[np.sort(best)]
        return boxes[chosen], scores[chosen]

    def _read(self, answer: Any) -> Found:
        """Return boxes (N, 4) and scores (N,) of persons as arrays."""
        if isinstance(answer, _Detections):
            boxes, scores = _array(answer.xyxy, "boxes"), answer.confidence
            scores = np.ones(boxes.shape[:1]) if scores is None else _array(scores, "scores")
        elif isinstance(answer, (tuple, list)) and len(answer) == 2:
            boxes, scores = _array(answer[0], "boxes"), _array(answer[1], "scores")
        else:
            raise InputError(
                f"the detector returned a {type(answer).__name__}; it must return two arrays, "
                "boxes (N, 4) xyxy in image pixels and scores (N,), or an object with xyxy and "
                "confidence"
            )
        if boxes.size == 0 and scores.size == 0:
            return np.zeros((0, 4)), np.zeros(0, np.float32)
        if boxes.shape != (*boxes.shape[:1], 4) or scores.shape != boxes.shape[:1]:
            raise InputError(
                f"the detector returned boxes of shape {boxes.shape} and scores of shape "
                f"{scores.shape}, expected (N, 4) and (N,)"
            )
        person = self._is_person(answer, len(boxes))
        return boxes[person], scores[person].astype(np.float32)

    def _is_person(self, answer: Any, count: int) -> NDArray[np.bool_]:
        """Tell which boxes (N,) are persons: by name, else by class, else all."""
        data = answer.data if isinstance(answer, _WithData) else None
        if isinstance(data, dict) and len(data.get("class_name", ())) == count:
            names = [str(name).lower() for name in data.get("class_name", ())]
            return np.array([name == "person" for name in names], bool)
        classes = answer.class_id if isinstance(answer, _WithClasses) else None
        if classes is None:
            return np.ones(count, bool)
        classes = _array(classes, "classes")
        if classes.shape != (count,):
            raise InputError(f"the detector returned {classes.size} classes for {count} boxes")
        same: NDArray[np.bool_] = classes == self.person_class
        return same


def _groups(images: Sequence[Image], size: int) -> list[list[int]]:
    """Return indices of images that can go together: of one size, at most so many."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(i)
    return [
        group[first : first + size]
        for group in by_shape.values()
        for first in range(0, len(group), size)
    ]


def _ask(detector: BatchDetector | Detector, images: list[Image]) -> list[Any]:
    """Return what the detector says of each image; a failure concerns one image."""
    if len(images) == 1:
        return [_ask_one(detector, images[0])]
    assert isinstance(detector, BatchDetector)  # others are given one image at a time
    try:
        answers = detector.detect(images)
        if len(answers) == len(images):
            return answers
    except Exception as error:  # somebody else's code, or the memory is too small for all
        _log.warning("the detector failed on %d images together: %s", len(images), error)
    return [_ask_one(detector, image) for image in images]


def _ask_one(detector: BatchDetector | Detector, image: Image) -> Any:
    try:
        return detector(image)
    except InputError as error:
        return error
    except PoseZooError:
        raise
    except Exception as error:  # somebody else's code
        return InputError(f"the detector failed: {type(error).__name__}: {error}")


def _array(values: Any, what: str) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the detector's {what} are not numbers ({error})") from error
