"""The operators of oneDNN that torch.compile uses, on weights packed for them.

The functions are also those that a recorded program calls (`posezoo.graphs`): tracing alone cannot
see through their lists of optional numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

__all__ = ["conv", "conv_add", "is_fused", "is_tracing", "linear", "linear_add", "recording"]

_recording: ContextVar[bool] = ContextVar("recording", default=False)


def is_tracing() -> bool:
    """Whether the call is watched by TorchScript."""
    jit: Any = torch.jit
    return bool(jit.is_tracing())


def is_fused() -> bool:
    """Whether the call becomes part of a graph in which oneDNN packs and joins by itself."""
    return is_tracing() and not _recording.get()


@contextmanager
def recording() -> Iterator[None]:
    """Let what is traced inside be a program of these operators."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def _recordable(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function be part of a program when TorchScript watches the call."""
    script = functools.cache(lambda: torch.jit.script(function))

    @functools.wraps(function)
    def run(*args: Any) -> Tensor:
        y: Tensor = (script() if is_tracing() else function)(*args)
        return y

    return run


@_recordable
def linear(x: Tensor, packed: Tensor, bias: Tensor | None, after: str) -> Tensor:
    """(..., C) -> (..., D), then `after`: "none" or "gelu"."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, after, [], "none")
    return y


@_recordable
def linear_add(x: Tensor, add: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """(..., C) -> (..., D) plus `add` of this shape and type."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, add, packed, bias, "add")
    return y


@_recordable
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    stride: list[int],
    dilation: list[int],
    groups: int,
    after: str,
) -> Tensor:
    """(B, C, H, W) -> (B, D, h, w), then `after`: "none", "relu" or "gelu"."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, after, [], "none"
    )
    return y


@_recordable
def conv_add(
    x: Tensor,
    add: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    stride: list[int],
    dilation: list[int],
    groups: int,
    relu: bool,
) -> Tensor:
    """(B, C, H, W) -> (B, D, h, w) plus `add` of this shape and type, then ReLU if it is set."""
    after = "relu" if relu else None
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, add, weight, bias, padding, stride, dilation, groups, "add", 1.0, after, [], None
    )
    return y
