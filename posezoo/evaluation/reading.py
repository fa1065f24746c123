"""Images of samples, read ahead by threads; what cannot be read does not end a run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..datasets.samples import Sample
from ..errors import InputError
from ..transforms import load_image

__all__ = ["BadImage", "ReadAhead", "Rows", "read_sample"]

Rows = list[Any]
"""What one sample gives, as JSON types."""

S = TypeVar("S", bound=Sample)
T = TypeVar("T")


class BadImage(str):
    """The reason for which the image of a sample could not be used."""


def read_sample(sample: Sample) -> NDArray[np.uint8] | BadImage:
    """Return the image of a sample, RGB (H, W, 3), or why it is not the annotated one."""
    try:
        image = load_image(sample.path)
    except InputError as error:
        return BadImage(error)
    size = sample.size
    if size is not None and image.shape[:2] != size:
        return BadImage(
            f"{sample.path} is {image.shape[0]}x{image.shape[1]} (HxW), "
            f"annotated as {size[0]}x{size[1]}: it is another image"
        )
    return image


class ReadAhead(Generic[S, T]):
    """Read samples in order, a few dozen ahead, by threads.

    Pillow releases the interpreter lock while it decodes. `seconds_waited` counts the time in
    which the next sample was not ready.
    """

    def __init__(self, read: Callable[[S], T], workers: int) -> None:
        self.read = read
        self.workers = workers
        self.seconds_waited = 0.0

    def __call__(self, samples: Sequence[S]) -> Iterator[T]:
        """Yield `read(sample)` of each sample."""
        ahead: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for sample in samples:
                    ahead.append(pool.submit(self.read, sample))
                    if len(ahead) >= 8 * self.workers:
                        yield self._next(ahead)
                while ahead:
                    yield self._next(ahead)
            finally:
                for future in ahead:
                    future.cancel()

    def _next(self, ahead: deque[Future[T]]) -> T:
        start = time.perf_counter()
        result = ahead.popleft().result()
        self.seconds_waited += time.perf_counter() - start
        return result
