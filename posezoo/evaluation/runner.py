"""From a task to a table row: shares, checkpoints, merging, scoring, the record.

The samples are cut into blocks; each block is one file once it is done, written atomically. A
process takes every n-th block, so shares need no padding; blocks that are there already are not
done again, which makes them checkpoints. Rank 0, or in a job array whoever finishes last, merges
all blocks, checks that every sample occurs exactly once, and scores. Tasks round their numbers
(coordinates to 1/10000 pixel), so that the same run gives the same bytes in any number of
processes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..datasets.tables import load_json
from ..errors import DataError, InputError
from ..version import __version__
from ..weights.files import replacing
from .reading import BadImage
from .tasks import Rows, Task

__all__ = ["EvaluationRecord", "Share", "evaluate"]

_BLOCK = 16  # images per block file


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of the blocks this process does: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InputError(
                f"share {self.index}/{self.count}: the index runs from 0 to {self.count - 1}"
                if self.count > 0
                else f"share {self.index}/{self.count}: there must be at least one share"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One measured row: what was measured, on what, with what, and how long it took.

    `statistics` are fractions. `settings` decide the numbers, `run` only how fast they come.
    `seconds` is the wall time of this process by stage; images are decoded beside the network,
    and `wait for images` is the part of `predict` in which the network had none. `bad` names
    images that could not be used, with the reason.
    """

    model: str
    dataset: str
    box_source: str
    statistics: Mapping[str, Any]
    settings: Mapping[str, Any]
    run: Mapping[str, Any]
    images: int
    results: int
    bad: Mapping[str, str]
    seconds: Mapping[str, float]
    environment: Mapping[str, str]
    weights: Mapping[str, str]
    command: str
    date: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def evaluate(
    task: Task,
    *,
    model: str,
    dataset: str,
    settings: Mapping[str, Any],
    run: Mapping[str, Any],
    weights: Mapping[str, str],
    device: torch.device,
    command: str = "",
    out: Path | None = None,
    share: Share | None = None,
    resume: bool = False,
    progress: bool = False,
) -> EvaluationRecord | None:
    """Run a task, or a share of it, and score it once all blocks are there.

    Args:
        task: the data set and the model.
        model, dataset, settings, run, weights, command: for the record; a resumed run must
            agree in model, settings and weights.
        out: folder for `results.json`, `record.json` and, while the run lasts, `blocks/`.
        share: which part to do; without it the share is that of the torchrun process, or all.
        resume: use the blocks that an earlier run left in `out`. Shares always do.
        progress: show a bar.

    Returns:
        The record; None where this process only did its share.

    Raises:
        DataError: non-finite predictions, a folder that cannot be written or holds another run,
            or blocks that are missing or overlap.
        InputError: several processes without `out`, or a share under torchrun.
    """
    launched = _torchrun_share()
    if share is not None and launched is not None:
        raise InputError("a share under torchrun, which hands out the shares itself; give one")
    mine = share or launched or Share()
    if out is None and mine.count > 1:
        raise InputError("several processes need a folder to meet in: give --out")
    temporary = None if out is not None else tempfile.mkdtemp(prefix="posezoo-eval-")
    folder = out or Path(temporary)  # type: ignore[arg-type]
    identity = {"model": model, **settings, **weights}
    clock = _Clock()
    try:
        if launched and mine.index > 0:
            _barrier()  # until rank 0 has made the folder, or refused it
        _open_run(folder, task, identity, resume or mine.index > 0 or share is not None)
        if launched and mine.index == 0:
            _barrier()
        _do_blocks(task, folder / "blocks", mine, progress)
        clock.stop("predict")
        clock.seconds["wait for images"] = round(task.seconds_waited, 3)
        if launched:
            _barrier()
        if launched and mine.index > 0:
            return None
        if share is not None and not _is_mine_to_merge(task, folder / "blocks"):
            return None
        rows, bad = _merge(task, folder / "blocks")
        results = task.result_rows(rows)
        clock.stop("merge")
        statistics = task.score(rows)
        clock.stop("score")
        _write(folder / "results.json", results)
        clock.stop("write")
        record = EvaluationRecord(
            model=model,
            dataset=dataset,
            box_source=task.box_source,
            statistics=statistics,
            settings=settings,
            run={**run, "processes": mine.count},
            images=len(task.paths),
            results=len(results),
            bad=bad,
            seconds=clock.seconds,
            environment=_environment(device),
            weights=weights,
            command=command,
            date=datetime.date.today().isoformat(),
        )
        _write(folder / "record.json", record.to_dict())
        shutil.rmtree(folder / "blocks")
        return record
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


# ------------------------------------------------------------------------------- blocks


def _open_run(folder: Path, task: Task, identity: Mapping[str, Any], join: bool) -> None:
    """Make the block folder, or make sure that the one that is there belongs to this run."""
    digest = hashlib.sha256("\n".join(map(str, task.paths)).encode()).hexdigest()
    wanted = {**identity, "box_source": task.box_source, "samples": digest}
    wanted = json.loads(json.dumps(wanted))
    note = folder / "blocks" / "run.json"
    if not note.is_file():
        _write(note, wanted)
        return
    found = load_json(note)
    if found != wanted:
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        raise DataError(
            f"{folder} holds an unfinished run that differs in {', '.join(keys)}; "
            "give another --out, or delete its blocks"
        )
    if not join:
        raise DataError(
            f"{folder} holds an unfinished run of the same settings; give --resume to finish it, "
            "or delete its blocks"
        )


def _blocks(task: Task) -> list[range]:
    count = len(task.paths)
    return [range(i, min(i + _BLOCK, count)) for i in range(0, count, _BLOCK)]


def _path(folder: Path, block: range) -> Path:
    return folder / f"{block.start:08d}.json"


def _do_blocks(task: Task, folder: Path, mine: Share, progress: bool) -> None:
    """Predict the blocks of this share that are not there yet; batches fill across blocks."""
    todo = [
        b for b in _blocks(task)[mine.index :: mine.count] if not _path(folder, b).is_file()
    ]  # fmt: skip
    samples = [i for block in todo for i in block]
    results, counts = task.predict(samples), task.counts
    with tqdm(total=sum(counts[i] for i in samples), unit=task.unit, disable=not progress) as bar:
        for block in todo:
            done = []
            for i in block:
                rows = next(results)
                bad = isinstance(rows, BadImage)
                done.append({"sample": i, "bad": str(rows)} if bad else {"sample": i, "rows": rows})
                bar.update(counts[i])
            _write(_path(folder, block), done)


def _is_mine_to_merge(task: Task, folder: Path) -> bool:
    """Whether all shares are done and no other process has begun to merge them."""
    if not all(_path(folder, block).is_file() for block in _blocks(task)):
        return False
    try:
        (folder / "merging").touch(exist_ok=False)
    except OSError:  # another process merges, or has merged and removed the folder
        return False
    return True


def _merge(task: Task, folder: Path) -> tuple[list[Rows], dict[str, str]]:
    """Read all blocks and check that every sample is there exactly once."""
    found: dict[int, Any] = {}
    for path in sorted(folder.glob("[0-9]*.json")):
        for entry in load_json(path):
            if entry["sample"] in found:
                raise DataError(f"sample {entry['sample']} occurs twice in {folder}")
            found[entry["sample"]] = entry
    missing = sorted(set(range(len(task.paths))) - set(found))
    if missing or len(found) != len(task.paths):
        raise DataError(
            f"{len(missing)} of {len(task.paths)} samples are missing in {folder}, first "
            f"{missing[:1]}; run the other shares, or this one again with --resume"
        )
    ordered = [found[i] for i in range(len(task.paths))]
    bad = {str(task.paths[e["sample"]]): e["bad"] for e in ordered if "bad" in e}
    if len(bad) == len(set(task.paths)):
        first, reason = next(iter(bad.items()))
        raise DataError(f"none of the {len(bad)} images could be used, first {first}: {reason}")
    return [entry.get("rows", []) for entry in ordered], bad


def _write(path: Path, value: Any) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error}; give another --out, or make room"
        ) from error


# ------------------------------------------------------------------------------- processes


def _torchrun_share() -> Share | None:
    """Return the share of this process of several, None if it is alone."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(days=2))
    return Share(index=torch.distributed.get_rank(), count=torch.distributed.get_world_size())


def _barrier() -> None:
    torch.distributed.barrier()


class _Clock:
    """Wall time between stops."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now


def _environment(device: torch.device) -> dict[str, str]:
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.machine()
    environment = {
        "posezoo": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": f"{device} {name}".strip(),
        "threads": str(torch.get_num_threads()),
    }
    if platform.system() == "Linux":
        import resource

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        environment["peak_memory_mib"] = f"{kib / 1024:.0f}"
    if cuda:
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        environment["peak_device_memory_mib"] = f"{peak:.0f}"
    return environment
