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

import io
import os
import re
import sys
from typing import Any

import click

from ..errors import InputError, PoseZooError, UnknownModelError
from ..version import __version__
from .app import app
from .demo import demo
from .evaluate import eval_command
from .export import export
from .models import info, list_command
from .predict import predict
from .train import train
from .weights import convert, fetch, publish, push, verify

__all__ = ["main"]


class _Group(click.Group):
    """Lists commands in the order below; turns errors of the library and of the file system into
    one line and an exit status."""

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # terminals that know few characters
        return super().main(*args, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # whoever read the output has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  closed when the process ends
            sys.exit(1)
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"posezoo: error: {_sentence(error)}", err=True)
            sys.exit(2 if isinstance(error, (InputError, UnknownModelError)) else 1)


def _sentence(error: Exception) -> str:
    """Say what happened in one line."""
    if isinstance(error, PoseZooError):
        text = re.sub(r"(?<![.:;,])\s*\n\s*", ". ", str(error).strip())
        return re.sub(r"\s*\n\s*", " ", text)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split())[:300] or "no message"
    return f"{type(error).__name__}: {text}; `posezoo --debug COMMAND …` shows where it happened"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="posezoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Accurate human-pose models: list them, use them, evaluate and train them."""


for command in (
    list_command, info, predict, app, export, demo, eval_command, train,
    fetch, convert, verify, push, publish,
):  # fmt: skip
    main.add_command(command)
