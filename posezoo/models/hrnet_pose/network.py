"""HRNet up to stage 3 with a heatmap head."""

from __future__ import annotations

from torch import Tensor, nn

from ..heads import HeatmapHead, HeatmapPose
from ..hrnet import HRNET_S, HRNET_XS, HRNetTrunk, start_as_identity
from ..layers import check_images, fold_norms

__all__ = ["HRNetPose", "build_pose"]


class Neck(nn.Sequential):
    """A wider map for many keypoints: (B, C, h, w) -> (B, width, h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def fold(self) -> None:
        """Fold the norm into the convolution."""
        fold_norms(self)


class HRNetPose(HeatmapPose):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values.

    Args:
        neck: channels of the map that the head takes; None for the trunk's own.
    """

    def __init__(
        self,
        trunk: HRNetTrunk,
        *,
        neck: int | None,
        in_chans: int,
        input_size: tuple[int, int],
        num_keypoints: int,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = nn.Identity() if neck is None else Neck(trunk.width, neck)
        self.head = HeatmapHead(neck or trunk.width, num_keypoints)
        self.in_chans = in_chans
        self.input_size = input_size
        self.num_keypoints = num_keypoints

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the map that the head takes, (B, C, H / 4, W / 4).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, self.in_chans, self.input_size, 16, like=self.head.final_layer.weight)
        features: Tensor = self.neck(self.trunk(x))
        return features


def build_pose(
    *,
    trunk: str,
    neck: int | None,
    input_size: tuple[int, int],
    num_keypoints: int,
    in_chans: int,
) -> HRNetPose:
    """Build the model with a narrow trunk, "hrnet_xs" or, twice as deep at the end, "hrnet_s"."""
    built = HRNetTrunk({"hrnet_xs": HRNET_XS, "hrnet_s": HRNET_S}[trunk], in_chans)
    start_as_identity(built.stage3[1:])
    return HRNetPose(
        built, neck=neck, in_chans=in_chans, input_size=input_size, num_keypoints=num_keypoints
    )
