"""RT-DETR (arXiv:2304.08069) of the package transformers: the extra `rtdetr`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InputError, WeightsUnavailableError
from .base import BatchDetector, Boxes, Image

__all__ = ["RTDetrDetector"]

_PERSON = "person"
_CUDA_BATCH = 16


class RTDetrDetector(BatchDetector):
    """Persons found by a detection model of transformers that needs no boxes to be merged.

    Args:
        model: an `RTDetrForObjectDetection`, or another whose processor has the same methods.
        processor: its image processor.
        device: where it runs.
        threshold: smallest box score kept.

    Raises:
        InputError: none of the model's labels is "person".
    """

    def __init__(
        self, model: Any, processor: Any, device: torch.device | str, threshold: float
    ) -> None:
        labels = {index: str(name) for index, name in model.config.id2label.items()}
        persons = [index for index, name in labels.items() if name.lower() == _PERSON]
        if not persons:
            some = ", ".join(list(labels.values())[:8])
            raise InputError(f"the detector knows no {_PERSON!r}, only {some}, …")
        self.person = int(persons[0])
        self.device, self.threshold = torch.device(device), threshold
        self.model, self.processor = model.eval().to(self.device), processor
        self.batch_size = 1 if self.device.type == "cpu" else _CUDA_BATCH

    @classmethod
    def from_pretrained(
        cls, source: str, *, device: torch.device | str = "cpu", threshold: float = 0.5
    ) -> RTDetrDetector:
        """Load a model of the Hub, or from a folder that transformers wrote.

        Raises:
            InputError: transformers is not installed, or none of the model's labels is "person".
            WeightsUnavailableError: there is no such model, or it cannot be fetched.
        """
        try:
            import transformers
        except ImportError as error:
            raise InputError(
                "RT-DETR needs the package transformers: pip install 'posezoo[rtdetr]'"
            ) from error
        try:
            model = transformers.AutoModelForObjectDetection.from_pretrained(source)
            processor = transformers.AutoImageProcessor.from_pretrained(source)
        except OSError as error:
            raise WeightsUnavailableError(
                f"the detector {source!r} cannot be loaded ({error}); give boxes, or another "
                "detector"
            ) from error
        return cls(model, processor, device, threshold)

    @torch.inference_mode()
    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        inputs = self.processor(
            images=list(images), return_tensors="pt", input_data_format="channels_last"
        )
        outputs = self.model(inputs["pixel_values"].to(self.device))
        rows = []
        for found in self.processor.post_process_object_detection(
            outputs, threshold=self.threshold, target_sizes=[image.shape[:2] for image in images]
        ):
            keep = found["labels"] == self.person
            rows.append((found["boxes"][keep].cpu().numpy(), found["scores"][keep].cpu().numpy()))
        return rows
