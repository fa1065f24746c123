"""`create_model`: resolve a name, build without memory, load, fill.

Each step is one function. When weights are wanted the model is built on the meta device, so
nothing is initialised only to be overwritten, and there are never random weights by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UnknownModelError, WeightsUnavailableError
from ..weights import convert as _convert
from ..weights import hub as _hub
from . import catalog as _registry
from .config import PretrainedCfg

__all__ = ["create_model"]

_HEAD_ARGS = ("num_keypoints", "num_classes")


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a name stands for: a configuration, model arguments, and maybe weights."""

    cfg: PretrainedCfg
    model_args: Mapping[str, Any]
    weights: Path | None = None


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **model_args: Any,
) -> nn.Module:
    """Build a model in evaluation mode, on the CPU, in float32.

    Args:
        name: `architecture[.tag]`; or `hf-hub:org/repo[@revision]` or `local-dir:path`, which
            name weights and therefore always load them.
        pretrained: fetch, verify and load the weights of the tag (the first tag if none).
            With another `num_keypoints` or `num_classes` the weights are loaded first and the
            last layer is then replaced by a fresh one.
        checkpoint: a weights file to load instead, ours or the authors'; keys are converted.
        cache_dir: where downloads are kept; default: the Hub client's cache and
            `~/.cache/posezoo`.
        **model_args: arguments of the architecture (`posezoo info NAME` lists them).

    Returns:
        The model; `model.pretrained_cfg` says how to feed and decode it.

    Raises:
        UnknownModelError: (a KeyError) no such name or tag; close names are listed.
        TypeError: an argument the model does not take.
        ValueError: both `pretrained` and `checkpoint`.
        CheckpointError: the weights cannot be read or do not fit.
        WeightsUnavailableError: there are no weights, or they cannot be reached.
    """
    if pretrained and checkpoint is not None:
        raise ValueError("give either pretrained=True or checkpoint=, not both")
    plan = _resolve(name, cache_dir)
    if checkpoint is not None and plan.weights is not None:
        raise ValueError(f"{name!r} names weights already; leave checkpoint= out")
    weights = Path(checkpoint) if checkpoint is not None else plan.weights
    args = {**plan.model_args, **model_args}
    if weights is None and not pretrained:
        model = _registry.build_model(plan.cfg.architecture, **args)
        model.pretrained_cfg = plan.cfg
        return model.eval()
    head = {} if checkpoint is not None else _take_head(plan, model_args, args)
    model, _ = _convert.load_into_new(
        plan.cfg, weights or find_weights(plan.cfg, cache_dir), **args
    )
    for size in head.values():
        model.reset_head(size)  # type: ignore[operator]
    return model


def _resolve(name: str, cache_dir: str | Path | None) -> _Plan:
    if name.startswith("hf-hub:"):
        repo_id, _, revision = name.removeprefix("hf-hub:").partition("@")
        place = {"revision": revision or None, "cache_dir": cache_dir}
        config = _hub.fetch_from_hub(repo_id, _hub.CONFIG_FILE, **place)  # type: ignore[arg-type]
        weights = _hub.fetch_from_hub(repo_id, _hub.WEIGHTS_FILE, **place)  # type: ignore[arg-type]
        return _plan_of(config, weights)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        return _plan_of(folder / _hub.CONFIG_FILE, folder / _hub.WEIGHTS_FILE)
    if "/" in name or "\\" in name:
        raise UnknownModelError(
            f"{name!r} is not a registered name; for a Hub repository write 'hf-hub:{name}', "
            f"for a folder 'local-dir:{name}'"
        )
    cfg = _registry.get_pretrained_cfg(name)
    return _Plan(cfg=cfg, model_args=cfg.model_args)


def _plan_of(config_path: Path, weights: Path) -> _Plan:
    config = _hub.read_config(config_path)
    return _Plan(
        cfg=config["posezoo"],
        model_args={**config["posezoo"].model_args, **config["model_args"]},
        weights=weights,
    )


def _take_head(plan: _Plan, given: Mapping[str, Any], args: dict[str, Any]) -> dict[str, Any]:
    """Move a head size that differs from the stored weights' out of `args`."""
    valid = _registry.model_arguments(plan.cfg.architecture)
    head = {}
    for key in _HEAD_ARGS:
        if key in given and key in valid:
            stored = plan.model_args.get(key, valid[key])
            args[key] = stored
            if given[key] != stored:
                head[key] = given[key]
    return head


def find_weights(cfg: PretrainedCfg, cache_dir: str | Path | None) -> Path:
    """Return a verified local weights file for the configuration.

    Weights that come with the package are in it. For others, looks for a converted file, then
    on the Hub, then at the places where the authors put theirs, which is converted once and kept.

    Raises:
        WeightsUnavailableError: none of them has it; the message says why, one by one.
        IntegrityError: a place has other bytes than it should.
    """
    if not cfg.has_weights:
        raise WeightsUnavailableError(
            f"there are no weights for {cfg.name}: {cfg.source.unavailable}. Train it with its "
            "recipe, or load a file of your own with checkpoint="
        )
    if cfg.source.packaged:
        return Path(__file__).parents[1] / "assets" / cfg.source.packaged
    if converted := _convert.find_converted(cfg, cache_dir):
        return converted
    failures = []
    try:
        return _hub.fetch_from_hub(
            _hub.hub_id(cfg),
            _hub.WEIGHTS_FILE,
            revision=cfg.source.hf_revision,
            sha256=cfg.source.sha256,
            cache_dir=cache_dir,
        )
    except WeightsUnavailableError as error:
        failures.append(str(error))
    if not _hub.is_offline():
        try:
            return _convert.fetch_and_convert(cfg, cache_dir)
        except WeightsUnavailableError as error:
            failures.append(str(error))
    raise WeightsUnavailableError(
        f"no weights for {cfg.name} within reach: " + "; ".join(failures) + _by_hand(cfg)
    )


def _by_hand(cfg: PretrainedCfg) -> str:
    """Say how to get the file with a browser."""
    source = cfg.source
    page = source.original_page or next(iter(source.original_urls), None)
    if page is None:
        return ""
    file = source.original_filename or "the file"
    return (
        f". By hand: take {file} from {page} and run "
        f"`posezoo convert {source.original_filename or 'FILE'} --model {cfg.name}`"
    )
