"""Layers whose weights are stored as oneDNN multiplies by them, on x86 processors.

torch's own linear layer hands float32 to MKL, which packs the weights at every call; oneDNN with
weights packed once is 10 to 30 % faster here, in bfloat16 5 to 20 %. Convolutions of small maps
with many channels take up to 45 % less. These are the operators that torch.compile uses.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device import has_fast_bfloat16

__all__ = ["PackedConv2d", "PackedLinear", "can_pack", "packed_linear", "pack_layers"]

_ROWS = 256  # what the layout is best for; any number works
_CHANNELS = 64  # with fewer, packed convolutions take up to three times as long


@functools.cache
def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packed layers of this type are faster on the device."""
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    fast = dtype == torch.float32 or (dtype == torch.bfloat16 and has_fast_bfloat16(device))
    return fast and torch._C._has_mkldnn


def packed_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return the linear layer (..., C) -> (..., D) with these weights as a function."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)

    def run(x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return found

    return run


class PackedLinear(nn.Linear):
    """A linear layer for inference; its weight is that of `layer`, for those who look at it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, "meta")
        self.weight, self.bias = layer.weight, layer.bias
        self._pack()

    def _pack(self) -> None:
        self._run = packed_linear(self.weight, self.bias)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pack()  # oneDNN's tensors can be neither copied nor pickled

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D), in the type of the weight, as under autocast."""
        x = x.to(self.weight.dtype)
        if not x.numel():
            return F.linear(x, self.weight, self.bias)
        return self._run(x)


class PackedConv2d(nn.Conv2d):
    """A convolution for inference; its weight is that of `layer`, for those who look at it."""

    def __init__(self, layer: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self._pack()

    def _pack(self) -> None:
        self._how = (self.padding, self.stride, self.dilation, self.groups)
        self._packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight.detach(), *self._how
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pack()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h', w'), in the type of the weight, as under autocast."""
        x = x.to(self.weight.dtype)
        if not x.numel():
            return super().forward(x)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, *self._how, "none", [], ""
        )
        return found


def pack_layers(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace linear layers and convolutions of this type; others compute in their own."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child._forward_pre_hooks:
                continue  # pruning makes the weights in a hook
            if isinstance(child, nn.Linear) and type(child) in (nn.Linear, PackedLinear):
                if child.weight.dtype == dtype:
                    setattr(module, name, PackedLinear(child))
            elif isinstance(child, nn.Conv2d) and type(child) in (nn.Conv2d, PackedConv2d):
                if child.weight.dtype == dtype and _gains(child):
                    setattr(module, name, PackedConv2d(child))


def _gains(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one that packing makes faster."""
    is_plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    is_wide = min(layer.in_channels, layer.out_channels) >= _CHANNELS and layer.groups == 1
    return is_plain and is_wide
