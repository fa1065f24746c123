"""The person detectors of torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..device import upload
from .base import BatchDetector, Boxes, Image

__all__ = ["TorchvisionDetector"]

_PERSON = 1
_CUDA_BATCH = 8


class TorchvisionDetector(BatchDetector):
    """Persons found by a detection model of torchvision.

    On the CPU images run one by one: together they take as long, and what is found in one would
    depend, in the last bits, on its neighbours.

    Args:
        model: maps a list of images (3, H, W) in 0 to 1 to dicts of `boxes`, `labels` and
            `scores`, with the labels of COCO as torchvision counts them: 1 is a person.
        device: where it runs.
        threshold: smallest box score kept.
    """

    def __init__(self, model: nn.Module, device: torch.device | str, threshold: float) -> None:
        self.device, self.threshold = torch.device(device), threshold
        self.model = model.eval().to(self.device)
        self.batch_size = 1 if self.device.type == "cpu" else _CUDA_BATCH

    @torch.inference_mode()
    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        tensors = [
            upload(image, self.device).permute(2, 0, 1).float().div_(255) for image in images
        ]  # (3, H, W) each
        rows = []
        for found in self.model(tensors):
            keep = (found["labels"] == _PERSON) & (found["scores"] >= self.threshold)
            rows.append((found["boxes"][keep].cpu().numpy(), found["scores"][keep].cpu().numpy()))
        return rows
