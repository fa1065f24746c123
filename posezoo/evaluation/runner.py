"""A model and the folder of a data set to a record: what `posezoo eval` does.

data set -> samples -> rows -> statistics: `make_task` reads the samples, the task turns each into
rows, and rows into statistics. In between, rows are files (`blocks`), so that a run can be spread
over processes and go on after it was stopped. Tasks round their numbers, so that the same run
gives the same bytes in any number of processes.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..device import choose_device
from ..engines.network import ExportedNetwork
from ..engines.opening import engine_of, open_network
from ..errors import InputError
from ..runs.shares import Share, launched_share
from ..runs.stopping import Stopped
from ..zoo.config import PretrainedCfg
from ..zoo.model import PoseNetwork, Tokenizer, ZooModel
from ..zoo.wrapped import unwrap
from .blocks import BlockFolder, write_json
from .provenance import labels_of
from .record import EvaluationRecord, environment
from .settings import EvaluationSettings, RunOptions
from .tasks import EvaluationTask, make_task

__all__ = ["evaluate_model"]

_RECIPE, _PLAIN_RUN = EvaluationSettings(), RunOptions()


def evaluate_model(
    model: nn.Module | str | Path,
    data: Path,
    settings: EvaluationSettings = _RECIPE,
    run: RunOptions = _PLAIN_RUN,
) -> EvaluationRecord | None:
    """Evaluate a model on the data set it was made for.

    Args:
        model: a pose model, a classifier or a tokenizer from `create_model`, the name of one or
            of an exported file, or a network of one's own that `PosePredictor` takes.
        data: the folder of the data set, laid out as it is published; as COCO is for a model
            with keypoints of its own.
        settings: what decides the numbers; the record has them.
        run: how the run is carried out.

    Returns:
        The record; None where this process only did its share.

    Raises:
        Stopped: `run.stop` said so; the message says how to go on.
        DataError: files that are missing or malformed, another process that writes the same,
            predictions that are not finite, a folder
            that cannot be written or holds another run, or blocks that are missing or overlap.
        InputError: an option that the model or this machine does not have, several processes
            without `out`, or a share under torchrun.
    """
    opened = open_network(
        model, engine=settings.engine, dtype=settings.dtype, compile=settings.compile
    )
    network = unwrap(opened)
    exported = isinstance(network, ExportedNetwork)
    device = choose_device("cpu" if exported and run.device is None else run.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # page-locked memory and compiled code belong to it
    if not isinstance(network, (ZooModel, PoseNetwork)):
        raise InputError(f"{type(network).__name__} has no pretrained_cfg; see create_model")
    cfg = network.pretrained_cfg
    task = make_task(opened, cfg, data, settings, run, device)
    if settings.compile and isinstance(network, Tokenizer):
        task.model.compile()
    recorded = {
        "dtype": str(settings.dtype).removeprefix("torch."),
        "tf32": settings.tf32,
        "compile": settings.compile,
        "engine": engine_of(network),
        "input_size": list(cfg.input.size),
        "limit": settings.limit,
        **task.settings(),
        **(network.settings() if isinstance(network, (ZooModel, ExportedNetwork)) else {}),
    }
    origin = dict(network.origin) if isinstance(network, (ZooModel, ExportedNetwork)) else {}
    if settings.images_subset:
        recorded["images_subset"] = True
    if settings.category is not None:
        recorded["category"] = settings.category
    with _out_folder(run.out) as out, _tf32(settings.tf32):
        return _Run(cfg, origin, task, recorded, run, out).run(device)


class _Run:
    """One task on its way to a record."""

    def __init__(
        self,
        cfg: PretrainedCfg,
        origin: Mapping[str, str],
        task: EvaluationTask[Any],
        settings: Mapping[str, Any],
        options: RunOptions,
        out: Path,
    ) -> None:
        self.cfg, self.origin, self.task = cfg, origin, task
        self.settings, self.options = settings, options
        self.launched = _joined_share(options)
        self.share = options.share or self.launched or Share()
        if options.out is None and self.share.count > 1:
            raise InputError("several processes need a folder to meet in: give --out")
        self.blocks = BlockFolder(out, task.paths, keeps_rows=self.share.count == 1)
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def run(self, device: torch.device) -> EvaluationRecord | None:
        """Do the share; score if all blocks are there and it is this process that merges them."""
        if self.options.share is not None and not self.blocks.of(self.share):
            return None  # more shares than blocks; others may have merged them all
        with self.blocks.locked(self.share):
            return self.evaluate(device)

    def evaluate(self, device: torch.device) -> EvaluationRecord | None:
        """Do the same while nobody else does."""
        self.open()
        self.predict()
        self.stop("predict")
        self.seconds["wait for images"] = round(self.task.seconds_waited, 3)
        with self.merging() as merges:
            return self.merge(device) if merges else None

    def merge(self, device: torch.device) -> EvaluationRecord:
        """Score the rows of all blocks, write results and record, delete the blocks."""
        rows, bad = self.blocks.merge()
        results = self.task.result_rows(rows)
        self.stop("merge")
        statistics = self.task.score(results)
        self.stop("score")
        write_json(self.blocks.out / "results.json", results)
        self.stop("write")
        options = self.options
        record = EvaluationRecord(
            model=self.cfg.name,
            labels=labels_of(self.cfg, self.origin, self.task.counts, self.settings, len(bad)),
            notes=list(self.task.notes),
            dataset=self.cfg.dataset,
            box_source=self.task.box_source,
            statistics=statistics,
            settings=self.settings,
            run={
                "batch_size": options.batch_size,
                "workers": options.workers,
                "processes": self.share.count,
            },
            images=len(self.task.samples),
            results=len(results),
            bad=bad,
            seconds=self.seconds,
            environment=environment(device),
            weights=self.origin,
            command=options.command,
            date=datetime.date.today().isoformat(),
        )
        write_json(self.blocks.out / "record.json", record.to_dict())
        self.blocks.remove()
        return record

    def open(self) -> None:
        """Make or join the folder of blocks; of launched processes the first one makes it."""
        first = self.share.index == 0
        if self.launched and not first:
            torch.distributed.barrier()
        join = self.options.resume or self.options.share is not None or not first
        identity = {"model": self.cfg.name, **self.settings, **self.origin}
        self.blocks.open({**identity, "box_source": self.task.box_source}, join=join)
        if self.launched and first:
            torch.distributed.barrier()

    def predict(self) -> None:
        """Predict the blocks of the share that are not there yet; batches fill across blocks."""
        todo = self.blocks.missing(self.share)
        indices = [i for block in todo for i in block]
        rows = self.task.predict(indices)
        total = sum(self.task.samples[i].count for i in indices)
        with tqdm(total=total, unit=self.task.unit, disable=not self.options.progress) as bar:
            for block in todo:
                done = []
                for i in block:
                    if self.options.stop():
                        raise Stopped(self._how_to_go_on())
                    done.append(next(rows))
                    bar.update(self.task.samples[i].count)
                self.blocks.write(block, done)

    def _how_to_go_on(self) -> str:
        missing = sum(len(block) for block in self.blocks.missing(self.share))
        mine = sum(len(block) for block in self.blocks.of(self.share))
        text = f"stopped after {mine - missing} of {mine} images"
        if self.options.out is None:
            return f"{text}; nothing is kept without --out"
        return f"{text}, which are in {self.blocks.folder}; the same command with --resume goes on"

    def merging(self) -> AbstractContextManager[bool]:
        """Tell whether this process merges: rank 0, or of a job array who finishes last."""
        if self.launched:
            torch.distributed.barrier()
            return nullcontext(self.share.index == 0)
        return nullcontext(True) if self.options.share is None else self.blocks.merging()

    def stop(self, stage: str) -> None:
        """Note the wall time since the last stop."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self.last, 3)
        self.last = now


def _joined_share(options: RunOptions) -> Share | None:
    """Return the share of this process of torchrun, which then can wait for the others."""
    share = launched_share(options.share)
    if share is not None and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(days=2))
    return share


@contextmanager
def _out_folder(out: Path | None) -> Iterator[Path]:
    """Give the output folder, or a temporary one."""
    folder: AbstractContextManager[Any] = nullcontext(out)
    if out is None:
        folder = tempfile.TemporaryDirectory(prefix="posezoo-eval-")
    with folder as path:
        yield Path(path)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Set what float32 means on CUDA; PyTorch alone lets convolutions round to TF32."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before):
            backend.allow_tf32 = value
