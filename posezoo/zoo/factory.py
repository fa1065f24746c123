"""`create_model`: resolve the name, locate the weights, load them into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UnknownModelError
from ..weights import hub
from ..weights.cache import CONFIG_FILE, WEIGHTS_FILE, CacheDir
from ..weights.load import load_new
from ..weights.locate import find_weights
from ..weights.saved import read_config
from .catalog import build_model, find, get_pretrained_cfg, model_arguments
from .config import PretrainedCfg
from .model import ZooModel

__all__ = ["create_model"]

_HEAD_ARGS = ("num_keypoints", "num_classes")


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **model_args: Any,
) -> ZooModel:
    """Build a model in evaluation mode, on the CPU, in float32.

    Args:
        name: `architecture[.tag]`; or `hf-hub:org/repo[@revision]` or `local-dir:path`, which
            name weights and therefore always load them.
        pretrained: fetch, verify and load the weights of the tag (the first tag if none).
            With another `num_keypoints` or `num_classes` the weights are loaded first and the
            last layer is then replaced by a fresh one.
        checkpoint: a weights file to load instead, ours or the authors'; keys are converted.
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
        return load_new(plan.cfg, Path(checkpoint), model_args)[0]
    if plan.weights is None and not pretrained:
        return _random(plan.cfg, model_args)
    size, args = _split_head(plan, model_args)
    weights = plan.weights or find_weights(plan.cfg, cache_dir).path
    model, _ = load_new(plan.cfg, weights, args)
    if size is not None:
        model.reset_head(size)
    return model


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a name means: a configuration, model arguments, and maybe a weights file."""

    cfg: PretrainedCfg
    model_args: Mapping[str, Any]
    weights: Path | None = None


def _resolve(name: str, cache_dir: CacheDir) -> _Plan:
    if name.startswith("hf-hub:"):
        repo_id, _, revision = name.removeprefix("hf-hub:").partition("@")
        config, weights = (
            hub.fetch(hub.HubFile(repo_id, filename, revision or None), cache_dir=cache_dir).path
            for filename in (CONFIG_FILE, WEIGHTS_FILE)
        )
        return _plan_of(config, weights)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        return _plan_of(folder / CONFIG_FILE, folder / WEIGHTS_FILE)
    if "/" in name or "\\" in name:
        raise UnknownModelError(
            f"{name!r} is not a registered name; for a Hub repository write 'hf-hub:{name}', "
            f"for a folder 'local-dir:{name}'"
        )
    cfg = get_pretrained_cfg(name)
    return _Plan(cfg=cfg, model_args=cfg.model_args)


def _plan_of(config_path: Path, weights: Path) -> _Plan:
    saved = read_config(config_path)
    return _Plan(
        cfg=saved.cfg, model_args={**saved.cfg.model_args, **saved.model_args}, weights=weights
    )


def _random(cfg: PretrainedCfg, model_args: Mapping[str, Any]) -> ZooModel:
    """Build a model with random weights."""
    model = build_model(cfg.architecture, **{**cfg.model_args, **model_args})
    model.pretrained_cfg = cfg
    return model.eval()


def _split_head(plan: _Plan, given: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """Return the size of the last layer, if another than that of the stored weights is asked
    for, and the arguments with which these weights fit."""
    args = {**plan.model_args, **given}
    usual = model_arguments(plan.cfg.architecture) | dict(plan.model_args)
    for key in _HEAD_ARGS:
        if key in given and key in usual and given[key] != usual[key]:
            args[key] = usual[key]
            size: int = find(plan.cfg.architecture)[0].args[key].check(key, given[key])
            return size, args
    return None, args
