"""Names: `architecture[.tag]` to builder and configuration.

A model file registers each builder with the configurations of its weights:

    @register_model(_build_pose, coco=_cfg(...), coco_official=_cfg(...))
    def uniformer_s_256x192(**model_args): ...

The first argument is the function whose keyword-only parameters are the model arguments that
the builder takes; the first tag is the default. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UnknownModelError
from .config import PretrainedCfg, Task

__all__ = [
    "build_model",
    "get_pretrained_cfg",
    "is_model",
    "list_models",
    "model_arguments",
    "register_model",
    "split_name",
]

NAME_PATTERN = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*(\.[a-z0-9]+(_[a-z0-9]+)*)?")

_BUILDERS: dict[str, Callable[..., Any]] = {}
_OPTIONS: dict[str, Callable[..., Any]] = {}
_CFGS: dict[str, dict[str, PretrainedCfg]] = {}


def register_model(
    options: Callable[..., Any], /, **cfgs: PretrainedCfg
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated builder under its own name.

    Raises:
        ValueError: the name is taken, breaks the naming rule, or has no configuration.
    """

    def register(builder: Callable[..., Any]) -> Callable[..., Any]:
        name = builder.__name__
        for full in (name, *(f"{name}.{tag}" for tag in cfgs)):
            if not NAME_PATTERN.fullmatch(full):
                raise ValueError(f"model name {full!r} does not match {NAME_PATTERN.pattern}")
        if name in _BUILDERS:
            raise ValueError(f"model {name!r} is registered twice")
        if not cfgs:
            raise ValueError(f"model {name!r} needs at least one configuration")
        _BUILDERS[name] = builder
        _OPTIONS[name] = options
        _CFGS[name] = {
            tag: dataclasses.replace(cfg, architecture=name, tag=tag) for tag, cfg in cfgs.items()
        }
        return builder

    return register


def _load() -> None:
    """Import the model files; they register themselves."""
    from .. import models  # noqa: F401


def split_name(name: str) -> tuple[str, str]:
    """Return (architecture, tag) of a registered name; no tag means the default one.

    Raises:
        UnknownModelError: the architecture or the tag does not exist; close names are listed.
    """
    _load()
    architecture, dot, tag = name.partition(".")
    if architecture not in _CFGS:
        close = difflib.get_close_matches(architecture, _CFGS, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "see posezoo.list_models()"
        raise UnknownModelError(f"no model named {name!r}; {hint}")
    tags = _CFGS[architecture]
    if not dot:
        return architecture, next(iter(tags))
    if tag not in tags:
        raise UnknownModelError(
            f"no tag {tag!r} for {architecture!r}; available: {', '.join(tags)}"
        )
    return architecture, tag


def get_pretrained_cfg(name: str) -> PretrainedCfg:
    """Return the configuration of `architecture[.tag]`.

    Raises:
        UnknownModelError: a KeyError that lists close names or the available tags.
    """
    architecture, tag = split_name(name)
    return _CFGS[architecture][tag]


def is_model(name: str) -> bool:
    """Tell whether `architecture[.tag]` is registered; a tag given must exist too."""
    try:
        split_name(name)
    except UnknownModelError:
        return False
    return True


def list_models(
    filter: str | Sequence[str] = "*",
    *,
    task: Task | None = None,
    pretrained: bool = False,
    tags: bool = False,
) -> list[str]:
    """List registered names in natural order.

    Args:
        filter: one or several shell patterns, matched against the architecture and, where
            `tags` is set, against `architecture.tag`.
        task: only models for this task.
        pretrained: only models with weights that can be had.
        tags: list `architecture.tag` for each set of weights instead of architectures.
    """
    _load()
    patterns = [filter] if isinstance(filter, str) else list(filter)
    found = set()
    for architecture, cfgs in _CFGS.items():
        for tag, cfg in cfgs.items():
            name = f"{architecture}.{tag}"
            matches = any(
                fnmatch.fnmatchcase(architecture, p) or fnmatch.fnmatchcase(name, p)
                for p in patterns
            )
            if matches and task in (None, cfg.task) and (cfg.has_weights or not pretrained):
                found.add(name if tags else architecture)
    return sorted(found, key=_natural)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts]


def model_arguments(architecture: str) -> dict[str, Any]:
    """Return the model arguments that `architecture` takes, with their defaults."""
    parameters = inspect.signature(_OPTIONS[split_name(architecture)[0]]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_model(name: str, **model_args: Any) -> Any:
    """Build the architecture with random weights and attach its configuration.

    Raises:
        UnknownModelError: no such name.
        TypeError: an argument the model does not take; the valid ones are listed.
    """
    architecture, tag = split_name(name)
    valid = model_arguments(architecture)
    unknown = sorted(set(model_args) - set(valid))
    if unknown:
        close = difflib.get_close_matches(unknown[0], valid, n=1)
        raise TypeError(
            f"{architecture} takes no argument {unknown[0]!r}"
            + (f" (did you mean {close[0]!r}?)" if close else "")
            + f"; valid: {', '.join(valid)}"
        )
    cfg = _CFGS[architecture][tag]
    model = _BUILDERS[architecture](**{**cfg.model_args, **model_args})
    model.pretrained_cfg = cfg
    model.model_args = dict(model_args)
    return model
