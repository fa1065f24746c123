"""The table of architectures. Families write into it with `register`; see `catalog` for reading.

Nothing here imports torch: a builder is named, and imported when a model is built.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arguments import Argument
from .config import PretrainedCfg

__all__ = ["ARCHITECTURES", "NAME_PATTERN", "Architecture", "register"]

NAME_PATTERN = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*(\.[a-z0-9]+(_[a-z0-9]+)*)?")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A graph of a fixed shape, and the weights that exist for it.

    Attributes:
        name: lower case, underscores, height before width.
        summary: one line about it.
        build: `package.module:function`; the function takes `fixed` and `args` as keywords.
        fixed: what makes this architecture out of its family's network.
        args: what a user may change.
        cfgs: the sets of weights by tag, the default first.
    """

    name: str
    summary: str
    build: str
    fixed: Mapping[str, Any]
    args: Mapping[str, Argument]
    cfgs: Mapping[str, PretrainedCfg]


ARCHITECTURES: dict[str, Architecture] = {}


def register(
    name: str,
    *,
    summary: str,
    build: str,
    fixed: Mapping[str, Any],
    args: Mapping[str, Argument],
    cfgs: Mapping[str, PretrainedCfg],
) -> None:
    """Register an architecture with its sets of weights; see `Architecture`.

    Raises:
        ValueError: the name is taken or breaks the naming rule, or there is no configuration.
    """
    for full in (name, *(f"{name}.{tag}" for tag in cfgs)):
        if not NAME_PATTERN.fullmatch(full):
            raise ValueError(f"model name {full!r} does not match {NAME_PATTERN.pattern}")
    if name in ARCHITECTURES:
        raise ValueError(f"model {name!r} is registered twice")
    if not cfgs:
        raise ValueError(f"model {name!r} needs at least one configuration")
    named = {tag: dataclasses.replace(c, architecture=name, tag=tag) for tag, c in cfgs.items()}
    ARCHITECTURES[name] = Architecture(
        name=name, summary=summary, build=build, fixed=fixed, args=args, cfgs=named
    )
