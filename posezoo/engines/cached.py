"""A model on another engine: exported once, kept in the cache of this machine."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from ..export import export_model
from ..version import __version__
from ..weights.cache import CacheDir, exported_dir, locked
from ..zoo.model import ZooModel
from ..zoo.wrapped import copy_sharing_weights, zoo_model
from .network import ExportedNetwork
from .programs import find_engine, open_exported

__all__ = ["on_engine"]


def on_engine(
    model: nn.Module,
    engine: str,
    *,
    dtype: str | torch.dtype = torch.float32,
    cache_dir: CacheDir = None,
) -> ExportedNetwork:
    """Export a model unless the same weights were exported before, and open it in an engine.

    Args:
        model: a pose model or classifier made by `create_model`, in whatever wrapper.
        engine: one of `posezoo.engines.programs.ENGINES`.
        dtype: precision inside the network; weights are exported as float32.
        cache_dir: see `create_model`.

    Raises:
        InputError, CheckpointError, ExportError: see `export_model` and `open_exported`.
    """
    suffix = find_engine(engine, dtype).suffix
    network = copy_sharing_weights(zoo_model(model)).to("cpu", torch.float32)
    folder = exported_dir(cache_dir)
    path = folder / f"{network.pretrained_cfg.name}-{_digest(network)[:16]}{suffix}"
    with locked(folder):
        if not path.is_file():
            export_model(network, path)
    return open_exported(path, engine=engine, dtype=dtype)


def _digest(model: ZooModel) -> str:
    """Return a hash of all that decides the file: weights, configuration and who writes it."""
    about = {
        "cfg": model.pretrained_cfg.to_dict(),
        "args": model.current_args(),
        "origin": dict(model.origin),
        "versions": [__version__, torch.__version__],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
