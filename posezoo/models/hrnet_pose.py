"""A small HRNet heatmap model (CVPR 2019, arXiv 1902.09212), trained on rendered people only.

Written for posezoo, Apache-2.0. It ships inside the package, so that a real prediction can be
seen, and tested, without a network; it is no rival to the models beside it. The trunk is narrow
and ends after stage 3; one 1x1 convolution turns its finest map into heatmaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .._config import DecodeCfg, InputCfg, PretrainedCfg, SourceCfg
from .._conversion import Conversion, rename_keys
from .._registry import register_model
from .heads import HeatmapHead
from .hrnet import HRNetTrunk
from .layers import check_images

__all__ = ["HRNetPose"]


class HRNetPose(nn.Module):
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


def _stage(channels: tuple[int, ...], blocks: int, kind: str) -> dict[str, Any]:
    return {
        "num_modules": 1,
        "num_branches": len(channels),
        "block_type": kind,
        "num_blocks": (blocks,) * len(channels),
        "num_channels": channels,
        "fuse_method": "SUM",
    }


_TRUNK = {
    "stem_width": 32,
    "stage1": _stage((32,), 1, "BOTTLENECK"),
    "stage2": _stage((24, 48), 2, "BASIC"),
    "stage3": _stage((24, 48, 96), 2, "BASIC"),
    "stage4": _stage((24, 48, 96, 192), 1, "BASIC"),
}


def _build(
    input_size: tuple[int, int], /, *, num_keypoints: int = 17, in_chans: int = 3
) -> HRNetPose:
    trunk = HRNetTrunk(_TRUNK, in_chans)
    return HRNetPose(trunk, HeatmapHead(trunk.width, num_keypoints), input_size, in_chans)


_RENDERED = PretrainedCfg(
    task="pose",
    dataset="coco",
    description="narrow HRNet trained on rendered people only; for demos and tests, not for photos",
    source=SourceCfg(
        packaged="hrnet_xs_128x96.rendered.safetensors",
        sha256="c1af4a34a5f5b73a77a58fa120efda4bd35cf7c58038f91ea99baa8ab8755049",
        license="apache-2.0",
        dataset_license="rendered by posezoo.evaluation.synthetic, no terms",
        paper="Deep High-Resolution Representation Learning, CVPR 2019, arXiv:1902.09212",
    ),
    input=InputCfg(size=(128, 96), bbox_padding=1.25, geometry="mmpose1"),
    decode=DecodeCfg(
        codec="heatmap", heatmap_size=(32, 24), refine="dark", blur_kernel=7, shift_heatmap=True
    ),
    params=725_129,
    macs=151_222_272,
)


@register_model(_build, rendered=_RENDERED)
def hrnet_xs_128x96(**model_args: Any) -> HRNetPose:
    """HRNet-XS, 128x96, COCO 17 keypoints, rendered people."""
    return _build((128, 96), **model_args)
