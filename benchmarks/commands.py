"""The reference of the command line, as Markdown, from the commands themselves."""

from __future__ import annotations

import re

import click

from posezoo.cli import main


def reference() -> str:
    """Every command: its usage, what it does, its arguments and options."""
    with click.Context(main, info_name="posezoo", **main.context_settings) as ctx:
        parts = [_options(main, ctx)]
        for name in main.list_commands(ctx):
            command = main.get_command(ctx, name)
            assert command is not None
            with click.Context(command, ctx, info_name=f"posezoo {name}") as inner:
                parts += [f"## {name}", _usage(command, inner), _text(command)]
                parts.append(_options(command, inner))
    return "\n\n".join(part for part in parts if part)


def _usage(command: click.Command, ctx: click.Context) -> str:
    pieces = " ".join(command.collect_usage_pieces(ctx))
    return f"```text\n{ctx.info_name} {pieces}\n```"


def _text(command: click.Command) -> str:
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(_escaped(" ".join(p.split())) for p in paragraphs)


def _options(command: click.Command, ctx: click.Context) -> str:
    records = [p.get_help_record(ctx) for p in command.get_params(ctx)]
    rows = [
        f"| `{names.replace('|', ' / ')}` | {_escaped(told)} |"
        for names, told in filter(None, records)
        if told
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def _escaped(text: str) -> str:
    """Keep tables, HTML and emphasis intact."""
    text = re.sub(r"\s+", " ", text).replace("|", "\\|")
    return text.replace("<", "&lt;").replace("*", "\\*")
