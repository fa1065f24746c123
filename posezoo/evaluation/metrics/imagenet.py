"""ImageNet accuracy: logits to one row per image, rows to the table's values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...errors import DataError, InputError

__all__ = ["ClassificationStats", "evaluate_classification", "score_logits"]

_LOSS_BATCH = 128  # images over which the published runs average the loss first


@dataclass(frozen=True, kw_only=True)
class ClassificationStats:
    """Accuracy as fractions, and cross-entropy. Of fewer than five classes `top5` is 1.

    Quirk: `loss` is the plain mean over batches of 128 of each batch's mean, as TCFormer's log
    has it (0.798); it weighs the images of a smaller last batch more. `loss_per_image` does not.
    """

    top1: float
    top5: float
    loss: float
    loss_per_image: float

    def to_dict(self) -> dict[str, float]:
        """Return the values under their field names."""
        return dataclasses.asdict(self)


def score_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (top-1 hit, top-5 hit, cross-entropy) of each image, `(B, 3)` on the device.

    Args:
        logits: `(B, classes)`.
        labels: `(B,)` integers.

    Raises:
        InputError: the shapes do not belong together.
    """
    if logits.ndim != 2 or len(logits) == 0 or labels.shape != logits.shape[:1]:
        raise InputError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "expected (B, classes) and (B,) with B above 0"
        )
    losses = F.cross_entropy(logits.float(), labels, reduction="none")  # (B,)
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]  # (B, 5)
    return torch.stack([hits[:, 0].float(), hits.any(dim=1).float(), losses], dim=1)


def evaluate_classification(rows: NDArray[np.float64], unusable: int = 0) -> ClassificationStats:
    """Average the rows `(N, 3)` of `score_logits`, in the order of the data set.

    Args:
        rows: of the images that the network saw.
        unusable: images that could not be read. They count as wrong; a loss they do not have.

    Raises:
        DataError: no rows, or a loss that is not finite.
    """
    if not len(rows):
        raise DataError("no image was scored; there is nothing to evaluate")
    if not np.isfinite(rows).all():
        image = int((~np.isfinite(rows).all(axis=1)).argmax())
        raise DataError(f"the network gave NaN or infinite logits, first for image {image}")
    losses = rows[:, 2]
    batches = [losses[i : i + _LOSS_BATCH].mean() for i in range(0, len(losses), _LOSS_BATCH)]
    return ClassificationStats(
        top1=float(rows[:, 0].mean()) * len(rows) / (len(rows) + unusable),
        top5=float(rows[:, 1].mean()) * len(rows) / (len(rows) + unusable),
        loss=float(np.mean(batches)),
        loss_per_image=float(losses.mean()),
    )
