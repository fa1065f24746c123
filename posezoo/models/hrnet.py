"""HRNet: Deep High-Resolution Representation Learning (CVPR 2019, arXiv 1902.09212), cut.

The trunks of TokenPose, TMPose and our small model: the stem alone, or everything up to stage 3, of
which only the finest map is used. The layers are those of timm's HighResolutionNet under timm's
names; only the forward is written here, because in evaluation every BatchNorm folds into its
convolution. Of the forward hooks on timm's layers only those on convolutions run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packing import PackedConv2d
from .layers import FoldedNorm, add_apart, fold_norms

__all__ = ["HRNET_S", "HRNET_XS", "STEM_PARTS", "HRNetStem", "HRNetTrunk"]

STEM_PARTS = ("conv1", "bn1", "conv2", "bn2", "layer1")
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)

Affine = Mapping[nn.Module, tuple[Tensor, Tensor]]
"""Scale and shift (C,) of norms that are in evaluation, y = x * scale + shift."""


def affine_of_norms(module: nn.Module) -> Affine:
    """Return what the BatchNorms inside do in evaluation.

    All at once: a handful of channels each, they would take as long as convolutions one by one.
    """
    norms: list[Any] = [m for m in module.modules() if isinstance(m, NORMS) and not m.training]
    if not norms:
        return {}
    weight = torch.cat([norm.weight for norm in norms])
    bias = torch.cat([norm.bias for norm in norms])
    mean = torch.cat([norm.running_mean for norm in norms])
    variance = torch.cat([norm.running_var + norm.eps for norm in norms])
    scale = weight * torch.rsqrt(variance)
    shift = bias - mean * scale
    widths = [norm.num_features for norm in norms]
    return dict(zip(norms, zip(scale.split(widths), shift.split(widths))))


def conv_norm(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module,
    affine: Affine,
    *,
    add: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Apply `norm(conv(x))`, then add a map, then ReLU.

    In evaluation the norm folds into the weights of `conv`, unless that has hooks; packed ones do
    all in one pass.
    """
    if isinstance(conv, PackedConv2d) and isinstance(norm, FoldedNorm):
        return conv(x, add, relu)
    if norm not in affine or conv._forward_pre_hooks or conv._forward_hooks:
        y = norm(conv(x))
    else:
        scale, shift = affine[norm]
        weight = conv.weight * scale.view(-1, 1, 1, 1)
        y = F.conv2d(x, weight, shift, conv.stride, conv.padding)
    if add is not None:
        y += add
    return F.relu(y, inplace=True) if relu else y


def _leaves(layers: nn.Module) -> Iterator[nn.Module]:
    """Yield what is in nested Sequentials, in order; what layers are made of stays inside."""
    if isinstance(layers, nn.Sequential):
        for layer in layers:
            yield from _leaves(layer)
    else:
        yield layers


def run_layers(x: Tensor, layers: nn.Module, affine: Affine) -> Tensor:
    """Run nested Sequentials, every BatchNorm after a convolution, every ReLU after a BatchNorm."""
    leaves = list(_leaves(layers))
    for layer, after in zip(leaves, [*leaves[1:], None]):
        if isinstance(layer, nn.Conv2d):
            conv = layer
        elif isinstance(layer, (*NORMS, FoldedNorm)):
            x = conv_norm(x, conv, layer, affine, relu=isinstance(after, nn.ReLU))
        elif not isinstance(layer, nn.ReLU):
            x = layer(x)
    return x


def run_basic(x: Tensor, block: Any, affine: Affine) -> Tensor:
    """Run timm's BasicBlock."""
    y = conv_norm(x, block.conv1, block.bn1, affine, relu=True)
    shortcut = run_shortcut(x, block, affine)
    return conv_norm(y, block.conv2, block.bn2, affine, add=shortcut, relu=True)


def run_bottleneck(x: Tensor, block: Any, affine: Affine) -> Tensor:
    """Run timm's Bottleneck."""
    y = conv_norm(x, block.conv1, block.bn1, affine, relu=True)
    y = conv_norm(y, block.conv2, block.bn2, affine, relu=True)
    shortcut = run_shortcut(x, block, affine)
    return conv_norm(y, block.conv3, block.bn3, affine, add=shortcut, relu=True)


def run_shortcut(x: Tensor, block: Any, affine: Affine) -> Tensor:
    """Return what a residual block adds to what its convolutions make of its input."""
    return x if block.downsample is None else run_layers(x, block.downsample, affine)


def run_module(branches: list[Tensor], module: Any, affine: Affine) -> list[Tensor]:
    """Run a module of HRNet: residual blocks per branch, then every output sums all branches."""
    maps = []
    for x, blocks in zip(branches, module.branches):
        for block in blocks:
            x = run_basic(x, block, affine)
        maps.append(x)
    fused = []
    for paths in module.fuse_layers:
        y = run_layers(maps[0], paths[0], affine)
        for x, path in zip(maps[1:], list(paths)[1:]):
            y = add_apart(y, run_layers(x, path, affine))
        fused.append(F.relu(y, inplace=True))
    return fused


def _smallest(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a stage that costs nothing to build."""
    ones = (1,) * stage["num_branches"]
    return {**stage, "num_modules": 1, "num_blocks": ones, "num_channels": ones}


def _stage(channels: tuple[int, ...], blocks: int, kind: str) -> dict[str, Any]:
    return {
        "num_modules": 1,
        "num_branches": len(channels),
        "block_type": kind,
        "num_blocks": (blocks,) * len(channels),
        "num_channels": channels,
        "fuse_method": "SUM",
    }


# a narrow trunk for small models, in the form of timm's configurations
HRNET_XS: dict[str, Any] = {
    "stem_width": 32,
    "stage1": _stage((32,), 1, "BOTTLENECK"),
    "stage2": _stage((24, 48), 2, "BASIC"),
    "stage3": _stage((24, 48, 96), 2, "BASIC"),
    "stage4": _stage((24, 48, 96, 192), 1, "BASIC"),
}
# the same with three modules in the last stage that is used, 1.8 M parameters
HRNET_S: dict[str, Any] = {**HRNET_XS, "stage3": {**HRNET_XS["stage3"], "num_modules": 3}}


def start_as_identity(modules: Any) -> None:
    """Let what modules of HRNet add to their inputs start at nothing, so that they can be put
    behind trained ones: the last norms of blocks and of paths between branches begin at 0."""
    for module in modules:
        for blocks in module.branches:
            for block in blocks:
                nn.init.zeros_(block.bn2.weight)
        _close_paths(module)


def _close_paths(module: Any) -> None:
    for paths in module.fuse_layers:
        for path in paths:
            norms = [layer for layer in path.modules() if isinstance(layer, nn.BatchNorm2d)]
            for norm in norms[-1:]:
                nn.init.zeros_(norm.weight)


class HRNetStem(nn.Module):
    """Beginning of HRNet: (B, C, H, W) -> (B, 256, H / 4, W / 4).

    Args:
        variant: timm's name for the widths and depths, "hrnet_w32" or "hrnet_w48", or a
            configuration of timm's form.
    """

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    bn1: nn.Module
    bn2: nn.Module
    layer1: Any  # timm's Bottlenecks

    graph_is_fused = True
    parts: tuple[str, ...] = STEM_PARTS
    unused: tuple[str, ...] = ("stage2", "stage3", "stage4")

    def __init__(self, variant: str | Mapping[str, Any], in_chans: int) -> None:
        super().__init__()
        from timm.models.hrnet import HighResolutionNet, cfg_cls

        cfg = cfg_cls[variant] if isinstance(variant, str) else variant
        net = HighResolutionNet(
            cfg, in_chans, head="", **{s: _smallest(cfg[s]) for s in self.unused}
        )
        for name in self.parts:
            self.add_module(name, getattr(net, name))
            for module in self.get_submodule(name).modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.001)
        self.width = 256
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Store weights like the maps, channels last, which saves a copy per forward."""
        self.to(memory_format=torch.channels_last)

    def fold(self) -> None:
        """Fold the norms once instead of at each forward."""
        fold_norms(self)

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x, affine_of_norms(self))

    def _run(self, x: Tensor, affine: Affine) -> Tensor:
        x = x.to(self.conv1.weight.dtype, memory_format=torch.channels_last)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            x = conv_norm(x, conv, norm, affine, relu=True)
        for block in self.layer1:  # x is (B, 64, H / 4, W / 4)
            x = run_bottleneck(x, block, affine)  # (B, 256, H / 4, W / 4)
        return x


class HRNetTrunk(HRNetStem):
    """HRNet up to stage 3: (B, C, H, W) -> finest map (B, width, H / 4, W / 4)."""

    transition1: Any
    stage2: Any  # timm's modules of parallel branches
    transition2: Any
    stage3: Any

    parts = (*STEM_PARTS, "transition1", "stage2", "transition2", "stage3")
    unused = ("stage4",)

    def __init__(self, variant: str | Mapping[str, Any], in_chans: int) -> None:
        super().__init__(variant, in_chans)
        last = self.stage3[-1]
        last.fuse_layers = last.fuse_layers[:1]  # only the finest map is used
        self.width = last.branches[0][-1].conv2.out_channels

    def _run(self, x: Tensor, affine: Affine) -> Tensor:
        x = super()._run(x, affine)
        maps = [run_layers(x, path, affine) for path in self.transition1]  # strides 4, 8
        for module in self.stage2:
            maps = run_module(maps, module, affine)
        maps.append(run_layers(maps[-1], self.transition2[-1], affine))  # strides 4, 8, 16
        for module in self.stage3:
            maps = run_module(maps, module, affine)
        return maps[0]
