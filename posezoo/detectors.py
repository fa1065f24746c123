"""Person boxes for images that come without: any callable, or a torchvision detector by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .errors import InputError, WeightsUnavailableError

__all__ = ["DETECTORS", "Detector", "build_detector"]

Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Image (H, W, 3) uint8 RGB -> boxes (N, 4) xyxy in image pixels, scores (N,)."""

# short name -> torchvision builder; COCO box mAP 46.7, 22.8 and 21.3 as reported by torchvision
DETECTORS = {
    "fasterrcnn": "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_320": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "ssdlite": "ssdlite320_mobilenet_v3_large",
}
_PERSON = 1


def build_detector(
    name: str, *, device: torch.device | str = "cpu", threshold: float = 0.5
) -> Detector:
    """Build a torchvision person detector; its weights are fetched and checked by torchvision.

    Args:
        name: a key of `DETECTORS`, or "auto" for the first.
        device: where it runs.
        threshold: smallest box score kept.

    Raises:
        InputError: unknown name.
        WeightsUnavailableError: the weights cannot be fetched.
    """
    short = next(iter(DETECTORS)) if name == "auto" else name
    if short not in DETECTORS:
        raise InputError(f"unknown detector {name!r}; valid: auto, {', '.join(DETECTORS)}")
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(DETECTORS[short]).DEFAULT
        model: Any = torchvision.models.get_model(DETECTORS[short], weights=weights)
    except OSError as error:
        raise WeightsUnavailableError(
            f"the weights of detector {short!r} cannot be fetched ({error}); "
            "give boxes, or take the whole image as one person (--whole-image, detector=None)"
        ) from error
    model = model.eval().to(device)

    @torch.inference_mode()
    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tensor = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255  # (3, H, W)
        found = model([tensor])[0]
        keep = (found["labels"] == _PERSON) & (found["scores"] >= threshold)
        return found["boxes"][keep].cpu().numpy(), found["scores"][keep].cpu().numpy()

    return detect
