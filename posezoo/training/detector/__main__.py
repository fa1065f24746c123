"""The command of the training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ...cli.errors import ErrorLineCommand
from ...runs.stopping import Stop
from .loop import train_detector

_COUNT = click.IntRange(min=0)


@click.command(cls=ErrorLineCommand)
@click.option("--seed", type=_COUNT, required=True, help="Of all that is random.")
@click.option("--minutes", type=float, required=True, help="How long, from the first batch on.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File of the averaged weights, written each half minute.",
)
@click.option("--init", help="A name with weights, or a file of such a training to go on from.")
@click.option("--batch-size", default=64, show_default=True, help="Images, half of them new.")
@click.option("--lr", default=2e-3, show_default=True, help="The largest learning rate.")
@click.option("--device", help="Where to render and train.  [default: cuda if available]")
@click.option("--workers", type=_COUNT, default=0, show_default=True, help="Processes that render.")
@click.option(
    "--first", type=_COUNT, default=0, show_default=True, help="Number of the first batch."
)  # fmt: skip
def main(**given: Any) -> None:
    """Train the person detector of the package on photos that are rendered as it trains.

    Ctrl-C and SIGTERM end it with the file written; the last line says how to go on.
    """
    with Stop() as stop:
        train_detector(**given, stop=lambda: stop.requested)
    sys.exit(stop.status)


if __name__ == "__main__":
    main()
