"""A model, its name or an exported file, and the engine asked for, to the network that runs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..device import DTYPES, choose_dtype
from ..errors import InputError
from ..zoo.factory import create_model
from ..zoo.wrapped import unwrap
from .cached import on_engine
from .network import ExportedNetwork
from .programs import SUFFIXES, find_engine, open_exported

__all__ = ["dtypes_of", "engine_of", "is_exported_file", "open_network", "runs_exported"]


def is_exported_file(model: object) -> bool:
    """Whether this is the name of a file as `export_model` writes them."""
    return isinstance(model, (str, Path)) and Path(model).suffix in SUFFIXES


def runs_exported(model: object, engine: str | None) -> bool:
    """Whether `open_network` returns an exported network, which runs on the CPU."""
    return is_exported_file(model) or engine not in (None, "torch")


def dtypes_of(model: object, engine: str | None) -> tuple[torch.dtype, ...]:
    """Return the types that `open_network` with this engine could compute in.

    Raises:
        InputError: no such engine.
    """
    network = unwrap(model) if isinstance(model, nn.Module) else None
    if isinstance(network, ExportedNetwork):
        return (network.dtype,)
    if not runs_exported(model, engine):
        return tuple(DTYPES.values())
    usual = "torch" if str(model).endswith(".pt2") else "onnxruntime"
    return find_engine(engine or usual, torch.float32).dtypes


def engine_of(network: nn.Module) -> str:
    """Return the name of the engine that runs a network."""
    return network.engine if isinstance(network, ExportedNetwork) else "torch"


def open_network(
    model: nn.Module | str | Path,
    *,
    engine: str | None = None,
    dtype: str | torch.dtype = torch.float32,
    compile: bool = False,
) -> nn.Module:
    """Return the network for `model`: itself, loaded, opened or exported.

    Args:
        model: a network, the name of one, or a `.pt2` or `.onnx` file.
        engine: as in `PosePredictor`.
        dtype: the precision that it will run in.
        compile: whether it will be compiled, which only networks in torch can be.

    Raises:
        InputError: an engine that lacks the type, is not installed, or does not take this network.
        CheckpointError: a file that is missing or damaged, or that posezoo did not write.
        UnknownModelError, WeightsUnavailableError: see `create_model`.
    """
    if engine is not None:
        find_engine(engine, torch.float32)  # names the valid ones
    if is_exported_file(model):
        network: nn.Module = open_exported(str(model), engine=engine, dtype=dtype)
    else:
        network = _in_torch(model, engine, dtype)
    if compile and isinstance(unwrap(network), ExportedNetwork):
        raise InputError("an exported network is not compiled again; leave compile out")
    return network


def _in_torch(
    model: nn.Module | str | Path, engine: str | None, dtype: str | torch.dtype
) -> nn.Module:
    """Return a model or the loaded one, exported if an engine other than torch was asked for."""
    if engine not in (None, "torch"):
        find_engine(str(engine), dtype)  # before weights are fetched
    if isinstance(model, (str, Path)):
        model = create_model(str(model), pretrained=True)
    network = unwrap(model)
    if isinstance(network, ExportedNetwork):
        if engine not in (None, network.engine) or choose_dtype(dtype) not in (
            torch.float32,
            network.dtype,
        ):
            name = str(network.dtype).removeprefix("torch.")
            raise InputError(
                f"the network was opened in {network.engine} with {name}, and engine is "
                f"{engine!r}, dtype {dtype}; open its file with these instead"
            )
        return network
    return model if engine in (None, "torch") else on_engine(model, str(engine), dtype=dtype)
