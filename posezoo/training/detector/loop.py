"""The loop: photos are rendered as it trains, and the learning rate falls to its end with the time.

The file that is written holds the averaged weights in half precision.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ... import create_model, load_checkpoint
from ...detectors.bodies import build_network, normalised
from ...device import choose_device
from ...errors import InputError
from ...files import replacing, writing
from ...models.hrnet_pose.network import HRNetPose
from ...runs.stopping import never, uninterruptible
from ..budget import TimeBudget
from .loss import detector_loss
from .photos import Photos

__all__ = ["train_detector"]

_WARMUP, _FIRST = 0.03, 0.001  # of the time: in which the rate rises, and where it begins
_WEIGHT_DECAY, _CLIP = 0.02, 5.0
_DECAY = 0.998  # of the average
_WRITTEN_EVERY, _TOLD_EVERY = 30.0, 15.0  # seconds
_PRIOR = -3.0  # logit of a middle before anything is learnt
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_FITTING = 0.9  # of the parameters, that weights under a name must fill


def train_detector(
    *, seed: int, minutes: float, out: Path, init: str | None = None, batch_size: int = 64,
    lr: float = 2e-3, device: str | None = None, workers: int = 0, first: int = 0,
    report: Callable[[str], None] = print, stop: Callable[[], bool] = never,
) -> int:  # fmt: skip
    """Train the network; return the number of the batch that another call would begin with.

    Args:
        seed: of all that is random.
        minutes: how long, from the first batch on.
        out: the file, written each half minute and in the end.
        init: a name with weights, or a file of such a training to go on from; None is nothing.
        batch_size: images, an even number.
        lr: the largest learning rate.
        device: where to render and train; None is CUDA if there is any.
        workers: processes that render; 0 renders between the steps.
        first: number of the first batch, so that nothing is seen twice.
        report: given lines to print.
        stop: asked after each batch whether to end early, with the file written.

    Raises:
        InputError: an option out of range, or weights that are not like these.
        DataError: the file cannot be written.
    """
    chosen = _checked(seed, minutes, lr, workers, first, device)
    _try(out)
    torch.manual_seed(seed)
    training = _Training(_filled(init, report).to(chosen), lr)
    photos = Photos(seed, batch_size, chosen)
    budget, progress, written, step = None, _Progress(batch_size, report), time.monotonic(), first
    for images, boxes in _batches(photos, first, workers, chosen):
        budget = budget or TimeBudget(minutes)
        rate = training.set_rate(budget.share())
        loss = training.update(images.to(chosen, non_blocking=True),
                               boxes.to(chosen, non_blocking=True))  # fmt: skip
        step += 1
        is_last = budget.is_over or stop()
        progress.note(step, loss, rate, is_last)
        if is_last or time.monotonic() - written > _WRITTEN_EVERY:
            _write(training.average.module, out)
            written = time.monotonic()
        if is_last:
            break
    report(f"{out}: {step - first} batches of {batch_size}; to go on: --init {out} --first {step}")
    return step


def _checked(
    seed: int, minutes: float, lr: float, workers: int, first: int, device: str | None
) -> torch.device:
    """Return the device, where all options are in range."""
    for name, value in (("seed", seed), ("workers", workers), ("first", first)):
        if value < 0:
            raise InputError(f"{name} is {value}; give a whole number from 0 on")
    if not 0 < lr < math.inf:
        raise InputError(f"lr is {lr}; give a finite number above 0")
    TimeBudget(minutes)  # refuses what is no time
    return choose_device(device)


class _Training:
    """The network, the average of its weights, and what changes them."""

    def __init__(self, network: HRNetPose, lr: float) -> None:
        self.network, self.lr = network.train(), lr
        self.average = ModelEmaV3(network, decay=_DECAY, use_warmup=True)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=_WEIGHT_DECAY)

    def set_rate(self, share: float) -> float:
        """Set the learning rate for when a share of the time has passed; return it."""
        share = max(share, _FIRST)
        rate = self.lr * min(share / _WARMUP, (1 + math.cos(math.pi * share)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def update(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Do one step on images uint8 (B, 3, H, W) and boxes (B, M, 4); return the loss."""
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = self.network(normalised(images.float() / 255))
        loss = detector_loss(maps.float(), boxes)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network)
        return loss.detach()


class _Progress:
    """Reports the mean loss since the last line, now and then."""

    def __init__(self, batch_size: int, report: Callable[[str], None]) -> None:
        self.batch_size, self.report = batch_size, report
        self.losses: list[Tensor] = []
        self.clock, self.told = time.monotonic(), -math.inf

    def note(self, step: int, loss: Tensor, rate: float, is_last: bool) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if now - self.told < _TOLD_EVERY and not is_last:
            return
        mean = torch.stack(self.losses).mean().item()
        speed = len(self.losses) * self.batch_size / (now - self.clock)
        self.report(f"batch {step}: loss {mean:.3f}, rate {rate:.1e}, {speed:.0f} images/s")
        self.losses, self.clock, self.told = [], now, now


def _batches(
    photos: Photos, first: int, workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    loader: DataLoader[Any] = DataLoader(
        photos, batch_size=None, sampler=range(first, 1 << 40), num_workers=workers,
        pin_memory=device.type == "cuda", multiprocessing_context="spawn" if workers else None,
    )  # fmt: skip
    with uninterruptible():
        batches = iter(loader)
    return batches


def _filled(init: str | None, report: Callable[[str], None]) -> HRNetPose:
    network = build_network()
    if init is not None and Path(init).is_file():
        load_checkpoint(network, init)
        return network
    bias = network.head.final_layer.bias
    assert bias is not None
    nn.init.constant_(bias[:1], _PRIOR)
    if init is None:
        return network
    if "/" in init or init.endswith(_ENDINGS):
        raise InputError(f"init is {init!r}, and there is no such file; give one, or a name")
    donor = create_model(init, pretrained=True).state_dict()
    own = network.state_dict()
    fitting = {k: v for k, v in donor.items() if k in own and v.shape == own[k].shape}
    filled, total = (sum(v.numel() for v in d.values()) for d in (fitting, own))
    if filled < _FITTING * total:
        raise InputError(
            f"{init} fills {filled / total:.0%} of the detector's parameters; give a small HRNet "
            "like hrnet_s_192x144.bodies, or a file of such a training"
        )
    network.load_state_dict(fitting, strict=False)
    report(f"{len(fitting)} of {len(own)} tensors from {init}")
    return network


def _try(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is done.

    Raises:
        DataError: see `writing`.
    """
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists() and not out.is_file():
            raise IsADirectoryError(21, "it is no file")
        with tempfile.TemporaryFile(dir=out.parent):
            pass


def _write(network: nn.Module, out: Path) -> None:
    halved = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    with writing(out), replacing(out) as temporary:
        temporary.write_bytes(save(halved))
