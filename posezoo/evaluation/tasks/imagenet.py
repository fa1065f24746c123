"""ImageNet-1k: the class of whole images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...datasets.imagenet import ClassSample
from ...device import Download, upload, weight_dtype
from ...engines.network import ExportedNetwork, require_device
from ...errors import InputError
from ...images import load_image
from ...optimization import ready
from ...transforms import build_transform
from ...zoo.model import Classifier
from ..metrics.imagenet import evaluate_classification, score_logits
from ..reading import BadImage, ReadAhead, Rows
from .base import EvaluationTask

__all__ = ["ImagenetTask"]

_CPU_BATCH = 16  # larger batches fall out of a CPU's cache


class ImagenetTask(EvaluationTask[ClassSample]):
    """Classes, scored by accuracy.

    Args:
        model: a classifier, maybe an exported one; `device`, `dtype`, `compile` and
            `batch_size` as in `PosePredictor`.
        samples: images with labels.
        workers: threads that read images.
    """

    box_source = "none"
    unit = "image"

    def __init__(
        self,
        model: Classifier | ExportedNetwork,
        samples: Sequence[ClassSample],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        batch_size: int = 128,
        workers: int = 4,
    ) -> None:
        require_device(model, device)
        self.model = ready(model.eval(), device=device, dtype=dtype, compile=compile)
        self.samples, self.counts = samples, {"images": len(samples)}
        self.device, self.dtype = device, dtype
        self.batch_size = min(batch_size, _CPU_BATCH) if device.type == "cpu" else batch_size
        self.read_ahead = ReadAhead(self._read, workers)
        transform = build_transform(model.pretrained_cfg)
        self.transform = cast("Callable[[Image.Image], Tensor]", transform)

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        images = self.read_ahead(chosen)
        previous: Iterator[Rows | BadImage] = iter(())
        for first in range(0, len(chosen), self.batch_size):
            batch = chosen[first : first + self.batch_size]
            running = self._start(batch, [next(images) for _ in batch])
            yield from previous  # fetched after the next batch was started
            previous = running
        yield from previous

    def _read(self, sample: ClassSample) -> Tensor | BadImage:
        try:
            return self.transform(Image.fromarray(load_image(sample.path)))
        except InputError as error:
            return BadImage(error)

    @torch.inference_mode()
    def _start(
        self, samples: Sequence[ClassSample], images: Sequence[Tensor | BadImage]
    ) -> Iterator[Rows | BadImage]:
        """Run a batch; what is returned waits for it."""
        good = [(image, s.label) for image, s in zip(images, samples) if isinstance(image, Tensor)]
        if not good:
            return iter([image for image in images if isinstance(image, BadImage)])
        batch = torch.stack([image for image, _ in good])  # (B, 3, H, W)
        labels = upload(np.array([label for _, label in good]), self.device)
        inputs = upload(batch, self.device).to(weight_dtype(self.dtype))
        logits = self.model(inputs)
        return self._rows(images, Download(score_logits(logits, labels)))

    @staticmethod
    def _rows(images: Sequence[Tensor | BadImage], found: Download) -> Iterator[Rows | BadImage]:
        rows = iter(found.numpy().astype(np.float64).round(6).tolist())
        for image in images:
            yield image if isinstance(image, BadImage) else next(rows)

    def result_rows(self, rows: Sequence[Rows]) -> Rows:
        """Return (top-1 hit, top-5 hit, loss) of each image, empty where it could not be used."""
        return list(rows)

    def score(self, results: Rows) -> dict[str, Any]:
        used = np.array([row for row in results if row])
        return evaluate_classification(used, unusable=len(results) - len(used)).to_dict()
