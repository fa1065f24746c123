"""Layers whose weights are stored as oneDNN multiplies by them, on x86 processors.

torch's own linear layer hands float32 to MKL, which packs the weights at every call; oneDNN with
weights packed once is 10 to 30 % faster here, in bfloat16 5 to 20 %. Convolutions gain 5 to 15 %,
most with few images and many channels, and give the same bits. These are the operators that
torch.compile uses.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import onednn
from .device import has_bfloat16_tiles, has_fast_bfloat16
from .onednn import is_fused

__all__ = [
    "DoublingConv",
    "PackedConv2d",
    "PackedLinear",
    "can_pack",
    "pack_layers",
    "packed_linear",
]

_ROWS = 256  # what the layout is best for; any number works


@functools.cache
def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packed layers of this type are faster on the device."""
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    fast = dtype == torch.float32 or (dtype == torch.bfloat16 and has_fast_bfloat16(device))
    return fast and torch._C._has_mkldnn


def packed_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return the linear layer (..., C) -> (..., D) with these weights as a function."""
    packed = _pack_linear(weight)
    return lambda x: onednn.linear(x, packed, bias, "none")


def _pack_linear(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return packed


class PackedLinear(nn.Linear):
    """A linear layer for inference; its weight is that of `layer`, for those who look at it.

    Attributes:
        gelu: whether exact GELU follows, in the same pass: the same bits in float32.
        packed: the weight as oneDNN stores it, from the first forward on.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, "meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.gelu: bool = getattr(layer, "gelu", False)
        self.packed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}  # oneDNN's tensors cannot be copied or pickled

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.packed = None  # on another device or in another type
        apply: Any = super()._apply
        return apply(*args, **kwargs)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """(..., C) -> (..., D), in the type of the weight, as under autocast.

        Args:
            add: (..., D), added to the result, in the same pass where it has the same type.
        """
        y: Tensor
        x = x.to(self.weight.dtype)
        if self.packed is None and can_pack(x.device, x.dtype):
            self.packed = _pack_linear(self.weight)
        if self.packed is None or not x.numel() or is_fused():
            y = F.linear(x, self.weight, self.bias)
            y = F.gelu(y) if self.gelu else y
        elif add is not None and add.dtype == x.dtype and not self.gelu:
            return onednn.linear_add(x, add, self.packed, self.bias)
        else:
            y = onednn.linear(x, self.packed, self.bias, "gelu" if self.gelu else "none")
        return y if add is None else add + y


class PackedConv2d(nn.Conv2d):
    """A convolution for inference; its weight is that of `layer`, for those who look at it.

    The best layout depends on the size of the maps, not on their number: the weight is packed for
    the first size that comes, and maps of others are convolved as usual.

    Attributes:
        packed: the weight as oneDNN stores it for maps of `size`, from the first forward on.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        sizes: dict[str, Any] = {name: getattr(layer, name) for name in names}
        has_bias = layer.bias is not None
        super().__init__(
            layer.in_channels, layer.out_channels, **sizes, bias=has_bias, device="meta"
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.packed: Tensor | None = None
        self.size: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.packed = None
        apply: Any = super()._apply
        return apply(*args, **kwargs)

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w), channels last, in the type of the weight.

        Args:
            add: (B, D, h, w), added to the result.
            relu: whether ReLU follows, in the same pass.
        """
        y: Tensor
        if is_fused():
            y = self._conv_forward(x, self.weight, self.bias)
            y = y if add is None else y + add
            return F.relu(y) if relu else y
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        if self._fails(x):
            bias = None if self.bias is None else self.bias.float()
            with torch.autocast("cpu", enabled=False):
                y = self._conv_forward(x.float(), self.weight.float(), bias)
            return self._after(y.to(x.dtype), add, relu)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        size = tuple(map(int, x.shape[2:]))
        if self.packed is None and x.numel() and can_pack(x.device, x.dtype):
            weight = self.weight.detach().to_mkldnn()
            self.packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *geometry, x.shape)
            self.size = size
        if self.packed is None or self.size != size or not x.numel():
            return self._after(self._conv_forward(x, self.weight, self.bias), add, relu)
        weights = (self.packed, self.bias, *geometry)
        if add is None:
            return onednn.conv(x, *weights, "relu" if relu else "none")
        return onednn.conv_add(x, add.to(x.dtype), *weights, relu)

    def _after(self, y: Tensor, add: Tensor | None, relu: bool) -> Tensor:
        y = y if add is None else y.add_(add)
        return y.relu_() if relu else y

    def _fails(self, x: Tensor) -> bool:
        """Whether oneDNN gives wrong numbers: in bfloat16 by AMX, for some strided convolutions.

        They are those to maps one column wide, and those of large patches of 4 to 8 channels.
        """
        if self.stride[1] == 1 or x.dtype != torch.bfloat16 or not has_bfloat16_tiles():
            return False
        size, few = self.kernel_size[1], 3 < self.in_channels < 32
        width = x.shape[3] + 2 * int(self.padding[1])
        return width < size + self.stride[1] or (few and size >= 8)


class DoublingConv(nn.Module):
    """A transposed convolution that doubles a map, kernel 4 and padding 1, for inference.

    Each of the four pixels that a cell becomes sees 2x2 cells, so that one convolution gives all
    of them. In bfloat16 that takes half the time of oneDNN's transposed convolution.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        # rows (and columns) of the kernel for the cells before and after a pixel, then pixels
        taps = torch.tensor([[3, 1], [2, 0]], device=layer.weight.device)
        # (C, D, 2, 2, 2, 2): pixel and cell in y, then in x
        weight = layer.weight.detach()[:, :, taps][..., taps]
        weight = weight.permute(2, 4, 1, 0, 3, 5).flatten(0, 2)  # (4 D, C, 2, 2)
        conv = nn.Conv2d(layer.in_channels, 4 * layer.out_channels, 2, padding=1, device="meta")
        conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        bias = weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        conv.bias = nn.Parameter(bias.repeat(4), requires_grad=False)
        self.conv = PackedConv2d(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, 2 h, 2 w), channels last."""
        height, width = x.shape[2:]
        pixels: Tensor = self.conv(x).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        # pixels is (B, h + 1, w + 1, 2, 2, D)
        y: Tensor = pixels.new_empty(len(x), height, 2, width, 2, pixels.shape[-1])
        for i in (0, 1):
            for j in (0, 1):
                y[:, :, i, :, j] = pixels[:, i : i + height, j : j + width, i, j]
        return y.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _doubles(layer: nn.ConvTranspose2d) -> bool:
    """Whether a `DoublingConv` can take the place of a layer."""
    return (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1)) and (
        layer.groups,
        layer.dilation,
        layer.output_padding,
    ) == (1, (1, 1), (0, 0))


def pack_layers(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace linear layers and convolutions of this type; others compute in their own."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child._forward_pre_hooks or child._forward_hooks:
                continue
            if isinstance(child, nn.Linear) and type(child) in (nn.Linear, PackedLinear):
                if child.weight.dtype == dtype:
                    setattr(module, name, PackedLinear(child))
            elif isinstance(child, nn.Conv2d) and type(child) in (nn.Conv2d, PackedConv2d):
                pads = child.padding_mode == "zeros" and not isinstance(child.padding, str)
                if child.weight.dtype == dtype and pads:
                    setattr(module, name, PackedConv2d(child))
            elif type(child) is nn.ConvTranspose2d and _doubles(child):
                # in float32 others take as long, or 10 % less as they are
                is_faster = dtype == torch.bfloat16 or child.in_channels > child.out_channels
                if child.weight.dtype == dtype and is_faster:
                    setattr(module, name, DoublingConv(child))
        _join_gelu(module)


def _join_gelu(module: nn.Module) -> None:
    """Let the first layer of an MLP, `fc1`, apply the exact GELU `act` that follows."""
    from timm.layers import GELU

    layer, act = getattr(module, "fc1", None), getattr(module, "act", None)
    is_exact = isinstance(act, GELU) or (isinstance(act, nn.GELU) and act.approximate == "none")
    if isinstance(layer, PackedLinear) and is_exact:
        layer.gelu, module.act = True, nn.Identity()
