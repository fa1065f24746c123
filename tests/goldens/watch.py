"""Keep what modules compute inside a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Take = Callable[[Any, Any], Tensor]
"""Inputs and output of a module -> what to keep."""


@contextmanager
def watching(points: Mapping[str, tuple[nn.Module, Take]]) -> Iterator[dict[str, Tensor]]:
    """Keep something of the first call of each module, by name."""
    found: dict[str, Tensor] = {}

    def hook(name: str, take: Take) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if name not in found:
                found[name] = take(args, output)

        return keep

    handles = [
        module.register_forward_hook(hook(name, take)) for name, (module, take) in points.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
