"""The person detector that comes with the package: a small HRNet trained on rendered people.

Each cell of a map tells whether the middle of a person is there, and how far the sides of that
person's box are (Objects as Points, arXiv 1904.07850; distances as in FCOS, arXiv 1904.01355).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device import choose_device, upload
from ..errors import InputError, IntegrityError
from ..models.hrnet_pose.network import HRNetPose, build_pose
from ..weights.load import load_checkpoint
from ..weights.locate import ASSETS
from ..weights.verify import verify_file
from ..zoo.config import IMAGENET_MEAN, IMAGENET_STD
from .base import BatchDetector, Boxes, Image

__all__ = [
    "BODIES_THRESHOLD",
    "CELL",
    "SIZE",
    "WEIGHTS",
    "BodiesDetector",
    "boxes_of",
    "build_network",
    "load_network",
    "normalised",
]

WEIGHTS = "detector.bodies.safetensors"  # in posezoo/assets
SHA256 = "b311425eeccc87d13cae52f0cffde7c944a78a6c11eec8f8405709e535229712"
BODIES_THRESHOLD = 0.25
SIZE = 256  # pixels of a side of the input, into which whole photos are brought
CELL = 4  # pixels of a side of a cell
_NECK = 64  # channels before the last layer
_REACH = 16.0  # cells, unit of the distances
_MOST = 100  # boxes before those that overlap go
_OVERLAP = 0.6  # of boxes (IoU) of which the better one is kept
_CUDA_BATCH = 32


def build_network() -> HRNetPose:
    """Build the network: (B, 3, 256, 256) -> (B, 5, 64, 64), see `boxes_of`."""
    return build_pose(
        trunk="hrnet_s", neck=_NECK, input_size=(SIZE, SIZE), num_keypoints=5, in_chans=3
    )


def load_network() -> HRNetPose:
    """Build the network with the weights of the package.

    Raises:
        IntegrityError: their file is missing or was changed.
    """
    path = ASSETS / WEIGHTS
    try:
        verify_file(path, SHA256)
    except (OSError, IntegrityError) as error:
        raise IntegrityError(
            f"the detector of the package cannot be used ({error}); install posezoo again, or name "
            "another detector"
        ) from error
    network = build_network()
    load_checkpoint(network, path)
    return network


def boxes_of(maps: Tensor) -> Tensor:
    """Return the box that each cell tells of, (B, h, w, 4) xyxy in cells.

    Args:
        maps: (B, 5, h, w), the logit of a person's middle, then left, top, right, bottom.
    """
    height, width = maps.shape[2:]
    distances = F.softplus(maps[:, 1:]) * _REACH  # (B, 4, h, w)
    x = torch.arange(width, device=maps.device) + 0.5
    y = torch.arange(height, device=maps.device)[:, None] + 0.5
    left, top, right, bottom = distances.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], -1)


def normalised(images: Tensor) -> Tensor:
    """Map colours (B, 3, H, W) from 0 to 1 onto what the network takes."""
    mean, std = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


class BodiesDetector(BatchDetector):
    """Persons found by the network. It learned from those whose longer side is at least 12 of its
    256 pixels; few of them are found who take less than a quarter of the longer side of a photo.

    Args:
        network: of `build_network`, with its weights.
        device: where it runs.
        threshold: smallest score kept, from 0 to 1.

    Raises:
        InputError: another threshold, or no such device.
    """

    def __init__(self, network: nn.Module, device: torch.device | str, threshold: float) -> None:
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold of a box is {threshold}; give a score from 0 to 1")
        self.device, self.threshold = choose_device(device), threshold
        self.network = network.eval().to(self.device)
        self.batch_size = 1 if self.device.type == "cpu" else _CUDA_BATCH

    @torch.inference_mode()
    def detect(self, images: Sequence[Image]) -> list[Boxes]:
        """Return boxes and scores for each image, uint8 RGB (H, W, 3) of any size.

        Raises:
            InputError: something else.
        """
        if not images:
            return []
        canvas = torch.zeros(len(images), 3, SIZE, SIZE, device=self.device)
        frames = [self._show(image, row) for image, row in zip(images, canvas)]
        maps = self.network(normalised(canvas)).float()
        found = []
        for logits, boxes, (scale, left, top), image in zip(
            maps[:, 0], boxes_of(maps) * CELL, frames, images
        ):
            limits = boxes.new_tensor([image.shape[1], image.shape[0]] * 2)
            pixels = (boxes - boxes.new_tensor([left, top] * 2)) / scale
            found.append(self._best(logits, pixels.clamp(min=0).minimum(limits)))
        return found

    def _show(self, image: Image, row: Tensor) -> tuple[float, int, int]:
        """Put an image into the middle of a row (3, S, S); return its scale, left and top there."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"an image is {image.dtype} of shape {image.shape}; give uint8 RGB (H, W, 3)"
            )
        height, width = image.shape[:2]
        scale = SIZE / max(height, width)
        small = (max(1, round(height * scale)), max(1, round(width * scale)))
        photo = upload(image, self.device).permute(2, 0, 1)[None]  # (1, 3, H, W)
        if self.device.type != "cpu":
            photo = photo.float()  # only CPUs resize bytes
        resized = F.interpolate(photo, small, mode="bilinear", antialias=True)[0].float() / 255
        top, left = (SIZE - small[0]) // 2, (SIZE - small[1]) // 2
        row[:, top : top + small[0], left : left + small[1]] = resized
        return scale, left, top

    def _best(self, logits: Tensor, boxes: Tensor) -> Boxes:
        """Return what is found in a photo, from logits (h, w) and boxes (h, w, 4)."""
        from torchvision.ops import nms

        peak = logits == F.max_pool2d(logits[None], 3, 1, 1)[0]
        scores = torch.where(peak, logits.sigmoid(), 0).flatten()
        scores, order = scores.sort(descending=True, stable=True)
        scores, boxes = scores[:_MOST], boxes.flatten(0, 1)[order[:_MOST]]
        kept = nms(boxes, scores, _OVERLAP)
        kept = kept[scores[kept] >= self.threshold]
        return boxes[kept].cpu().numpy(), scores[kept].cpu().numpy()
