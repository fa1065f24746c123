"""What the person detector learns from: whole rendered photos with a box for everyone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ...detectors.bodies import SIZE
from ...errors import InputError
from ...synthetic.bodies.devices import computing_on, sent
from ...synthetic.bodies.photographer import Photographer
from ..rendered import relit, restyled

__all__ = ["Photos", "second_views"]

_COLLAGES = 0.3  # of second views


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """Batches by their number: rendered photos, then second views of them. A batch depends on the
    seed, its size and number, and the kind of device.

    Args:
        seed: of all that is random.
        batch_size: images, an even number from 2 on.
        device: what renders; batches are on the CPU.

    Raises:
        InputError: another batch size, or a negative seed.
    """

    def __init__(self, seed: int, batch_size: int, device: str | torch.device = "cpu") -> None:
        if batch_size < 2 or batch_size % 2:
            raise InputError(f"batch_size is {batch_size}; give an even number from 2 on")
        self.seed, self.count = seed, batch_size // 2
        self.photographer = Photographer(seed, (SIZE, SIZE), device=device, is_whole=True)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return images uint8 (B, 3, H, W), and boxes (B, 16, 4) xyxy, 0 where there is nobody."""
        shots = self.photographer.shoot(number, self.count)
        rng = np.random.default_rng((self.seed, number, 2))
        with computing_on(self.photographer.device):
            images, people = sent(shots.images), sent(shots.people)  # (B / 2, 4, 4)
            views, boxes = second_views(images.float() / 255, people, rng)
            views = (views * 255).round().to(torch.uint8)
            filled = F.pad(people, (0, 0, 0, boxes.shape[1] - people.shape[1]))
            return torch.cat([images, views]).cpu(), torch.cat([filled, boxes]).cpu()


def second_views(images: Tensor, people: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return photos mirrored, in other light and filtered at random, some of them four to a
    picture; and boxes (B, 16, 4)."""
    count, width = len(images), images.shape[3]
    views = relit(restyled(images, rng), rng).flip(3)
    left, top, right, bottom = people.unbind(-1)
    mirrored = torch.stack([width - right, top, width - left, bottom], -1)
    boxes = torch.where((right > left)[..., None], mirrored, 0)
    boxes = F.pad(boxes, (0, 0, 0, 12))
    pictures, found = views.clone(), boxes.clone()
    offsets = images.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) * (width // 2)
    for i in np.flatnonzero(rng.random(count) < _COLLAGES):
        others = [int(j) for j in (i + rng.integers(0, count, 4)) % count]
        small, near = F.avg_pool2d(views[others], 2), boxes[others, :4] / 2
        rows = [torch.cat([small[k], small[k + 1]], 2) for k in (0, 2)]
        pictures[i] = torch.cat(rows, 1)
        placed = near + offsets.repeat(1, 2)[:, None]
        found[i] = torch.where(near[..., 2:3] > near[..., :1], placed, 0).flatten(0, 1)
    return pictures, found
