"""A model folder: `model.safetensors` and `config.json`, written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, PoseZooError
from ..files import replacing
from ..zoo.catalog import build_model, check_arguments, model_arguments
from ..zoo.config import PretrainedCfg
from ..zoo.defaults import usual_torch
from ..zoo.model import Classifier, ZooModel
from ..zoo.wrapped import zoo_model
from .cache import CONFIG_FILE, WEIGHTS_FILE
from .tensors import write_safetensors

__all__ = ["SavedConfig", "read_config", "save_pretrained"]

_KEYS = {"architecture", "model_args", "posezoo", "origin"}
_TIMM_KEYS = {"num_classes", "num_features", "pretrained_cfg"}  # of classifiers


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """What `config.json` says: a configuration, and the arguments the model was built with."""

    cfg: PretrainedCfg
    model_args: Mapping[str, Any]


def save_pretrained(model: nn.Module, directory: str | Path) -> Path:
    """Write `model.safetensors` and `config.json`; `create_model("local-dir:…")` reads them.

    Files are written under temporary names, read back and moved, so nothing half done is left
    behind.

    Args:
        model: made by `create_model`; it may be in a wrapper (torch.compile, DataParallel, DDP,
            averaged copies).
        directory: the folder; it is made if it does not exist.

    Raises:
        TypeError: not a model made by `create_model`.
        CheckpointError: the model was changed so that its architecture does not take its weights.
    """
    model, directory = zoo_model(model), Path(directory)
    cfg = model.pretrained_cfg
    state, args = model.state_dict(), _saved_args(model)
    _check_loads(cfg, args, state)
    config: dict[str, Any] = {
        "architecture": cfg.architecture,
        "model_args": args,
        "posezoo": cfg.to_dict(),
    }
    if model.origin:
        config["origin"] = dict(sorted(model.origin.items()))
    if isinstance(model, Classifier):
        config |= _timm_fields(model)
    with replacing(directory / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        metadata = {"format": "pt", "posezoo": cfg.name, **model.origin}
        write_safetensors(state, directory / WEIGHTS_FILE, metadata)
    return directory


def _check_loads(cfg: PretrainedCfg, args: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuse weights that a new model of the same architecture and arguments does not take."""
    with usual_torch(), torch.device("meta"):
        new = build_model(cfg.architecture, **{**cfg.model_args, **args}).state_dict()
    shapes = {key: tensor.shape for key, tensor in state.items()}
    for key, tensor in new.items():
        if shapes.pop(key, None) != tensor.shape:
            shapes[key] = tensor.shape
    other = list(shapes)
    if other:
        raise CheckpointError(
            f"{cfg.architecture} was changed after it was made: {', '.join(other[:5])} would not "
            "load again; nothing was written. Save its state_dict() with torch.save instead"
        )


def _saved_args(model: ZooModel) -> dict[str, Any]:
    """Return the arguments of the model as it is; a head of the usual size goes without saying."""
    args, head = model.current_args(), model.head_argument
    if head is not None and head not in model.model_args:
        if args[head] == model_arguments(model.pretrained_cfg.architecture)[head]:
            del args[head]
    return args


def _timm_fields(model: Classifier) -> dict[str, Any]:
    """What timm's own loader wants to find in config.json of a classifier."""
    cfg = model.pretrained_cfg.input
    return {
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "pretrained_cfg": {
            "input_size": [3, *cfg.size],
            "interpolation": cfg.interpolation,
            "crop_pct": cfg.crop_pct,
            "mean": list(cfg.mean),
            "std": list(cfg.std),
            "num_classes": model.num_classes,
        },
    }


def read_config(path: Path) -> SavedConfig:
    """Read config.json of a saved model.

    Raises:
        CheckpointError: not JSON, or not a posezoo configuration.
    """
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError, PoseZooError) as error:
        raise CheckpointError(f"{path} is not a posezoo configuration: {error}") from error


def _parse(config: Any) -> SavedConfig:
    if not isinstance(config, dict) or not {"architecture", "posezoo"} <= set(config):
        raise ValueError("the keys 'architecture' and 'posezoo' are needed")
    known = _KEYS | _TIMM_KEYS
    if unknown := sorted(set(config) - known):
        raise ValueError(f"unknown key {unknown[0]!r}; valid: {', '.join(sorted(known))}")
    architecture, model_args = config["architecture"], config.get("model_args", {})
    if not isinstance(architecture, str):
        raise ValueError(f"'architecture' is {architecture!r}, expected a name")
    if not isinstance(model_args, dict):
        raise ValueError(f"'model_args' is {model_args!r}, expected an object")
    cfg = PretrainedCfg.from_dict(config["posezoo"])
    if cfg.architecture != architecture:
        raise ValueError("'architecture' and 'posezoo.architecture' disagree")
    check_arguments(architecture, {**cfg.model_args, **model_args})
    return SavedConfig(cfg=cfg, model_args=model_args)
