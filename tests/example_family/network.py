"""Two strided convolutions, residual blocks, a heatmap head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from posezoo.models.heads import HeatmapHead, HeatmapPose
from posezoo.models.layers import check_images, module_list, run_block


class Block(nn.Module):
    """(B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.conv(x))


class ExamplePose(HeatmapPose):
    """(B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self, width: int, depth: int, input_size: tuple[int, int], in_chans: int, num_keypoints: int
    ) -> None:
        super().__init__()
        self.input_size, self.in_chans = input_size, in_chans
        self.num_keypoints = num_keypoints
        self.grad_checkpointing = False
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1)
        )
        self.blocks = module_list(Block(width) for _ in range(depth))
        self.head = HeatmapHead(width, num_keypoints)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, self.in_chans, self.input_size, 4, like=self.head.final_layer.weight)
        x = self.stem(x)  # (B, C, H / 4, W / 4)
        for block in self.blocks:
            x = run_block(block, x, recompute=self.grad_checkpointing and self.training)
        return x


def build_pose(
    *, width: int, depth: int, input_size: tuple[int, int], num_keypoints: int, in_chans: int
) -> ExamplePose:
    return ExamplePose(width, depth, input_size, in_chans, num_keypoints)
