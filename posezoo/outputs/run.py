"""A stream to files: what `posezoo predict` does.

units -> share -> stream -> sinks, with a checkpoint after each unit and every few chunks of a film.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs.folder import RunFolder
from ..runs.lock import one_writer
from ..runs.shares import Share
from ..runs.stopping import never
from ..streaming.found import FrameResult
from ..streaming.stream import PoseStream, Position, Step
from ..streaming.units import Unit
from .formats import TextFormat
from .progress import Counts, Progress, finished_counts
from .sink import Sink
from .textfile import StandardOutput, TextSink, UnitTexts, merge_texts

__all__ = ["RunPlan", "is_finished", "run"]

_CHUNKS = 4  # of a film between checkpoints
_OWN = ("device", "out", "draw", "draw_tokens")  # what shares, on many machines, need not agree on


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Where a run writes, and which part of the work it does.

    Attributes:
        out: file for the texts, or a folder where `form` is None; None is standard output.
        form: of the texts; None where other sinks write the results.
        sinks: everything else that is written.
        identity: what a run that goes on must have in common with the one before.
        share: of several processes, None for all the work.
        resume: go on with an unfinished run. Shares always do.
    """

    out: Path | None
    form: TextFormat | None
    sinks: Sequence[Sink]
    identity: Mapping[str, Any]
    share: Share | None = None
    resume: bool = False

    @property
    def folder(self) -> RunFolder:
        """What shares write into until the last one merges it."""
        assert self.out is not None
        return RunFolder(_folder(self.out))


def run(
    stream: PoseStream,
    units: Sequence[Unit],
    plan: RunPlan,
    tell: Callable[[FrameResult], None],
    stop: Callable[[], bool] = never,
) -> Counts:
    """Do the units of a share; return the counts of the whole run, or of this share.

    Args:
        stream: finds the people.
        units: all the work.
        plan: what is written where.
        tell: called with each finished frame.
        stop: asked after each chunk whether to end early.

    Raises:
        DataError: something cannot be written, belongs to another run, or is being written.
    """
    share = plan.share or Share()
    mine = range(share.index, len(units), share.count)
    with ExitStack() as stack:
        sinks = [*_text_sinks(plan), *plan.sinks]
        progress = _progress(plan, stack)
        if progress.load(resume=plan.resume or plan.share is not None):
            for sink, state in zip(sinks, progress.sinks):
                sink.restore(state)
        else:
            progress.save()
        todo = [units[i] for i in mine]
        if not progress.done and not _write(stream, todo, mine, sinks, progress, tell, stop):
            return progress.counts
        if plan.share is None:
            progress.remove()
            return progress.counts
        progress.done = True
        progress.save()
        return _merged(plan, len(units)) or progress.counts


def is_finished(out: Path, share: Share | None) -> bool:
    """Tell whether a file of texts is there, and no run of it that is unfinished."""
    begun = _folder(out) if share is not None else _progress_file(out)
    return out.is_file() and not begun.exists()


def _folder(out: Path) -> Path:
    """Return what shares write into until the last one merges it."""
    return out.with_name(f"{out.name}.parts")


def _progress_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.progress")


def _text_sinks(plan: RunPlan) -> list[Sink]:
    if plan.form is None:
        return []
    if plan.out is None:
        return [StandardOutput(plan.form)]
    if plan.share is None:
        return [TextSink(plan.out, plan.form)]
    return [UnitTexts(plan.folder.folder, plan.form)]


def _progress(plan: RunPlan, stack: ExitStack) -> Progress:
    """Return the progress of this process, whose files no other process writes."""
    if plan.out is None:
        return Progress(path=None, identity=plan.identity)
    if plan.share is None:
        stack.enter_context(_one_writer(plan.out))
        path = _progress_file(plan.out)
    else:
        stack.enter_context(plan.folder.locked(plan.share))
        common = {key: value for key, value in plan.identity.items() if key not in _OWN}
        plan.folder.open({**common, "shares": plan.share.count}, join=True)
        path = _share_file(plan, plan.share.index)
    return Progress(path=path, identity=plan.identity)


def _one_writer(out: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing the file of texts."""
    return one_writer(out.parent, f".{out.name}.lock")


def _share_file(plan: RunPlan, index: int) -> Path:
    assert plan.share is not None
    return plan.folder.folder / f"share-{index}-of-{plan.share.count}.progress"


def _write(
    stream: PoseStream,
    units: Sequence[Unit],
    numbers: Sequence[int],
    sinks: Sequence[Sink],
    progress: Progress,
    tell: Callable[[FrameResult], None],
    stop: Callable[[], bool],
) -> bool:
    """Write what the stream finds; return whether it came to its end."""
    current: int | None = None
    chunks = 0
    counts = dataclasses.replace(progress.counts)
    try:
        for step in stream.run(units, progress.position):
            if current != step.unit:
                current = step.unit
                for sink in sinks:
                    sink.begin(numbers[current])
            _take(step, sinks, counts, tell)
            chunks += step.after is not None
            if step.ends:
                for sink in sinks:
                    sink.end()
            if step.after is not None and (step.ends or chunks % _CHUNKS == 0):
                _checkpoint(progress, sinks, step.after, counts)
            if stop() and not (step.ends and step.unit == len(units) - 1):
                progress.counts = counts
                return False
    finally:
        for sink in sinks:
            sink.close()
    return True


def _take(
    step: Step, sinks: Sequence[Sink], counts: Counts, tell: Callable[[FrameResult], None]
) -> None:
    for sink in sinks:
        sink.write(step.found)
    for found in step.found:
        counts.frames += 1
        counts.failed += found.result is None
        counts.people += 0 if found.result is None else len(found.result)
        tell(found)


def _checkpoint(
    progress: Progress, sinks: Sequence[Sink], position: Position, counts: Counts
) -> None:
    progress.sinks = [sink.checkpoint() for sink in sinks]
    progress.position, progress.counts = position, dataclasses.replace(counts)
    progress.save()


def _merged(plan: RunPlan, units: int) -> Counts | None:
    """Merge the shares if all are done and nobody else merges; return the counts of all."""
    assert plan.share is not None and plan.out is not None
    with plan.folder.merging(lambda: all(counts is not None for counts in _shares(plan))) as merges:
        if not merges:
            return None
        counts = sum((found for found in _shares(plan) if found is not None), Counts())
        if plan.form is not None:
            with _one_writer(plan.out):
                merge_texts(plan.folder.folder, units, plan.out, plan.form)
        plan.folder.remove()
        return counts


def _shares(plan: RunPlan) -> list[Counts | None]:
    """Return what each share has done, None for one that is not at its end."""
    assert plan.share is not None
    return [finished_counts(_share_file(plan, i)) for i in range(plan.share.count)]
