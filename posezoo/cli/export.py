"""`posezoo export`: a model as a file that needs no posezoo."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .guards import keep_inputs

__all__ = ["export"]


@click.command(short_help="Write a model as a file that runs without posezoo.")
@click.argument("name", shell_complete=options.complete_model)
@click.option("--out", type=options.PATH, required=True, help=".pt2 or .onnx file.")
@options.checkpoint
def export(name: str, out: Path, checkpoint: Path | None) -> None:
    """Write the model NAME as a file that runs without posezoo.

    It takes normalised images (B, 3, H, W) and returns the network's raw output. How to crop and
    to decode is in its metadata: `posezoo predict --model FILE` needs nothing else.
    """
    from .. import create_model
    from ..export import export_model

    keep_inputs([checkpoint], [out])
    model = create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint)
    difference = export_model(model, out)
    click.echo(f"written  {out}; differs from the model by {difference:.1e} of the output's spread")
