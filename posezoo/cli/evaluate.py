"""`posezoo eval`: a model and a data set in, a table row out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from . import guards, options
from .networks import find_network

if TYPE_CHECKING:
    from ..evaluation import EvaluationRecord

__all__ = ["eval_command"]


@click.command("eval", short_help="Evaluate a model; print its table row.")
@click.argument("name", shell_complete=options.complete_model)
@options.data
@click.option(
    "--boxes",
    default="det",
    show_default=True,
    help="'gt', a detection file, or 'det': the common one (person AP 56.4) in the folder.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Annotation file; default: the usual one of the model's data set.",
)
@options.category
@options.checkpoint
@click.option("--out", type=options.PATH, help="Folder for results and record.")
@options.device
@options.dtype
@click.option("--tf32/--no-tf32", default=False, show_default=True, help="TF32 products on CUDA.")
@options.compile_network
@options.engine
@options.batch_size("Crops or images")
@options.workers("Threads", smallest=1, default=4)
@options.flip_test
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="First so many images only; partial, not comparable.",
)
@options.shard("The last part to finish scores.")
@click.option("--resume", is_flag=True, help="Finish the run that --out holds.")
@click.option(
    "--images-subset", is_flag=True, help="Leave out images that are missing: not comparable."
)
@click.option("--skip-bad", is_flag=True, help="Exit 0 although images could not be used.")
def eval_command(
    name: str,
    data: Path,
    boxes: str,
    annotations: Path | None,
    category: str | None,
    checkpoint: Path | None,
    dtype: str,
    tf32: bool,
    compile: bool,
    engine: str | None,
    flip_test: bool | None,
    limit: int | None,
    shard: str | None,
    images_subset: bool,
    skip_bad: bool,
    **run_options: Any,
) -> None:
    """Evaluate the model NAME, or an exported file, on its data set and print the table row.

    Several processes: torchrun --nproc-per-node N -m posezoo eval NAME … --out DIR
    """
    import torch

    from ..evaluation import EvaluationSettings, RunOptions, evaluate_model
    from ..runs.shares import Share
    from ..runs.stopping import Stop, Stopped

    detections = None if boxes in ("gt", "det") else Path(boxes)
    if detections is not None and not detections.is_file():
        raise InputError(f"--boxes is {boxes!r}, and there is no such file; valid: gt, det, a file")
    if out := run_options["out"]:
        files = [checkpoint, annotations, detections]
        guards.keep_inputs(files, [out / "results.json", out / "record.json"])
    settings = EvaluationSettings(
        boxes=boxes, annotations=annotations, dtype=getattr(torch, dtype), tf32=tf32,
        compile=compile, engine=engine, flip_test=flip_test, limit=limit,
        images_subset=images_subset, category=category,
    )  # fmt: skip
    share = None if shard is None else Share.parse(shard)
    model = find_network(name, checkpoint, engine=engine, dtype=dtype)
    with Stop() as stop:
        run = RunOptions(
            share=share, progress=sys.stderr.isatty(), stop=lambda: stop.requested,
            command="posezoo " + " ".join(sys.argv[1:]), **run_options,
        )  # fmt: skip
        try:
            record = evaluate_model(model, data, settings, run)
        except Stopped as error:
            click.echo(f"posezoo: {error}", err=True)
            sys.exit(stop.status)
    if record is None:
        click.echo(
            "this share is done; whoever finishes last scores (if nobody did: the same command "
            "with --resume and without --shard)",
            err=True,
        )
        return
    sys.exit(_print(record, skip_bad))


def _print(record: EvaluationRecord, skip_bad: bool) -> int:
    """Print the table row, the record, and images that were not used; return the exit status."""
    click.echo(record.table())
    click.echo(json.dumps(record.to_dict()))
    for reason in record.bad.values():  # each names its file
        click.echo(f"posezoo: not used: {reason}", err=True)
    return 1 if record.bad and not skip_bad else 0
