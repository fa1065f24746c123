"""HRNet: Deep High-Resolution Representation Learning (CVPR 2019, arXiv 1902.09212), cut.

The trunks of TokenPose and TMPose: the stem alone, or everything up to stage 3 of which only the
finest map is used. The layers are those of timm's HighResolutionNet under timm's names; only
the forward is written here, because in evaluation every BatchNorm folds into its convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["STEM_PARTS", "HRNetStem", "HRNetTrunk"]

STEM_PARTS = ("conv1", "bn1", "conv2", "bn2", "layer1")


def run_layers(x: Tensor, layers: nn.Module) -> Tensor:
    """Run nested Sequentials in which every BatchNorm follows a convolution."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            conv = layer
        elif isinstance(layer, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            x = conv_norm(x, conv, layer)
        elif not isinstance(layer, nn.Sequential):
            x = layer(x)
    return x


def run_block(x: Tensor, block: nn.Module) -> Tensor:
    """Run a residual block of timm's, BasicBlock or Bottleneck."""
    y = F.relu(conv_norm(x, block.conv1, block.bn1), inplace=True)
    y = conv_norm(y, block.conv2, block.bn2)
    if hasattr(block, "conv3"):
        y = conv_norm(F.relu(y, inplace=True), block.conv3, block.bn3)
    y += x if block.downsample is None else run_layers(x, block.downsample)
    return F.relu(y, inplace=True)


def run_module(branches: list[Tensor], module: nn.Module) -> list[Tensor]:
    """Run a module of HRNet: residual blocks per branch, then every output sums all branches."""
    maps = []
    for x, blocks in zip(branches, module.branches):
        for block in blocks:
            x = run_block(x, block)
        maps.append(x)
    fused = []
    for paths in module.fuse_layers:
        y = run_layers(maps[0], paths[0])
        for x, path in zip(maps[1:], list(paths)[1:]):
            y = y + run_layers(x, path)
        fused.append(F.relu(y, inplace=True))
    return fused


def _smallest(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a stage that costs nothing to build."""
    ones = (1,) * stage["num_branches"]
    return {**stage, "num_modules": 1, "num_blocks": ones, "num_channels": ones}


class HRNetStem(nn.Module):
    """Beginning of HRNet: (B, C, H, W) -> (B, 256, H / 4, W / 4).

    Args:
        variant: timm's name for the widths and depths, "hrnet_w32" or "hrnet_w48", or a
            configuration of timm's form.
    """

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
        """Store the weights as the maps are, channels last, which saves a copy per forward."""
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(conv_norm(x, self.conv1, self.bn1), inplace=True)  # (B, 64, H / 2, W / 2)
        x = F.relu(conv_norm(x, self.conv2, self.bn2), inplace=True)  # (B, 64, H / 4, W / 4)
        for block in self.layer1:
            x = run_block(x, block)  # (B, 256, H / 4, W / 4)
        return x


class HRNetTrunk(HRNetStem):
    """HRNet up to stage 3: (B, C, H, W) -> finest map (B, width, H / 4, W / 4)."""

    parts = (*STEM_PARTS, "transition1", "stage2", "transition2", "stage3")
    unused = ("stage4",)

    def __init__(self, variant: str | Mapping[str, Any], in_chans: int) -> None:
        super().__init__(variant, in_chans)
        last = self.stage3[-1]
        last.fuse_layers = last.fuse_layers[:1]  # only the finest map is used
        self.width = last.branches[0][-1].conv2.out_channels

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        maps = [run_layers(x, path) for path in self.transition1]  # strides 4, 8
        for module in self.stage2:
            maps = run_module(maps, module)
        maps = [*maps, run_layers(maps[-1], self.transition2[-1])]  # strides 4, 8, 16
        for module in self.stage3:
            maps = run_module(maps, module)
        return maps[0]
