"""A small HRNet heatmap model (CVPR 2019, arXiv 1902.09212), trained on rendered people only.

Written for posezoo, Apache-2.0. It ships inside the package, so that a real prediction can be
seen, and tested, without a network; it is no rival to the models beside it. The trunk is narrow
and ends after stage 3; one 1x1 convolution turns its finest map into heatmaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...weights.keys import Conversion, rename_keys
from ...zoo.config import DecodeCfg, InputCfg, PretrainedCfg, SourceCfg
from ...zoo.model import PoseModel
from ...zoo.registry import register_model
from ..heads import HeatmapHead
from ..hrnet import HRNET_XS, HRNetTrunk
from ..layers import check_images

__all__ = ["HRNetPose"]


class HRNetPose(PoseModel):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self, trunk: HRNetTrunk, head: HeatmapHead, input_size: tuple[int, int], in_chans: int
    ) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.input_size, self.in_chans = input_size, in_chans
        self.num_keypoints = head.final_layer.out_channels

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Take our own keys as they are; there are no others."""
        return rename_keys(state, [])

    def reset_head(self, num_keypoints: int) -> None:
        """Put a fresh last layer for another number of keypoints in place."""
        self.head.reset(self.trunk.width, num_keypoints)
        self.num_keypoints = num_keypoints

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, self.in_chans, self.input_size, 16)
        return self.head(self.trunk(x))


def _build(
    input_size: tuple[int, int], /, *, num_keypoints: int = 17, in_chans: int = 3
) -> HRNetPose:
    trunk = HRNetTrunk(HRNET_XS, in_chans)
    return HRNetPose(trunk, HeatmapHead(trunk.width, num_keypoints), input_size, in_chans)


def _rendered(crop: InputCfg, decode: DecodeCfg, gmacs: float, sha256: str) -> PretrainedCfg:
    """Configuration of weights in the package."""
    height, width = crop.size
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description="narrow HRNet trained on rendered people only, for demos and tests, no photos",
        source=SourceCfg(
            packaged=f"hrnet_xs_{height}x{width}.rendered.safetensors",
            sha256=sha256,
            license="apache-2.0",
            dataset_license="rendered by posezoo.synthetic, no terms",
            paper="Deep High-Resolution Representation Learning, CVPR 2019, arXiv:1902.09212",
        ),
        input=crop,
        decode=decode,
        params=725_129,
        macs=round(gmacs * 1e9),
    )


_128 = _rendered(
    InputCfg(size=(128, 96), bbox_padding=1.25, geometry="mmpose1"),
    DecodeCfg(
        codec="heatmap", heatmap_size=(32, 24), refine="dark", blur_kernel=7, shift_heatmap=True
    ),
    gmacs=0.151,
    sha256="c1af4a34a5f5b73a77a58fa120efda4bd35cf7c58038f91ea99baa8ab8755049",
)
_192 = _rendered(
    InputCfg(size=(192, 144), bbox_padding=1.35, geometry="tokenpose"),
    DecodeCfg(codec="heatmap", heatmap_size=(48, 36), refine="dark", blur_kernel=9),
    gmacs=0.340,
    sha256="b63d97535502fe8e84e99399bd32a691fb24364f517ba1b47e021cd553f42674",
)


@register_model(_build, rendered=_128)
def hrnet_xs_128x96(**model_args: Any) -> HRNetPose:
    """HRNet-XS, 128x96, COCO 17 keypoints, rendered people."""
    return _build((128, 96), **model_args)


@register_model(_build, rendered=_192)
def hrnet_xs_192x144(**model_args: Any) -> HRNetPose:
    """HRNet-XS, 192x144, COCO 17 keypoints, rendered people."""
    return _build((192, 144), **model_args)
