"""Images of samples, read ahead by threads; what cannot be read does not end a run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..datasets.samples import ImageSample, MpiiSample
from ..errors import InputError
from ..transforms import load_image

__all__ = ["BadImage", "ReadAhead", "read_sample"]


class BadImage(str):
    """The reason for which the image of a sample could not be used."""


def read_sample(sample: ImageSample | MpiiSample) -> np.ndarray | BadImage:
    """Return the image of a sample, or why it is not the annotated one."""
    try:
        image = load_image(sample.path)
    except InputError as error:
        return BadImage(error)
    size = getattr(sample, "size", None)
    if size is not None and image.shape[:2] != size:
        return BadImage(
            f"{sample.path} is {image.shape[0]}x{image.shape[1]} (HxW), "
            f"annotated as {size[0]}x{size[1]}: it is another image"
        )
    return image


class ReadAhead:
    """Read samples in order, a few dozen ahead, by threads.

    Pillow releases the interpreter lock while it decodes. `seconds_waited` counts the time in
    which the next sample was not ready.
    """

    def __init__(self, read: Callable[[Any], Any], workers: int) -> None:
        self.read = read
        self.workers = workers
        self.seconds_waited = 0.0

    def __call__(self, samples: Sequence[Any]) -> Iterator[Any]:
        """Yield `read(sample)` of each sample."""
        ahead: deque[Future[Any]] = deque()
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

    def _next(self, ahead: deque[Future[Any]]) -> Any:
        start = time.perf_counter()
        result = ahead.popleft().result()
        self.seconds_waited += time.perf_counter() - start
        return result
