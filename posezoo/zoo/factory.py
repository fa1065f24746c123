"""`create_model`: resolve the name, locate the weights, load them into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import UnknownModelError
from ..weights import hub
from ..weights.cache import CONFIG_FILE, WEIGHTS_FILE, CacheDir
from ..weights.load import new_model
from ..weights.locate import find_weights
from ..weights.recognise import fits
from ..weights.saved import read_config
from ..weights.tensors import WeightsFile, read_weights
from .catalog import build_model, check_arguments, find, get_pretrained_cfg, model_arguments
from .config import PretrainedCfg
from .defaults import usual_torch
from .model import ZooModel

__all__ = ["create_model", "resolve_cfg"]

_FILES = CONFIG_FILE, WEIGHTS_FILE
_HEAD_ARGS = {"num_keypoints", "num_classes"}


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **model_args: Any,
) -> ZooModel:
    """Build a model in evaluation mode, on the CPU, in float32, whatever torch's defaults are.

    Args:
        name: `architecture[.tag]`; or `hf-hub:org/repo[@revision]` or `local-dir:path`, which
            name weights and therefore always load them.
        pretrained: fetch, verify and load the weights of the tag (the first tag if none).
        checkpoint: a weights file to load instead, ours or the authors'; keys are converted.
            In both cases, with another `num_keypoints` or `num_classes` than the weights have,
            they are loaded first and the last layer is then replaced by a fresh one.
        cache_dir: where downloads are kept; default: `$POSEZOO_CACHE` or `~/.cache/posezoo`.
        **model_args: arguments of the architecture (`posezoo info NAME` lists them).

    Returns:
        The model; `model.pretrained_cfg` says how to feed and decode it.

    Raises:
        UnknownModelError: (a KeyError) no such name or tag; close names are listed.
        TypeError: an argument the model does not take.
        InputError: (a ValueError) an argument out of range.
        ValueError: both `pretrained` and `checkpoint`.
        CheckpointError: the weights cannot be read or do not fit.
        WeightsUnavailableError: there are no weights, or they cannot be reached.
    """
    if pretrained and checkpoint is not None:
        raise ValueError("give either pretrained=True or checkpoint=, not both")
    plan = _resolve(name, cache_dir)
    if checkpoint is not None:
        if plan.weights is not None:
            raise ValueError(f"{name!r} names weights already; leave checkpoint= out")
        return _filled(plan, read_weights(checkpoint), model_args)
    check_arguments(plan.cfg.architecture, model_args)
    if plan.weights is not None:
        return _filled(plan, read_weights(plan.weights, sha256=plan.sha256), model_args)
    if not pretrained:
        return _random(plan.cfg, model_args)
    found = find_weights(plan.cfg, cache_dir)
    return _filled(plan, read_weights(found.path, sha256=found.sha256), model_args)


def resolve_cfg(name: str, *, cache_dir: str | Path | None = None) -> PretrainedCfg:
    """Return the configuration of whatever `create_model` takes as a name, without its weights.

    For `local-dir:` and `hf-hub:` names, `model_args` are those with which the model was saved.

    Raises:
        UnknownModelError, CheckpointError, WeightsUnavailableError: as `create_model`.
    """
    plan = _resolve(name, cache_dir, with_weights=False)
    return replace(plan.cfg, model_args=plan.model_args)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a name means: a configuration, model arguments, and maybe a weights file with the hash
    that the Hub states."""

    cfg: PretrainedCfg
    model_args: Mapping[str, Any]
    weights: Path | None = None
    sha256: str | None = None


def _resolve(name: str, cache_dir: CacheDir, *, with_weights: bool = True) -> _Plan:
    if not isinstance(name, str):
        find(name)
    if name.startswith("hf-hub:"):
        repo_id, _, revision = name.removeprefix("hf-hub:").partition("@")
        config, weights = (hub.HubFile(repo_id, n, revision or None) for n in _FILES)
        plan = _plan_of(hub.fetch(config, cache_dir=cache_dir).path)
        if not with_weights:
            return plan
        found = hub.fetch(weights, cache_dir=cache_dir)
        return replace(plan, weights=found.path, sha256=found.sha256)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        return replace(_plan_of(folder / CONFIG_FILE), weights=folder / WEIGHTS_FILE)
    if "/" in name or "\\" in name:
        raise UnknownModelError(
            f"{name!r} is not a registered name; for a Hub repository write 'hf-hub:{name}', "
            f"for a folder 'local-dir:{name}'"
        )
    cfg = get_pretrained_cfg(name)
    return _Plan(cfg=cfg, model_args=cfg.model_args)


def _plan_of(config_path: Path) -> _Plan:
    saved = read_config(config_path)
    return _Plan(cfg=saved.cfg, model_args={**saved.cfg.model_args, **saved.model_args})


@usual_torch()
def _random(cfg: PretrainedCfg, model_args: Mapping[str, Any]) -> ZooModel:
    """Build a model with random weights."""
    model = build_model(cfg.architecture, **{**cfg.model_args, **model_args})
    model.pretrained_cfg = cfg
    return model.eval()


@usual_torch()
def _filled(plan: _Plan, file: WeightsFile, given: Mapping[str, Any]) -> ZooModel:
    """Build a model of a weights file, with a fresh last layer where the file's has another size
    than the one asked for."""
    args = {**plan.model_args, **given}
    usual = model_arguments(plan.cfg.architecture) | dict(plan.model_args)
    for key in _HEAD_ARGS & given.keys() & usual.keys():
        size: int = find(plan.cfg.architecture)[0].args[key].check(key, given[key])
        if size == usual[key] or _takes(plan.cfg, args, file):
            break
        model, _ = new_model(plan.cfg, file, {**args, key: usual[key]})
        model.reset_head(size)
        return model
    return new_model(plan.cfg, file, args)[0]


def _takes(cfg: PretrainedCfg, args: Mapping[str, Any], file: WeightsFile) -> bool:
    """Whether the file fits a model with these arguments."""
    with torch.device("meta"):
        return fits(build_model(cfg.architecture, **{**cfg.model_args, **args}), file.tensors)
