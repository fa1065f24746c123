"""The training loop: one process or many, resumable to the bit, best weights kept.

An output folder holds `last.pt` (everything that a resumed run needs), `best/` (weights and
configuration, as `save_pretrained` writes them), `log.jsonl` and `curves.png`. A run that finds
`last.pt` goes on from there. What is trained, and on what, is the objective's matter.

Everything that a run will need is read and checked before its first step: annotations of both
splits, the headers of all images, the output folder and its space. An image that cannot be read
later ends the run after `last.pt` is written; its file can be replaced by one of the same size.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import create_model, save_pretrained
from ..datasets.pictures import check_pictures
from ..device import choose_device
from ..errors import DataError, InputError
from ..files import writing
from ..runs.lock import one_writer
from ..runs.shares import launched
from ..runs.stopping import Stopped, never, uninterruptible
from ..skeletons import Skeleton
from ..zoo.model import ZooModel
from ..zoo.recipe import Recipe
from .budget import TimeBudget
from .checkpoint import CHECKPOINT, Given, read_state, require_space, trim_log, write_state
from .curves import draw_curves
from .data import Batch, EpochSampler, Fault, Guarded, TrainingSet
from .objectives import Objective, objective_of
from .optimizers import make_optimizer, make_schedule
from .rendered import is_rendering, render_for
from .start import fill, give_classes, give_skeleton, start_of

__all__ = ["CHECKPOINT", "Progress", "fit", "train"]

_log = logging.getLogger(__name__)
_SAVE_EVERY = 200  # steps between two checkpoints
_SAVE_AFTER = 30.0  # seconds, where the time is limited
_ASK_EVERY = 10  # steps after which several processes agree whether to stop


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: steps done of all, the running loss, the last and best value of the
    metric ("AP", "PCKh", …); None where there is none yet. `is_done` where nothing is left."""

    step: int
    steps: int
    loss: float | None
    metric: str
    value: float | None
    best: float | None
    is_done: bool


Report = Callable[[Progress], None]


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    init: str | None = None,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    more_epochs: bool = False,
    device: str | None = None,
    workers: int = 0,
    stop_after: int | None = None,
    minutes: float | None = None,
    log_every: int = 20,
    report: Report = lambda progress: None,
    stop: Callable[[], bool] = never,
) -> Progress:
    """Train a model and return how far the run is.

    Args:
        recipe: what to do.
        data: the folder of the data set, laid out as it is published. A classifier may have
            classes of its own: folders in `train` and `val`. Or "render:SEED", see `rendered`.
        out: see the module; under torchrun all processes need to see it.
        init: what to start from instead of the recipe's `start`: "scratch", "imagenet" (trunk of
            TokenPose), a name whose pretrained weights are taken as far as they fit, or a file.
        skeleton: keypoints of one's own. The model gets a fresh head for them, and the folder of
            the data is laid out as COCO is, with these keypoints.
        category: name or id of the category of people in files of COCO's form.
        more_epochs: go on with a run that was planned for another number of epochs.
        device, workers, stop_after, minutes, log_every, report, stop: see `fit`.

    Raises:
        DataError: files are missing or malformed, nothing in them is labelled, or another process
            writes into `out`.
        InputError: a recipe or model that cannot be trained here, or `out` holds another run.
    """
    chosen = choose_device(device)
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, **recipe.model_args)
    if not (out / CHECKPOINT).is_file():  # else the checkpoint fills it
        fill(model, recipe, init)
    if skeleton is not None:
        give_skeleton(model, skeleton)
    give_classes(model, data)
    objective = objective_of(recipe, model)
    objective.category = category
    samples: TrainingSet | None = None
    if is_rendering(data):
        data, samples = render_for(objective, data, out, chosen)
    return fit(
        objective, data, out, samples=samples, start=start_of(recipe, init),
        more_epochs=more_epochs, device=chosen, workers=workers, stop_after=stop_after,
        minutes=minutes, log_every=log_every, report=report, stop=stop,
    )  # fmt: skip


def fit(
    objective: Objective,
    data: Path,
    out: Path,
    *,
    samples: TrainingSet | None = None,
    start: Given | None = None,
    more_epochs: bool = False,
    device: str | torch.device | None = None,
    workers: int = 0,
    stop_after: int | None = None,
    minutes: float | None = None,
    log_every: int = 20,
    report: Report = lambda progress: None,
    stop: Callable[[], bool] = never,
) -> Progress:
    """Train an objective by its recipe, from where `out` says that it was.

    Args:
        objective: its model is trained in place.
        data, out, more_epochs: as in `train`.
        samples: what is learned from instead of the training split in `data`.
        start: what the model was filled from; a run goes on only with the same.
        device: default CUDA if there is one.
        workers: processes that read images, per training process. They are started afresh
            (spawn), never forked from this one with its threads, so a script that asks for them
            needs `if __name__ == "__main__":`.
        stop_after: end after so many steps of this call, to be resumed.
        minutes: end this call after so long, to be resumed; the rate falls over this time instead
            of over the recipe's epochs, see `TimeBudget`. In one process only.
        log_every: steps between two lines of the log; a line holds means over these steps.
        report: called with the progress at every line of the log, and after an evaluation.
        stop: asked after each step whether to end early, with `last.pt` written.
    """
    rank, world, chosen = _join(device)
    budget = None if minutes is None else TimeBudget(minutes)
    if budget is not None and world > 1:
        raise InputError(f"minutes is for one process, not for {world}; set epochs instead")
    recipe = objective.recipe
    objective.to(chosen)
    samples = samples or objective.dataset(data)
    validation = objective.check(data, chosen)
    if rank == 0:
        _log.info("%s", samples.summary())
        check_pictures(samples.pictures)
    require_space(out, objective, averaged=recipe.ema is not None)
    objective.train()
    sampler = EpochSampler(
        len(samples), recipe.batch_size, recipe.seed,
        index=rank, count=world, repeats=recipe.repeats,
    )  # fmt: skip
    given = {**(start or {}), "data": samples.digest(data), "validation": validation}
    lock: AbstractContextManager[None] = one_writer(out) if rank == 0 else nullcontext()
    with lock:
        run = _Run(objective, sampler.steps_per_epoch, data, out, chosen, rank, given)
        run.budget = budget
        run.resume(more_epochs)
        sampler.first_step = run.step
        sampler.last_step = run.steps
        if stop_after is not None:
            sampler.last_step = min(run.steps, run.step + stop_after)
        loader = DataLoader(
            Guarded(samples), batch_sampler=sampler, num_workers=workers,
            collate_fn=Guarded(samples).collate, pin_memory=chosen.type == "cuda",
            multiprocessing_context="spawn" if workers else None,
        )  # fmt: skip
        return _steps(run, loader, world, log_every, report, run.with_its_end(stop))


def _steps(
    run: _Run,
    loader: DataLoader[Any],
    world: int,
    log_every: int,
    report: Report,
    stop: Callable[[], bool],
) -> Progress:
    network: nn.Module = run.objective
    if world > 1:
        network = nn.parallel.DistributedDataParallel(
            run.objective, device_ids=[run.device.index] if run.device.type == "cuda" else None
        )
    report(run.progress())
    try:
        if run.is_evaluation_due():  # the run ended during it
            run.evaluate(stop)
        for batch in _batches(loader, stop):
            if isinstance(batch, Fault):
                run.save()
                raise DataError(
                    f"{batch}; replace the file by one of the same size: the same command then "
                    f"goes on from step {run.step}"
                )
            run.update(network, batch.to(run.device))
            is_due = run.is_evaluation_due()
            is_news = is_due or run.step % log_every == 0
            if is_news:
                run.note_loss()
            if is_due:
                run.save()
                run.evaluate(stop)
            elif run.is_saving_due():
                run.save()
            if is_news:
                report(run.progress())
            if _agree(stop, run.step, world):
                run.save()  # before the workers are waited for
                break
    except Stopped:  # during an evaluation
        pass
    run.save()
    return run.progress()


def _batches(loader: DataLoader[Any], stop: Callable[[], bool]) -> Iterator[Any]:
    """Yield the batches; the signal that asks to stop may have ended the workers already."""
    with uninterruptible():
        batches = iter(loader)
    while True:
        try:
            yield next(batches)
        except StopIteration:
            return
        except RuntimeError:
            if stop():
                return
            raise


def _agree(stop: Callable[[], bool], step: int, world: int) -> bool:
    """Tell whether a process was asked to stop; all of several end at the same step."""
    if world == 1:
        return stop()
    if step % _ASK_EVERY:
        return False
    backend_device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    asked = torch.tensor(int(stop()), device=backend_device)
    torch.distributed.all_reduce(asked)
    return bool(asked)


def _join(device: str | torch.device | None) -> tuple[int, int, torch.device]:
    """Return this process's rank, how many there are, and its device; join the group if many."""
    rank, world = launched() or (0, 1)
    chosen = choose_device(device)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return rank, world, chosen


class _Run:
    """The state of a training: networks, optimizer, step, numbers."""

    def __init__(
        self,
        objective: Objective,
        steps_per_epoch: int,
        data: Path,
        out: Path,
        device: torch.device,
        rank: int,
        given: Given,
    ) -> None:
        self.recipe, self.objective, self.data, self.out = objective.recipe, objective, data, out
        self.device, self.rank, self.given = device, rank, given
        self.steps_per_epoch = steps_per_epoch
        self.steps = self.recipe.epochs * steps_per_epoch
        self.optimizer = make_optimizer(self.recipe, objective.model)
        self.schedule = make_schedule(self.recipe, self.optimizer, self.steps, steps_per_epoch)
        self.average = self._average()
        self.step, self.evaluated = 0, 0  # the steps done, and those before the last evaluation
        self.loss: float | None = None
        self.value: float | None = None
        self.best: float | None = None
        self.running: dict[str, Tensor] = {}  # sums of the loss and of what is monitored
        self.since = 0
        self.clock = self.saved = time.monotonic()
        self.budget: TimeBudget | None = None

    def update(self, network: nn.Module, batch: Batch) -> None:
        """Do one step. What is random in the network depends on seed, step and rank alone."""
        seed = np.random.SeedSequence((self.recipe.seed, self.step, self.rank))
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        share = None if self.budget is None else self.budget.share()
        self.schedule.step_update(self.step if share is None else int(share * self.steps))
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
        if not means["loss"] < float("inf"):
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

    def with_its_end(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return what says when to end: `stop`, or the time is over."""
        budget = self.budget
        return stop if budget is None else lambda: stop() or budget.is_over

    def is_saving_due(self) -> bool:
        """Whether `last.pt` is old, in steps or, where the time is limited, in seconds."""
        is_late = self.budget is not None and time.monotonic() - self.saved > _SAVE_AFTER
        return is_late or self.step % _SAVE_EVERY == 0

    def is_evaluation_due(self) -> bool:
        """Whether an evaluation belongs after the last step, and was not done."""
        often = self.recipe.eval_every * self.steps_per_epoch
        due = self.step % often == 0 or self.step == self.steps
        return due and self.evaluated != self.step

    def evaluate(self, stop: Callable[[], bool]) -> None:
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
            value = self.objective.evaluate(self.data, folder, str(self.device), stop)
        finally:
            self.objective.model = trained
            self.objective.train()
        self.evaluated = self.step
        if value is None:
            return
        self.value, metric = value, self.objective.metric
        self._log(step=self.step, epoch=self.step / self.steps_per_epoch, **{metric: value})
        if self.best is None or value > self.best:
            self.best = value
            with writing(self.out / "best", "make room; the same command goes on"):
                save_pretrained(kept, self.out / "best")
        self.save()
        draw_curves(self.out / "log.jsonl", metric, self.out / "curves.png")

    def progress(self) -> Progress:
        """Return how far the run is."""
        return Progress(
            step=self.step, steps=self.steps, loss=self.loss, metric=self.objective.metric,
            value=self.value, best=self.best,
            is_done=self.step == self.steps and not self.is_evaluation_due(),
        )  # fmt: skip

    def save(self) -> None:
        """Write `last.pt` under another name and move it into place."""
        self.saved = time.monotonic()
        if self.rank != 0:
            return
        state = {
            "given": self.given,
            "objective": self.objective.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "evaluated": self.evaluated,
            "since": self.since,
            "running": self.running,
            "loss": self.loss,
            "value": self.value,
            "best": self.best,
        }
        write_state(self.out / CHECKPOINT, state, self.objective)

    def resume(self, more_epochs: bool) -> None:
        """Go on from `last.pt` if it is there.

        Raises:
            CheckpointError: it is damaged.
            InputError: it belongs to another run.
        """
        state = read_state(self.out, self.objective, self.given, self.device, more_epochs)
        if self.rank == 0:
            trim_log(self.out / "log.jsonl", 0 if state is None else state["step"])
        if state is None:
            return
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.step, self.evaluated, self.since = state["step"], state["evaluated"], state["since"]
        self.running, self.loss = state["running"], state["loss"]
        self.value, self.best = state["value"], state["best"]
        if self.rank == 0:
            how = "is finished:" if self.progress().is_done else "goes on from"
            epochs = f"epoch {self.step / self.steps_per_epoch:.1f} of {self.recipe.epochs}"
            _log.info("%s %s step %d of %d, %s", self.out, how, self.step, self.steps, epochs)

    def _log(self, **values: Any) -> None:
        if self.rank == 0:
            log = self.out / "log.jsonl"
            with writing(log, "make room; the same command goes on"):
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(values) + "\n")
