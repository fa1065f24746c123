"""The training of the packaged person detector, on photos that are rendered as it trains.

    python -m posezoo.training.finder --seed 7 --minutes 60 --workers 1 \\
        --init hrnet_s_192x144.bodies --out finder.safetensors

The file holds the averaged weights in half precision and is written each half minute; `--init` is a
name or such a file, from which a training goes on. The learning rate falls to its end when the time
ends. What is learnt from depends on the seed and the number of the batch alone.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import generalized_box_iou_loss

from .. import create_model, load_checkpoint
from ..detectors.bodies import CELL, SIZE, boxes_of, build_network, normalised
from ..device import choose_device
from ..files import replacing
from ..models.hrnet_pose.network import HRNetPose
from ..synthetic.bodies.devices import computing_on, sent
from ..synthetic.bodies.photographer import Photographer
from .budget import TimeBudget
from .rendered import relit, restyled

__all__ = ["Photos", "finder_loss", "train_finder"]

_SMALLEST = 12.0  # pixels of the longer side of a person that is to be found
_SPREAD = 0.09  # of a peak, as a share of the box (TTFNet, arXiv 1909.00700: 0.54 / 6)
_BOXED = 0.3  # height of a peak from which on boxes are learnt
_BOX_LOSS = 3.0
_COLLAGES = 0.3  # of second views
_WARMUP = 0.03  # of the time
_WEIGHT_DECAY = 0.02
_DECAY = 0.998  # of the average
_WRITTEN_EVERY = 30.0  # seconds
_TOLD_EVERY = 20  # batches
_PRIOR = -3.0  # logit of a middle before anything is learnt


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """Batches by their number: rendered photos, then second views of them.

    Args:
        seed: of all that is random.
        batch_size: photos, a multiple of 8.
        device: what renders; batches are on the CPU.
    """

    def __init__(self, seed: int, batch_size: int, device: str | torch.device = "cpu") -> None:
        self.seed, self.count = seed, batch_size // 2
        self.photographer = Photographer(seed, (SIZE, SIZE), device=device, is_whole=True)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return images uint8 (B, 3, H, W), and boxes (B, 16, 4) xyxy, 0 where there is nobody."""
        shots = self.photographer.shoot(number, self.count)
        rng = np.random.default_rng((self.seed, number, 2))
        with computing_on(self.photographer.device):
            images, people = sent(shots.images), sent(shots.people)  # (B / 2, 4, 4)
            views, boxes = _second_views(images.float() / 255, people, rng)
            views = (views * 255).round().to(torch.uint8)
            filled = F.pad(people, (0, 0, 0, boxes.shape[1] - people.shape[1]))
            return torch.cat([images, views]).cpu(), torch.cat([filled, boxes]).cpu()


def _second_views(
    images: Tensor, people: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
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


def finder_loss(maps: Tensor, boxes: Tensor) -> Tensor:
    """Return the focal loss of middles (Objects as Points, equation 1) and the generalised IoU loss
    of boxes near them, weighted as in TTFNet.

    Args:
        maps: (B, 5, h, w) of the network.
        boxes: (B, M, 4) xyxy in pixels, 0 where there is nobody.
    """
    height, width = maps.shape[2:]
    cells = boxes / CELL
    extent = cells[..., 2:] - cells[..., :2]  # (B, M, 2)
    longer = extent.amax(-1) * CELL
    found, tiny = longer >= _SMALLEST, (longer > 0) & (longer < _SMALLEST)
    middle = (cells[..., :2] + cells[..., 2:]) / 2
    peak = middle.floor().clamp(min=0).minimum(middle.new_tensor([width - 1, height - 1]))
    sigma = (extent * _SPREAD).clamp(min=0.7)
    x = torch.arange(width, device=maps.device) - peak[..., :1]  # (B, M, w)
    y = torch.arange(height, device=maps.device) - peak[..., 1:]
    waves = [torch.exp(-((at / sigma[..., i, None]) ** 2) / 2) for i, at in enumerate((x, y))]
    heat = waves[1][..., None] * waves[0][:, :, None] * found[..., None, None]  # (B, M, h, w)
    heat, owner = heat.max(1)  # (B, h, w)
    inside = [
        (at + 0.5 + peak[..., i, None] > cells[..., i, None])
        & (at + 0.5 + peak[..., i, None] < cells[..., 2 + i, None])
        for i, at in enumerate((x, y))
    ]
    unsure = (inside[1][..., None] & inside[0][:, :, None] & tiny[..., None, None]).any(1)
    logits = maps[:, 0]
    probability = logits.sigmoid()
    is_peak = heat == 1
    good = (1 - probability) ** 2 * F.logsigmoid(logits) * is_peak
    bad = (1 - heat) ** 4 * probability**2 * F.logsigmoid(-logits) * ~(is_peak | unsure)
    focal = -(good + bad).sum() / is_peak.sum().clamp(min=1)
    weight = (heat * (heat > _BOXED)).flatten()
    target = cells.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 4)).flatten(0, 1)
    overlap = generalized_box_iou_loss(boxes_of(maps).flatten(0, 2), target)
    loss: Tensor = focal + _BOX_LOSS * (overlap * weight).sum() / weight.sum().clamp(min=1)
    return loss


def _filled(init: str | None) -> HRNetPose:
    network = build_network()
    if init is None:
        return network
    if Path(init).is_file():
        load_checkpoint(network, init)
        return network
    donor = create_model(init, pretrained=True).state_dict()
    own = network.state_dict()
    fitting = {k: v for k, v in donor.items() if k in own and v.shape == own[k].shape}
    network.load_state_dict(fitting, strict=False)
    bias = network.head.final_layer.bias
    assert bias is not None
    nn.init.constant_(bias[:1], _PRIOR)
    return network


def _write(network: nn.Module, out: Path) -> None:
    halved = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    with replacing(out) as temporary:
        save_file(halved, temporary)


def train_finder(
    *, seed: int, minutes: float, out: Path, init: str | None = None, batch_size: int = 64,
    lr: float = 2e-3, device: str | None = None, workers: int = 0, first: int = 0,
) -> None:  # fmt: skip
    """Train the network; the arguments are the options of the module."""
    chosen = choose_device(device)
    budget = TimeBudget(minutes)
    torch.manual_seed(seed)
    network = _filled(init).to(chosen).train()
    average = ModelEmaV3(network, decay=_DECAY, use_warmup=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=_WEIGHT_DECAY)
    photos = Photos(seed, batch_size, chosen)
    loader: DataLoader[Any] = DataLoader(
        photos, batch_size=None, sampler=range(first, 1 << 40), num_workers=workers,
        pin_memory=chosen.type == "cuda", multiprocessing_context="spawn" if workers else None,
    )  # fmt: skip
    losses: list[Tensor] = []
    clock = written = time.monotonic()
    for step, (images, boxes) in enumerate(loader, first + 1):
        share = budget.share()
        rate = lr * min(share / _WARMUP, (1 + math.cos(math.pi * share)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = normalised(images.to(chosen, non_blocking=True).float() / 255)
        with torch.autocast(chosen.type, torch.bfloat16):
            maps = network(inputs)
        loss = finder_loss(maps.float(), boxes.to(chosen, non_blocking=True))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(network)
        losses.append(loss.detach())
        now = time.monotonic()
        if step % _TOLD_EVERY == 0:
            mean = torch.stack(losses).mean().item()
            speed = _TOLD_EVERY * batch_size / (time.monotonic() - clock)
            print(
                f"batch {step}: loss {mean:.4f}, rate {rate:.1e}, {speed:.0f} photos/s", flush=True
            )
            losses, clock = [], time.monotonic()
        if now - written > _WRITTEN_EVERY or budget.is_over:
            _write(average.module, out)
            written = now
        if budget.is_over:
            break


@click.command()
@click.option("--seed", type=int, required=True)
@click.option("--minutes", type=float, required=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--init", help="A name with weights, or a file of such a training.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--lr", default=2e-3, show_default=True)
@click.option("--device")
@click.option("--workers", default=0, show_default=True, help="Processes that render.")
@click.option("--first", default=0, show_default=True, help="Number of the first batch.")
def main(**given: Any) -> None:
    """Train the packaged person detector."""
    train_finder(**given)


if __name__ == "__main__":
    main()
