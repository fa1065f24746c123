"""`posezoo predict`: photos, films and cameras in, keypoints and pictures out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..zoo.catalog import DEFAULT_MODEL
from . import options
from .guards import keep_inputs
from .networks import build_predictor, is_exported_file
from .predict_options import PredictOptions, predict_options

if TYPE_CHECKING:
    from ..media import Source
    from ..outputs.run import RunPlan
    from ..streaming import FrameResult, PoseStream
    from .predict_files import PredictFiles

__all__ = ["predict"]


@click.command(short_help="Find the keypoints of people in photos, films and cameras.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option(
    "--model",
    "name",
    default=DEFAULT_MODEL,
    show_default=True,
    shell_complete=options.complete_model,
    help="Registered name, hf-hub:…, local-dir:…, or a .pt2 or .onnx file of `posezoo export`. "
    "The default is ViTPose-B with the simple decoder: reported AP 75.5 on COCO, 17.5 GMACs a "
    "person, a download of 344 MB.",
)
@options.checkpoint
@predict_options
@options.device
@options.dtype_or_auto
@options.compile_network
@options.engine
@options.batch_size("Crops")
@options.flip_test
@options.shard("The last part to finish merges.")
@click.option("--resume", is_flag=True, help="Finish an interrupted run; needs --out.")
@click.option("--quiet", is_flag=True, help="No line per input; errors and the last line only.")
def predict(
    inputs: tuple[str, ...],
    name: str,
    checkpoint: Path | None,
    device: str | None,
    dtype: str,
    compile: bool,
    engine: str | None,
    batch_size: int,
    flip_test: bool | None,
    shard: str | None,
    resume: bool,
    quiet: bool,
    **told: Any,
) -> None:
    """Find the keypoints of people in each INPUT.

    An INPUT is a photo, a video, a folder with its sub-folders, a quoted pattern such as
    'photos/**/*.jpg', a .txt file with an input per line, or the number of a camera. Results
    go to standard output as JSON lines, or to --out. Several processes:
    torchrun --nproc-per-node N -m posezoo predict INPUT… --out FILE
    """
    chosen = PredictOptions(**told)
    _check_model(name)
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        click.echo(f"loading {name} …", err=True)  # importing torch and timm takes seconds
    from ..device import choose_device
    from ..media import find_sources
    from ..outputs.run import RunPlan, is_finished
    from ..runs.shares import Share, launched_share
    from ..streaming import PoseStream
    from .predict_files import PredictFiles

    outputs = (chosen.out, chosen.draw, chosen.draw_tokens)
    found = find_sources(inputs, [path for path in outputs if path is not None])
    sources = list(dict.fromkeys(found))  # an input that is named twice is done once
    files = PredictFiles(sources, chosen)
    keep_inputs(map(Path, inputs), [chosen.draw, chosen.draw_tokens])
    share = None if shard is None else Share.parse(shard)
    share = launched_share(share) or share
    _check_out(chosen.out, needed=resume or share is not None)
    _check_inputs(sources, [chosen.boxes, checkpoint], files.written)
    if chosen.out is not None and resume and files.form and is_finished(chosen.out, share):
        click.echo(f"{chosen.out} is finished; to begin anew, leave out --resume", err=True)
        return
    chosen_device = None if device is None else choose_device(device)
    boxes = chosen.read_boxes()
    predictor = build_predictor(
        name, checkpoint, device=chosen_device, dtype=dtype, compile=compile, engine=engine,
        batch_size=batch_size, flip_test=flip_test,
    )  # fmt: skip
    predictor.finder = chosen.finder(predictor.device).beside(predictor.cfg)
    if boxes is None:
        predictor.finder.load()  # before anything is written
    about = {
        "model": name, "checkpoint": str(checkpoint), "device": str(predictor.device),
        "dtype": str(predictor.dtype).removeprefix("torch."), "compile": compile,
        "engine": engine, "flip_test": predictor.flip_test,
    }  # fmt: skip
    plan = RunPlan(
        out=chosen.out, form=files.form, sinks=files.sinks(predictor), share=share, resume=resume,
        identity={**about, **files.identity()},
    )  # fmt: skip
    sys.exit(_run(PoseStream(predictor, chosen.stream, boxes), sources, plan, files, quiet))


def _check_model(name: str) -> None:
    """Check the name of the model before anything else.

    Raises:
        InputError, UnknownModelError: there is no such model, or it finds no poses.
    """
    from ..zoo.catalog import get_pretrained_cfg, is_model

    if is_model(name) and get_pretrained_cfg(name).task != "pose":
        raise InputError(f"{name} finds no poses; choose one of `posezoo list --task pose`")
    if not (is_model(name) or is_exported_file(name) or name.startswith(("hf-hub:", "local-dir:"))):
        get_pretrained_cfg(name)  # names close ones


def _check_out(out: Path | None, needed: bool) -> None:
    """Check that there is somewhere to write.

    Raises:
        InputError: no file where one is needed, and no standard output either.
    """
    if out is None and needed:
        raise InputError("--resume, --shard and torchrun need a file to meet in; give --out")
    if out is None and sys.stdout is None:
        raise InputError("standard output is closed; give --out")


def _check_inputs(
    sources: Sequence[Source], others: Sequence[Path | None], written: Sequence[Path]
) -> None:
    """Check what is cheap before weights are fetched.

    Raises:
        InputError: an output is an input, or there are films and nothing that reads them.
    """
    from ..media import Film, Photo
    from ..media.video import import_av

    inputs = [source.path for source in sources if isinstance(source, (Photo, Film))]
    keep_inputs([*inputs, *others], written)
    if not all(isinstance(source, Photo) for source in sources):
        import_av()


def _run(
    stream: PoseStream,
    sources: Sequence[Source],
    plan: RunPlan,
    files: PredictFiles,
    quiet: bool,
) -> int:
    """Predict and write; return the exit status."""
    from ..media import Photo
    from ..outputs.run import run
    from ..runs.stopping import Stop
    from ..streaming import units_of

    units = units_of(sources, track=stream.options.track)
    lines = _Lines(files, quiet or (plan.out is None and sys.stdout.isatty()))
    start = time.perf_counter()
    with Stop() as stop:
        counts = run(stream, units, plan, lines.tell, lambda: stop.requested)
    lines.finish()
    seconds = time.perf_counter() - start
    kinds = {isinstance(source, Photo) for source in sources}
    what = "image" if len(kinds) > 1 else "photo" if True in kinds else "frame"
    words = f"{_number(counts.frames - counts.failed, what)}, {_number(counts.people, 'person')}"
    words += f", {counts.failed} failed" if counts.failed else ""
    words += f"; {lines.count / seconds:.1f} {what}s per second" if lines.count else ""
    if stop.requested:
        words += "; stopped: " + (
            "nothing is kept without --out" if plan.out is None
            else "the same command with --resume goes on"
        )  # fmt: skip
    click.echo(words, err=True)
    return stop.status or (1 if counts.failed else 0)


class _Lines:
    """One line per input on standard error, and one per error."""

    def __init__(self, files: PredictFiles, quiet: bool) -> None:
        self.files, self.quiet = files, quiet
        self.source: str | None = None
        self.count = self.frames = self.people = 0

    def tell(self, found: FrameResult) -> None:
        """Take a finished frame."""
        self.count += 1
        if found.source != self.source:
            self.finish()
            self.source, self.frames, self.people = found.source, 0, 0
        if found.result is None:
            reason = str(found.error)
            reason = reason.removeprefix(f"{found.source}: ")
            where = "" if found.index is None and found.source in reason else f"{found.name}: "
            click.echo(f"posezoo: error: {where}{reason}", err=True)
            return
        self.frames += 1
        self.people += len(found.result)
        if found.index is None:
            self.finish()
            self.source = None

    def finish(self) -> None:
        """Print the line of the input that has ended."""
        if self.source is None or not self.frames or self.quiet:
            return
        people = _number(self.people, "person")
        frames = f"{self.frames} frames, " if self.frames > 1 else ""
        file = self.files.of(self.source)
        click.echo(f"{self.source}: {frames}{people}" + (f" -> {file}" if file else ""), err=True)
        self.frames = 0


def _number(count: int, what: str) -> str:
    many = {"person": "people"}.get(what, f"{what}s")
    return f"{count} {what if count == 1 else many}"
