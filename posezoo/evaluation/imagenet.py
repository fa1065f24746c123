"""ImageNet accuracy from logits, kept on the device until the end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError, InputError

__all__ = ["ClassificationMeter", "ClassificationStats"]


@dataclass(frozen=True, kw_only=True)
class ClassificationStats:
    """Accuracy as fractions, and cross-entropy.

    Quirk: `loss` is the plain mean over batches of each batch's mean, as TCFormer's log has it
    (0.798); it weighs the images of a smaller last batch more and so depends on the batch
    size. `loss_per_image` does not.
    """

    top1: float
    top5: float
    loss: float
    loss_per_image: float
    images: int
    batches: int

    def to_dict(self) -> dict[str, float]:
        """Return the values under their field names."""
        return dataclasses.asdict(self)


class ClassificationMeter:
    """Add up top-1, top-5 and loss over batches without waiting for the device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # top-1 hits, top-5 hits, sum of batch losses, sum of image losses
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._images = 0
        self._batches = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits `(B, classes)` and integer labels `(B,)`, both on the device.

        Raises:
            InputError: the shapes do not belong together.
        """
        if logits.ndim != 2 or len(logits) == 0 or labels.shape != logits.shape[:1]:
            raise InputError(
                f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
                "expected (B, classes) and (B,) with B above 0"
            )
        if logits.shape[1] < 5:
            raise InputError(f"logits have {logits.shape[1]} classes; top-5 needs at least 5")
        losses = F.cross_entropy(logits.float(), labels, reduction="none")  # (B,)
        hits = logits.topk(5, dim=1).indices == labels[:, None]  # (B, 5)
        batch = [hits[:, 0].sum(), hits.sum(), losses.mean(), losses.double().sum()]
        self._sums += torch.stack([value.double() for value in batch])
        self._images += len(logits)
        self._batches += 1

    def result(self) -> ClassificationStats:
        """Return the figures of all batches so far; this waits for the device.

        Raises:
            DataError: no batch was added, or logits were not finite.
        """
        if not self._batches:
            raise DataError("no batch was added; there is nothing to evaluate")
        top1, top5, batch_losses, image_losses = self._sums.tolist()
        if not torch.isfinite(self._sums).all():
            raise DataError("the loss is not finite: the network gave NaN or infinite logits")
        return ClassificationStats(
            top1=top1 / self._images,
            top5=top5 / self._images,
            loss=batch_losses / self._batches,
            loss_per_image=image_losses / self._images,
            images=self._images,
            batches=self._batches,
        )
