"""What there is: names to configurations, names to models with random weights."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import models  # noqa: F401  the families register themselves
from ..errors import UnknownModelError
from ..weights.trust import is_automatic
from .config import PretrainedCfg, Task
from .registry import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from .model import ZooModel

__all__ = [
    "DEFAULT_MODEL",
    "OFFLINE_MODEL",
    "build_model",
    "check_arguments",
    "find",
    "get_pretrained_cfg",
    "is_model",
    "list_models",
    "matching",
    "model_arguments",
]


DEFAULT_MODEL = "vitpose_b_simple_256x192"
"""Used where no model is named: COCO AP 75.5 (reported), 85.9 M parameters, 17.5 GMACs, 344 MB."""

OFFLINE_MODEL = "hrnet_s_192x144.bodies"
"""The model in the package that is for photographs: what to take without a network."""


def find(name: str) -> tuple[Architecture, PretrainedCfg]:
    """Return the architecture and the set of weights of `architecture[.tag]`.

    Raises:
        UnknownModelError: the architecture or the tag does not exist; close names are listed.
    """
    if not isinstance(name, str):
        raise UnknownModelError(
            f"the name of a model is text, got {name!r}; for a folder write "
            "'local-dir:<folder>', for a weights file an architecture and checkpoint="
        )
    first, dot, tag = name.partition(".")
    if first not in ARCHITECTURES:
        raise UnknownModelError(f"no model named {name!r}; {_suggestion(first)}")
    architecture = ARCHITECTURES[first]
    cfgs = architecture.cfgs
    if not dot:
        return architecture, next(iter(cfgs.values()))
    if tag not in cfgs:
        raise UnknownModelError(f"no tag {tag!r} for {first!r}; available: {', '.join(cfgs)}")
    return architecture, cfgs[tag]


def _suggestion(name: str) -> str:
    begin = [n for n in list_models() if name and n.startswith(name)]
    close = begin[:4] or difflib.get_close_matches(name, ARCHITECTURES, n=4, cutoff=0.5)
    return (
        f"did you mean {', '.join(close)}?"
        if close
        else "see `posezoo list` or posezoo.list_models()"
    )


def get_pretrained_cfg(name: str) -> PretrainedCfg:
    """Return the configuration of `architecture[.tag]`; without a tag, of its default weights.

    Raises:
        UnknownModelError: a KeyError that lists close names or the available tags.
    """
    return find(name)[1]


def is_model(name: str) -> bool:
    """Tell whether `architecture[.tag]` is registered; a tag given must exist too."""
    try:
        find(name)
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
        filter: one or several shell patterns, matched against the architecture and against
            `architecture.tag`.
        task: only models for this task.
        pretrained: only models whose weights come without hands: in the package, or fetched.
        tags: list `architecture.tag` for each set of weights instead of architectures.
    """
    patterns = [filter] if isinstance(filter, str) else list(filter)
    found = set()
    for architecture in ARCHITECTURES.values():
        for cfg in architecture.cfgs.values():
            names = (cfg.architecture, cfg.name)
            matches = any(fnmatch.fnmatchcase(name, p) for name in names for p in patterns)
            if matches and task in (None, cfg.task) and (not pretrained or is_automatic(cfg)):
                found.add(names[tags])
    return sorted(found, key=_natural)


def matching(patterns: Sequence[str]) -> list[str]:
    """List every `architecture.tag` that one of the patterns matches, in natural order.

    Raises:
        UnknownModelError: a pattern matches nothing; close names are listed.
    """
    for pattern in patterns:
        if not list_models(pattern, tags=True):
            raise UnknownModelError(
                f"no model matches {pattern!r}; {_suggestion(pattern.partition('.')[0].strip('*'))}"
            )
    return list_models(patterns, tags=True)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which 6 comes before 24."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts]


def model_arguments(name: str) -> dict[str, Any]:
    """Return the arguments that `architecture[.tag]` takes, with the values of these weights."""
    architecture, cfg = find(name)
    return {key: arg.default for key, arg in architecture.args.items()} | dict(cfg.model_args)


def check_arguments(name: str, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the types that `architecture[.tag]` takes.

    Raises:
        UnknownModelError: no such name.
        TypeError: an argument that the model does not take; the valid ones are listed.
        InputError: a value of the wrong type or out of range.
    """
    architecture, _ = find(name)
    known = architecture.args
    for key in model_args:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise TypeError(
                f"{architecture.name} takes no argument {key!r}{hint}; valid: {', '.join(known)}"
            )
    return {key: known[key].check(key, value) for key, value in model_args.items()}


def build_model(name: str, **model_args: Any) -> ZooModel:
    """Build `architecture[.tag]` with random weights and attach its configuration.

    Raises:
        UnknownModelError, TypeError, InputError: as `check_arguments`.
    """
    architecture, cfg = find(name)
    given = check_arguments(name, model_args)
    module, _, function = architecture.build.partition(":")
    builder = getattr(importlib.import_module(module), function)
    model: ZooModel = builder(**architecture.fixed, **(model_arguments(name) | given))
    model.pretrained_cfg = cfg
    model.model_args = given
    return model
