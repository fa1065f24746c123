"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "PATH", "batch_size", "category", "checkpoint", "compile_network", "complete_model", "data",
    "device", "dtype", "dtype_or_auto", "engine", "flip_test", "shard", "workers",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

category = click.option(
    "--category",
    help="Name or id of the people's category; default: 'person', or the only one there is.",
)
checkpoint = click.option("--checkpoint", type=PATH, help="Weights file to use instead.")
compile_network = click.option(
    "--compile", is_flag=True, help="Run the network through torch.compile."
)
data = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the data set.",
)


def folder_or_rendering(context: click.Context, option: click.Parameter, value: Path) -> Path:
    """Let "render:SEED" pass, and else only a folder that is there."""
    if str(value).startswith("render:"):
        return value
    there = click.Path(path_type=Path, exists=True, file_okay=False)
    return Path(there.convert(value, option, context))


device = click.option(
    "--device", default=None, help="cpu, cuda, cuda:1 … (default: cuda if there is one)"
)
_DTYPES = ["float32", "float64", "bfloat16", "float16"]
_DTYPE_HELP = (
    "In torch the 16-bit types run under autocast; openvino has float32 and bfloat16, "
    "onnxruntime float32."
)
dtype = click.option(
    "--dtype", type=click.Choice(_DTYPES), default="float32", show_default=True, help=_DTYPE_HELP
)
dtype_or_auto = click.option(
    "--dtype",
    type=click.Choice([*_DTYPES, "auto"]),
    default="float32",
    show_default=True,
    help=_DTYPE_HELP + " auto: bfloat16 where the hardware computes it faster.",
)
engine = click.option(
    "--engine",
    type=click.Choice(["torch", "onnxruntime", "openvino"]),
    help="What runs the network; other than torch on the CPU, exported once and kept in the "
    "cache. Default: torch, and for a .pt2 or .onnx file what fits it.",
)
flip_test = click.option(
    "--flip-test/--no-flip-test", default=None, help="Default: the recipe's choice."
)


def batch_size(what: str) -> Callable[[F], F]:
    """The option for how much goes through the network at once."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help=f"{what} per forward.",
    )


def workers(what: str, *, smallest: int, default: int) -> Callable[[F], F]:
    """The option for how many threads or processes read images."""
    return click.option(
        "--workers",
        type=click.IntRange(min=smallest),
        default=default,
        show_default=True,
        help=f"{what} that read images.",
    )


def shard(what_then: str) -> Callable[[F], F]:
    """The option for a part of the work."""
    return click.option(
        "--shard",
        metavar="I/N",
        help=f"Do part I of N only (from 0); needs --out. {what_then}",
    )


def complete_model(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """Return the names that begin as typed, for the completion of shells."""
    from ..zoo.catalog import list_models

    return [name for name in list_models() if name.startswith(text)]
