"""Errors of the library and of the file system as one line and an exit status."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any

import click

from ..errors import InputError, PoseZooError, UnknownModelError

__all__ = ["ErrorLineCommand", "ErrorLineGroup"]


class _ErrorLine(click.Command):
    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # terminals that know few characters
        return super().main(*args, **options)

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


class ErrorLineCommand(_ErrorLine):
    """A command whose errors are one line."""


class ErrorLineGroup(_ErrorLine, click.Group):
    """A group whose errors are one line; it lists its commands in the order in which they came."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _sentence(error: Exception) -> str:
    """Say what happened in one line."""
    if isinstance(error, PoseZooError):
        text = re.sub(r"(?<![.:;,])\s*\n\s*", ". ", str(error).strip())
        return re.sub(r"\s*\n\s*", " ", text)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split())[:300] or "no message"
    return f"{type(error).__name__}: {text}; `posezoo --debug COMMAND …` shows where it happened"
