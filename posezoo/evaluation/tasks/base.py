"""What the runner asks of a task: samples to rows, rows to statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...datasets.pictures import Pictures
from ...datasets.samples import Sample
from ...errors import DataError
from ...predictor import CropRequest, PosePredictor
from ..reading import BadImage, ReadAhead, Rows, read_sample

__all__ = ["DIGITS", "NO_IMAGE", "EvaluationTask", "PoseTask", "rounded"]

Array = NDArray[Any]

DIGITS = 4  # of written coordinates and scores
NO_IMAGE = np.zeros((1, 1, 3), np.uint8)

S = TypeVar("S", bound=Sample)


class EvaluationTask(ABC, Generic[S]):
    """One data set with its boxes, and the model that is asked about it.

    It is made once per run. In between, rows are plain JSON, so that they can be written, merged
    and read again.

    Attributes:
        samples: the images in order.
        unit: what `Sample.count` counts and a forward takes many of.
        box_source: where the boxes are from, "none" for whole images.
        model: the network on its device.
        read_ahead: reads the images.
        counts: how many images, annotated people and boxes there are, under the names that
            `DataSet.counts` has.
        notes: what a reader of the numbers should know about the data.
    """

    unit: ClassVar[str] = "box"

    samples: Sequence[S]
    box_source: str
    model: nn.Module
    read_ahead: ReadAhead[S, Any]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()

    @property
    def paths(self) -> list[Path]:
        """The image of each sample."""
        return [sample.path for sample in self.samples]

    @property
    def pictures(self) -> Pictures:
        """The images that are read, each with its annotated size."""
        return {sample.path: sample.size for sample in self.samples}

    @property
    def seconds_waited(self) -> float:
        """How long `predict` had to wait for images."""
        return self.read_ahead.seconds_waited

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers and is special to this kind of task."""
        return {}

    @abstractmethod
    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        """Yield the rows of any subset of the samples, in order."""

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        """Return what the result file holds, given the rows of every sample in order."""
        return [row for of_image in rows for row in of_image]

    @abstractmethod
    def score(self, results: Rows) -> dict[str, Any]:
        """Return the statistics of the rows of the result file."""


class PoseTask(EvaluationTask[S]):
    """Crops of people, batches filled across images that threads read ahead."""

    def __init__(self, predictor: PosePredictor, workers: int) -> None:
        self.predictor, self.model = predictor, predictor.model
        self.read_ahead = ReadAhead(read_sample, workers)

    def settings(self) -> dict[str, Any]:
        cfg = self.predictor.cfg
        return {
            "flip_test": self.predictor.flip_test,
            "recipe_flip_test": cfg.decode is not None and cfg.decode.flip_test,
            "geometry": cfg.input.geometry,
            "bbox_padding": cfg.input.bbox_padding,
        }

    @abstractmethod
    def request(self, sample: S, image: NDArray[np.uint8]) -> CropRequest:
        """Return the crops to cut out of the image of a sample."""

    @abstractmethod
    def rows(self, sample: S, keypoints: Array, scores: Array, box_sizes: Array) -> Rows:
        """Return the rows of a sample.

        Args:
            sample: with `N` people.
            keypoints: `(N, K, 2)` in image pixels.
            scores: `(N, K)`.
            box_sizes: `(N, 2)` of its crops, as requested.
        """

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        sizes: deque[Array | BadImage] = deque()

        def requests() -> Iterator[CropRequest]:
            for sample, image in zip(chosen, self.read_ahead(chosen)):
                if isinstance(image, BadImage):
                    sizes.append(image)
                    nobody = np.zeros((0, 2), np.float32)
                    yield CropRequest(image=NO_IMAGE, centers=nobody, box_sizes=nobody)
                    continue
                request = self.request(sample, image)
                sizes.append(request.box_sizes)
                yield request

        for sample, (keypoints, scores) in zip(chosen, self.predictor.predict_crops(requests())):
            box_sizes = sizes.popleft()
            if isinstance(box_sizes, BadImage):
                yield box_sizes
            else:
                yield self.rows(sample, keypoints, scores, box_sizes)

    def require_sizes(self, box_sizes: Array, box_ids: Array, source: object) -> None:
        """Refuse boxes `(N, 2)` that no crop can be cut from, before anything runs.

        Raises:
            DataError: a padded box that is too small for the crop convention, or not finite in
                float32.
        """
        least = self.predictor.convention.smallest_box
        bad = ~(np.isfinite(box_sizes).all(axis=1) & (box_sizes[:, 0] > least))
        if bad.any():
            i = int(bad.argmax())
            raise DataError(
                f"{source}: box {box_ids[i]} is {box_sizes[i, 0]} x {box_sizes[i, 1]} pixels with "
                f"padding; valid: a finite width above {least:g}. {int(bad.sum())} of {len(bad)} "
                "boxes are like that: leave them out"
            )


def rounded(values: Array) -> NDArray[np.float64]:
    """Round to what is written."""
    result: NDArray[np.float64] = values.astype(np.float64).round(DIGITS)
    return result
