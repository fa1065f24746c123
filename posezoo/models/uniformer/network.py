"""UniFormer's pose models and classifiers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...weights.keys import Conversion, rename_keys
from ...zoo.model import ZooModel
from ..heads import HeatmapHead, HeatmapPose, LinearClassifier
from ..layers import check_images, nchw
from .backbone import WIDTHS, UniFormerBackbone

__all__ = ["UniFormerClassifier", "UniFormerPose", "build_classifier", "build_pose"]


class UniFormer(ZooModel):
    """What the pose model and the classifier share: a backbone and access to its maps."""

    def __init__(
        self, backbone: UniFormerBackbone, in_chans: int, input_size: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.in_chans = in_chans
        self.input_size = input_size

    def check(self, x: Tensor) -> None:
        """Raise InputError where `x` is no batch of images of the right size, type and device."""
        weight = next(self.backbone.parameters())
        check_images(x, self.in_chans, self.input_size, 32, like=weight)

    def forward_intermediates(
        self, x: Tensor, *, tokens: bool = False, norm: bool = False
    ) -> list[Tensor]:
        """Return the maps after each stage, (B, D, h, w) at strides 4, 8, 16, 32.

        Args:
            x: normalised images (B, 3, H, W).
            tokens: UniFormer has none that are regions; see TCFormer.
            norm: apply the stage norms that pose backbones have.

        Raises:
            InputError: wrong shape or type, or tokens are asked for.
        """
        if tokens:
            super().forward_intermediates(x, tokens=tokens)
        self.check(x)
        return self.backbone.forward_intermediates(x, norm=norm)


class UniFormerPose(UniFormer, HeatmapPose):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self,
        backbone: UniFormerBackbone,
        in_chans: int,
        input_size: tuple[int, int],
        num_keypoints: int,
    ) -> None:
        super().__init__(backbone, in_chans, input_size)
        self.head = HeatmapHead(WIDTHS[-1], num_keypoints, deconv_channels=(256, 256, 256))
        self.num_keypoints = num_keypoints

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename mmpose 1.x and authors' (mmpose 0.16) keys; ours stay as they are."""
        return rename_keys(state, _POSE_KEYS, ignore={"data_preprocessor": "input normalisation"})

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised last map (B, 512, H / 32, W / 32).

        Raises:
            InputError: wrong shape or type.
        """
        self.check(x)
        return nchw(self.backbone.stages[3].normed(self.backbone(x)))


class UniFormerClassifier(UniFormer, LinearClassifier):
    """ImageNet classifier: (B, 3, H, W) -> logits (B, num_classes)."""

    num_features = WIDTHS[-1]

    def __init__(self, backbone: UniFormerBackbone, in_chans: int, num_classes: int) -> None:
        super().__init__(backbone, in_chans, None)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.reset_head(num_classes)

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are."""
        return rename_keys(state, _stage_keys(""))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised last map (B, 512, H / 32, W / 32).

        Raises:
            InputError: wrong shape or type; H and W must be multiples of 32.
        """
        self.check(x)
        return self.norm(nchw(self.backbone(x)))

    def pool(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))  # (B, 512)


def _stage_keys(before: str) -> list[tuple[str, str]]:
    rules = []
    for i in range(4):
        stage = f"backbone.stages.{i}"
        rules += [(f"^{before}patch_embed{i + 1}", f"{stage}.patch_embed")]
        rules += [(f"^{before}blocks{i + 1}", f"{stage}.blocks")]
    return rules


_POSE_KEYS = [
    *_stage_keys("backbone."),
    *((f"^backbone.norm{i + 1}", f"backbone.stages.{i}.norm") for i in range(4)),
    ("^keypoint_head", "head"),
]


def build_pose(
    *,
    depths: tuple[int, int, int, int],
    input_size: tuple[int, int],
    num_keypoints: int,
    in_chans: int,
    drop_path_rate: float,
    block_eps: float,
) -> UniFormerPose:
    """Build a pose model; see `UniFormerBackbone` for the arguments."""
    backbone = UniFormerBackbone(
        depths=depths,
        in_chans=in_chans,
        head_dim=64,
        drop_path_rate=drop_path_rate,
        block_eps=block_eps,
        layer_scale=False,
        conv_stem=False,
        stage_norms=True,
    )
    return UniFormerPose(backbone, in_chans, input_size, num_keypoints)


def build_classifier(
    *,
    depths: tuple[int, int, int, int],
    head_dim: int,
    layer_scale: bool,
    conv_stem: bool,
    num_classes: int,
    in_chans: int,
    drop_path_rate: float,
) -> UniFormerClassifier:
    """Build a classifier; see `UniFormerBackbone` for the arguments."""
    backbone = UniFormerBackbone(
        depths=depths,
        in_chans=in_chans,
        head_dim=head_dim,
        drop_path_rate=drop_path_rate,
        block_eps=1e-6,
        layer_scale=layer_scale,
        conv_stem=conv_stem,
        stage_norms=False,
    )
    return UniFormerClassifier(backbone, in_chans, num_classes)
