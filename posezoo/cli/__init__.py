"""The command line: `posezoo COMMAND`.

    list, info                               what there is
    predict, app, export, demo               use a model
    eval, train                              with a data set
    fetch, convert, verify, push, publish    weights

Each command parses its options, calls the library, and prints. Exit status: 0 fine, 1 a file
failed or a result is outside its tolerance, 2 wrong usage. Whatever takes long to import (torch
above all) is imported when a command runs, so that `--help`, `list` and `info` answer at once.
"""

from __future__ import annotations

import click

from ..version import __version__
from .app import app
from .demo import demo
from .errors import ErrorLineGroup
from .evaluate import eval_command
from .export import export
from .models import info, list_command
from .predict import predict
from .train import train
from .weights import convert, fetch, publish, push, verify

__all__ = ["main"]


@click.group(cls=ErrorLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="posezoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Accurate human-pose models: list them, use them, evaluate and train them."""


for command in (
    list_command, info, predict, app, export, demo, eval_command, train,
    fetch, convert, verify, push, publish,
):  # fmt: skip
    main.add_command(command)
