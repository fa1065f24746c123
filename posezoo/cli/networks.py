"""The network of a command: a registered name, with its weights or a file, or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..predictor import PosePredictor

__all__ = ["build_predictor", "find_network", "is_exported_file"]


def is_exported_file(name: str) -> bool:
    """Whether a name is that of a file as `posezoo export` writes them."""
    return Path(name).suffix in (".pt2", ".onnx")


def find_network(
    name: str, checkpoint: Path | None, *, engine: str | None, dtype: str
) -> nn.Module | str:
    """Return what `PosePredictor` and `evaluate_model` take as a model.

    Args:
        name: as `create_model` takes it, or an exported file.
        checkpoint: weights to use instead.
        engine, dtype: what will run the network, checked before weights are fetched.

    Raises:
        InputError: an engine that is not installed or lacks the type, or an exported file with
            other weights.
        UnknownModelError, CheckpointError, WeightsUnavailableError: see `create_model`.
    """
    from .. import create_model
    from ..engines.programs import find_engine

    if engine is not None and (engine != "torch" or is_exported_file(name)):
        find_engine(engine, "float32" if dtype == "auto" else dtype)
    if not is_exported_file(name):
        return create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint)
    if checkpoint is not None:
        raise InputError(f"{name} holds its weights; leave --checkpoint out")
    return name


def build_predictor(
    name: str,
    checkpoint: Path | None,
    *,
    device: str | torch.device | None,
    dtype: str,
    compile: bool,
    engine: str | None,
    batch_size: int,
    flip_test: bool | None,
) -> PosePredictor:
    """Return the predictor that the options of a command describe.

    Raises:
        InputError and others: see `find_network` and `PosePredictor`.
    """
    from ..device import choose_device, has_fast_bfloat16
    from ..optimization import optimize
    from ..predictor import PosePredictor

    model: nn.Module | str = name  # of which the predictor makes the fast version
    if checkpoint is not None:
        model = find_network(name, checkpoint, engine=engine, dtype=dtype)
    if engine in (None, "torch") and not is_exported_file(name):
        device = choose_device(device)
        in_float32 = dtype == "float32" or (dtype == "auto" and not has_fast_bfloat16(device))
        if not isinstance(model, str) and in_float32 and not compile:
            model = optimize(model, device=device)  # in other types the predictor does so
    predictor = PosePredictor(
        model, device=device, dtype=dtype, compile=compile, engine=engine,
        batch_size=batch_size, flip_test=flip_test,
    )  # fmt: skip
    if dtype == "auto":
        chosen = str(predictor.dtype).removeprefix("torch.")
        click.echo(f"posezoo: --dtype auto is {chosen} on {predictor.device}", err=True)
    return predictor
