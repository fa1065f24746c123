"""HRNet up to stage 3 with a heatmap head."""

from __future__ import annotations

from torch import Tensor

from ..heads import HeatmapHead, HeatmapPose
from ..hrnet import HRNET_S, HRNET_XS, HRNetTrunk, start_as_identity
from ..layers import check_images

__all__ = ["HRNetPose", "build_pose"]


class HRNetPose(HeatmapPose):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self, trunk: HRNetTrunk, in_chans: int, input_size: tuple[int, int], num_keypoints: int
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = HeatmapHead(trunk.width, num_keypoints)
        self.in_chans = in_chans
        self.input_size = input_size
        self.num_keypoints = num_keypoints

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> finest map (B, C, H / 4, W / 4).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, self.in_chans, self.input_size, 16, like=self.trunk.conv1.weight)
        return self.trunk(x)


def build_pose(
    *, trunk: str, input_size: tuple[int, int], num_keypoints: int, in_chans: int
) -> HRNetPose:
    """Build the model with a narrow trunk, "hrnet_xs" or, twice as deep at the end, "hrnet_s"."""
    built = HRNetTrunk({"hrnet_xs": HRNET_XS, "hrnet_s": HRNET_S}[trunk], in_chans)
    start_as_identity(built.stage3[1:])
    return HRNetPose(built, in_chans, input_size, num_keypoints)
