"""The training loop: one process or many, resumable to the bit, best weights kept.

An output folder holds `last.pt` (everything that a resumed run needs), `best/` (weights and
configuration, as `save_pretrained` writes them), `log.jsonl` and `curves.png`. A run that finds
`last.pt` goes on from there. What is trained, and on what, is the objective's matter.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import create_model, save_pretrained
from ..device import choose_device
from ..errors import DataError, InputError
from ..skeletons import Skeleton
from ..weights.files import replacing
from ..zoo.model import ZooModel
from ..zoo.recipe import Recipe
from .curves import draw_curves
from .data import Batch, EpochSampler
from .objectives import Objective, objective_of
from .optimizers import make_optimizer, make_schedule
from .start import fill, give_skeleton

__all__ = ["CHECKPOINT", "Progress", "fit", "train"]

_log = logging.getLogger(__name__)
CHECKPOINT = "last.pt"
_SAVE_EVERY = 200  # steps between two checkpoints


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: steps done of all, the running loss, the last and best value of the
    metric ("AP", "PCKh", …)."""

    step: int
    steps: int
    loss: float
    metric: str
    value: float | None
    best: float | None


Report = Callable[[Progress], None]


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    init: str | None = None,
    skeleton: Skeleton | None = None,
    device: str | None = None,
    workers: int = 0,
    stop_after: int | None = None,
    log_every: int = 20,
    report: Report = lambda progress: None,
) -> Progress:
    """Train a model and return how far the run is.

    Args:
        recipe: what to do.
        data: the folder of the data set, laid out as it is published.
        out: see the module; under torchrun all processes need to see it.
        init: what to start from instead of the recipe's `start`: "scratch", "imagenet" (trunk of
            TokenPose), a name whose pretrained weights are taken as far as they fit, or a file.
        skeleton: keypoints of one's own. The model gets a fresh head for them, and the folder of
            the data is laid out as COCO is, with these keypoints.
        device, workers, stop_after, log_every, report: see `fit`.

    Raises:
        DataError: files are missing or malformed, or nothing in them is labelled.
        InputError: a recipe or model that cannot be trained here.
    """
    chosen = choose_device(device)
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, **recipe.model_args)
    if not (out / CHECKPOINT).is_file():  # else the checkpoint fills it
        fill(model, recipe, init)
    if skeleton is not None:
        give_skeleton(model, skeleton)
    return fit(
        objective_of(recipe, model),
        data,
        out,
        device=chosen,
        workers=workers,
        stop_after=stop_after,
        log_every=log_every,
        report=report,
    )


def fit(
    objective: Objective,
    data: Path,
    out: Path,
    *,
    device: str | torch.device | None = None,
    workers: int = 0,
    stop_after: int | None = None,
    log_every: int = 20,
    report: Report = lambda progress: None,
) -> Progress:
    """Train an objective by its recipe, from where `out` says that it was.

    Args:
        objective: its model is trained in place.
        data, out: as in `train`.
        device: default CUDA if there is one.
        workers: processes that read images, per training process.
        stop_after: end after so many steps of this call, to be resumed.
        log_every: steps between two lines of the log; a line holds means over these steps.
        report: called with the progress at every line of the log, and after an evaluation.
    """
    rank, world, chosen = _join(device)
    recipe = objective.recipe
    objective.to(chosen).train()
    samples = objective.dataset(data)
    if rank == 0:
        _log.info("%s", samples.summary())
    sampler = EpochSampler(
        len(samples), recipe.batch_size, recipe.seed,
        index=rank, count=world, repeats=recipe.repeats,
    )  # fmt: skip
    run = _Run(objective, sampler.steps_per_epoch, out, chosen, rank)
    run.resume()
    sampler.first_step = run.step
    sampler.last_step = run.steps if stop_after is None else min(run.steps, run.step + stop_after)
    loader = DataLoader(
        samples, batch_sampler=sampler, num_workers=workers, collate_fn=samples.collate,
        pin_memory=chosen.type == "cuda",
    )  # fmt: skip
    network: nn.Module = objective
    if world > 1:
        network = nn.parallel.DistributedDataParallel(
            objective, device_ids=[chosen.index] if chosen.type == "cuda" else None
        )
    for batch in loader:
        run.update(network, batch.to(chosen))
        if run.step % log_every == 0 or run.step == run.steps:
            run.note_loss()
            report(run.progress())
        if run.step % (recipe.eval_every * run.steps_per_epoch) == 0 or run.step == run.steps:
            run.evaluate(data)
            report(run.progress())
        elif run.step % _SAVE_EVERY == 0:
            run.save()
    run.save()
    return run.progress()


def _join(device: str | torch.device | None) -> tuple[int, int, torch.device]:
    """Return this process's rank, how many there are, and its device; join the group if many."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = choose_device(device)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return rank, world, chosen


class _Run:
    """The state of a training: networks, optimizer, step, numbers."""

    def __init__(
        self, objective: Objective, steps_per_epoch: int, out: Path, device: torch.device, rank: int
    ) -> None:
        self.recipe, self.objective, self.out = objective.recipe, objective, out
        self.device, self.rank = device, rank
        self.steps_per_epoch = steps_per_epoch
        self.steps = self.recipe.epochs * steps_per_epoch
        self.optimizer = make_optimizer(self.recipe, objective.model)
        self.schedule = make_schedule(self.recipe, self.optimizer, self.steps, steps_per_epoch)
        self.average = self._average()
        self.step, self.loss = 0, float("nan")
        self.value: float | None = None
        self.best: float | None = None
        self.running: dict[str, Tensor] = {}  # sums of the loss and of what is monitored
        self.since = 0
        self.clock = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    def update(self, network: nn.Module, batch: Batch) -> None:
        """Do one step. What is random in the network depends on seed, step and rank alone."""
        seed = np.random.SeedSequence((self.recipe.seed, self.step, self.rank))
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        self.schedule.step_update(self.step)
        size = -(-len(batch) // self.recipe.accumulate)
        for first in range(0, len(batch), size):
            piece = batch.part(first, first + size)
            last = first + size >= len(batch)
            waiting = (
                nullcontext()
                if last or not isinstance(network, nn.parallel.DistributedDataParallel)
                else network.no_sync()
            )
            share = len(piece) / len(batch)
            with waiting:
                loss = network(piece)
                (loss * share).backward()
            for name, value in {"loss": loss, **self.objective.monitor}.items():
                self.running[name] = self.running.get(name, 0) + value.detach() * share
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.objective.model)
        self.step += 1
        self.since += 1

    def _average(self) -> Any:
        if self.recipe.ema is None:
            return None
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.objective.model, decay=self.recipe.ema)

    def note_loss(self) -> None:
        """Write a line of the log: means since the last one.

        Raises:
            DataError: the loss is not finite.
        """
        sums = torch.stack(list(self.running.values()))
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
            sums /= torch.distributed.get_world_size()
        means = dict(zip(self.running, (sums / self.since).tolist()))
        self.loss = means["loss"]
        if not self.loss < float("inf"):
            raise DataError(f"the loss is {self.loss} at step {self.step}; lower the rate")
        seconds, self.clock = time.monotonic() - self.clock, time.monotonic()
        self._log(
            step=self.step,
            **means,
            lr=self.optimizer.param_groups[0]["lr"],
            images_per_second=round(self.since * self.recipe.batch_size / seconds, 1),
        )
        self.running = {}
        self.since = 0

    def evaluate(self, data: Path) -> None:
        """Score the validation set, keep the weights if they are best."""
        folder = self.out / "eval"
        if self.rank == 0:  # a killed run may have left half an evaluation
            shutil.rmtree(folder, ignore_errors=True)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        trained = self.objective.model
        kept: ZooModel = trained if self.average is None else self.average.module
        self.objective.model = kept
        self.objective.eval()
        try:
            value = self.objective.evaluate(data, folder, str(self.device))
        finally:
            self.objective.model = trained
            self.objective.train()
        if value is None:
            return
        self.value, metric = value, self.objective.metric
        self._log(step=self.step, epoch=self.step / self.steps_per_epoch, **{metric: value})
        if self.best is None or value > self.best:
            self.best = value
            save_pretrained(kept, self.out / "best")
        self.save()
        draw_curves(self.out / "log.jsonl", metric, self.out / "curves.png")

    def progress(self) -> Progress:
        """Return how far the run is."""
        return Progress(
            step=self.step, steps=self.steps, loss=self.loss, metric=self.objective.metric,
            value=self.value, best=self.best,
        )  # fmt: skip

    def save(self) -> None:
        """Write `last.pt` under another name and move it into place."""
        if self.rank != 0:
            return
        state = {
            "recipe": self._settings(),
            "objective": self.objective.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "since": self.since,
            "running": self.running,
            "best": self.best,
        }
        with replacing(self.out / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Go on from `last.pt` if it is there.

        Raises:
            InputError: it belongs to another recipe.
        """
        file = self.out / CHECKPOINT
        if not file.is_file():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        wanted = self._settings()
        different = [key for key in wanted if wanted[key] != state["recipe"].get(key)]
        if different:
            raise InputError(
                f"{self.out} holds a run with another {', '.join(different)}; give another --out"
            )
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.step, self.since = state["step"], state["since"]
        self.running, self.best = state["running"], state["best"]

    def _settings(self) -> dict[str, Any]:
        """Return what must be the same when a run goes on."""
        own = self.objective.cfg.own_skeleton
        return asdict(self.recipe) | {"skeleton": None if own is None else asdict(own)}

    def _log(self, **values: Any) -> None:
        if self.rank == 0:
            with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
