"""Detectors by name."""

from __future__ import annotations

import difflib
from typing import Any

import torch

from ..errors import InputError, WeightsUnavailableError
from .base import BatchDetector
from .bodies import BODIES_THRESHOLD, WEIGHTS, BodiesDetector, load_network
from .rtdetr import RTDetrDetector
from .torchvision_models import TorchvisionDetector

__all__ = ["DETECTORS", "PACKAGED", "build_detector", "check_name"]

PACKAGED = "bodies"

# short name -> a file of the package, a builder of torchvision, or a model of the Hub for
# transformers. Reported COCO box mAP: 46.7, 32.8, 22.8, 21.3 and, RT-DETR, 53.1. Seconds per photo
# of 480 x 640 on one core of a CPU, with random weights: 8.2, 1.4, 0.13, 0.07; a pose takes 0.03 to
# 0.3. On an H100, in batches of 8: 0.012, 0.004, not measured, 0.051.
DETECTORS = {
    "fasterrcnn": "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet": "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_320": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "ssdlite": "ssdlite320_mobilenet_v3_large",
    "rtdetr": "PekingU/rtdetr_r50vd",
    PACKAGED: WEIGHTS,
}
_QUICK, _BEST = "fasterrcnn_mobilenet", "fasterrcnn"
_THRESHOLD = 0.5  # of those that learned from photographs


def build_detector(
    name: str, *, device: torch.device | str = "cpu", threshold: float | None = None
) -> BatchDetector:
    """Build a person detector; its weights are fetched and checked by torchvision or transformers,
    but for those of "bodies", which are in the package.

    Args:
        name: a key of `DETECTORS`, or "auto": "fasterrcnn_mobilenet" on the CPU, where the better
            "fasterrcnn" takes six times as long, and "fasterrcnn" elsewhere. A predictor with a
            model of the package means "bodies" by it, see `PeopleFinder.beside`.
        device: where it runs.
        threshold: smallest box score kept; None is 0.5, and 0.25 for "bodies".

    Raises:
        InputError: unknown name, or "rtdetr" without the package transformers.
        WeightsUnavailableError: the weights cannot be fetched.
        IntegrityError: the file of the package was changed.
    """
    check_name(name)
    if name == PACKAGED:
        kept = BODIES_THRESHOLD if threshold is None else threshold
        return BodiesDetector(load_network(), device, kept)
    threshold = _THRESHOLD if threshold is None else threshold
    if name == "auto":
        name = _QUICK if torch.device(device).type == "cpu" else _BEST
    if name == "rtdetr":
        return RTDetrDetector.from_pretrained(DETECTORS[name], device=device, threshold=threshold)
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(DETECTORS[name]).DEFAULT
        model: Any = torchvision.models.get_model(DETECTORS[name], weights=weights)
    except OSError as error:
        raise WeightsUnavailableError(
            f"the weights of detector {name!r} cannot be fetched ({error}); "
            f"give boxes, or take {PACKAGED!r} (--detector {PACKAGED}), which is in the package"
        ) from error
    return TorchvisionDetector(model, device, threshold)


def check_name(name: str) -> None:
    """Refuse a name that is not in `DETECTORS`.

    Raises:
        InputError: it is not, nor is it "auto".
    """
    valid = ("auto", *DETECTORS)
    if name not in valid:
        close = difflib.get_close_matches(name, valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown detector {name!r}; {hint}valid: {', '.join(valid)}")
