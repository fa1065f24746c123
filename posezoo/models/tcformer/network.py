"""TCFormer's classifiers, and its pose models with the MTA neck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, overload

from torch import Tensor, nn

from ...errors import InputError
from ...weights.keys import Conversion, rename_keys
from ...zoo.model import ZooModel
from ..heads import HeatmapHead, HeatmapPose, LinearClassifier
from ..layers import as_linear, check_images, nchw
from .backbone import WIDTHS, TCFormerBackbone, backbone_keys
from .blocks import Tokens
from .neck import NECK_DIM, MTANeck

__all__ = ["StageMap", "TCFormerClassifier", "TCFormerPose", "build_classifier", "build_pose"]

SMALLEST_INPUT = 32


class StageMap(NamedTuple):
    """The features of a stage and the regions of its tokens."""

    map: Tensor  # (B, C, h, w)
    cell_token: Tensor  # (B, H0, W0) int64, the token that owns each cell of the initial grid


class TCFormer(ZooModel):
    """What the classifier and the pose model share: a backbone and access to its tokens."""

    def __init__(
        self, backbone: TCFormerBackbone, in_chans: int, input_size: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.in_chans = in_chans
        self.input_size = input_size

    def forward_tokens(self, x: Tensor) -> list[Tokens]:
        """Check the images (B, C, H, W) and return the tokens of each stage.

        Raises:
            InputError: wrong shape or type.
        """
        weight = self.backbone.patch_embed.proj.weight
        check_images(x, self.in_chans, self.input_size, 1, like=weight)
        if min(x.shape[2:]) < SMALLEST_INPUT:
            size = tuple(x.shape[2:])
            raise InputError(f"image height and width must be {SMALLEST_INPUT} or more, got {size}")
        return self.backbone(x)

    @overload  # type: ignore[override]  # a literal decides the type
    def forward_intermediates(self, x: Tensor, *, tokens: Literal[False] = ...) -> list[Tensor]: ...

    @overload
    def forward_intermediates(self, x: Tensor, *, tokens: Literal[True]) -> list[StageMap]: ...

    def forward_intermediates(
        self, x: Tensor, *, tokens: bool = False
    ) -> list[Tensor] | list[StageMap]:
        """Return the normalised maps after each stage, (B, C, h, w) at strides 4, 8, 16, 32.

        Args:
            x: normalised images (B, 3, H, W).
            tokens: return for each stage also the token that every cell of the initial grid
                belongs to; `posezoo.draw.draw_tokens` paints it.

        Raises:
            InputError: wrong shape or type.
        """
        stages = self.forward_tokens(x)
        maps = [nchw(s.regions.token2map(s.x)) for s in stages]
        if not tokens:
            return maps
        cells = [s.regions.cell_token.unflatten(1, s.regions.grid_size) for s in stages]
        return [StageMap(map, cell_token) for map, cell_token in zip(maps, cells)]


class TCFormerClassifier(TCFormer, LinearClassifier):
    """ImageNet classifier: (B, 3, H, W) -> logits (B, num_classes).

    H and W may be anything from 32 up: maps shrink by half, rounded up, and the initial grid is
    ceil(H / 4) x ceil(W / 4).
    """

    num_features = WIDTHS[-1]

    def __init__(self, backbone: TCFormerBackbone, in_chans: int, num_classes: int) -> None:
        super().__init__(backbone, in_chans, None)
        self.reset_head(num_classes)

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are."""
        return rename_keys(state, list(backbone_keys("")))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised tokens of the last stage (B, N, 512).

        Raises:
            InputError: wrong shape or type.
        """
        return self.forward_tokens(x)[-1].x

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(1)  # (B, 512)


class TCFormerPose(TCFormer, HeatmapPose):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self,
        backbone: TCFormerBackbone,
        in_chans: int,
        input_size: tuple[int, int],
        num_keypoints: int,
    ) -> None:
        super().__init__(backbone, in_chans, input_size)
        self.neck = MTANeck()
        self.head = HeatmapHead(NECK_DIM, num_keypoints)
        self.num_keypoints = num_keypoints
        self.folded: nn.ModuleList | None = None

    def reset_head(self, size: int) -> None:
        super().reset_head(size)
        self.folded = None

    def fold(self) -> None:
        """Make the last layer of the neck and the head one, on the finest level's hidden tokens."""
        weight, bias = self.head.final_layer.weight.flatten(1), self.head.final_layer.bias
        if bias is not None:
            head = as_linear(weight, bias)
            self.folded = nn.ModuleList([head, self.neck.blocks[0].mlp.followed_by(head)])

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' and mmpose's keys; ours stay as they are."""
        return rename_keys(state, _POSE_KEYS)

    @property
    def has_token_regions(self) -> bool:
        return True

    def token_regions(self, images: Tensor) -> list[Tensor]:
        return [stage.cell_token for stage in self.forward_intermediates(images, tokens=True)]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> map of the finest level (B, 256, H / 4, W / 4).

        Raises:
            InputError: wrong shape or type.
        """
        finest = self.neck(self.forward_tokens(x))[0]
        return nchw(finest.regions.token2map(finest.x))

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is None:
            return super().forward(x)
        finest, block = self.neck.before_last(self.forward_tokens(x))[0], self.neck.blocks[0]
        tokens, (head, mlp) = block.attend(finest.x, finest.regions), self.folded
        heatmaps = head(tokens).add_(mlp(block.norm2(tokens), finest.regions))  # (B, N, K)
        return nchw(finest.regions.token2map(heatmaps)).contiguous()


_POSE_KEYS = [
    *backbone_keys("backbone."),
    *((f"^neck.lateral_convs.{i}.conv", f"neck.laterals.{i}") for i in range(4)),
    ("^neck.merge_blocks", "neck.blocks"),
    ("^keypoint_head", "head"),
]


def build_classifier(
    *,
    depths: tuple[int, int, int, int],
    num_classes: int,
    in_chans: int,
    drop_path_rate: float,
    sample_ratio: float,
    density_noise: float,
) -> TCFormerClassifier:
    """Build a classifier; see `TCFormerBackbone` for the arguments."""
    backbone = TCFormerBackbone(
        depths=depths,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        patch_embed_eps=1e-5,
        sample_ratio=sample_ratio,
        density_noise=density_noise,
    )
    return TCFormerClassifier(backbone, in_chans, num_classes)


def build_pose(
    *,
    depths: tuple[int, int, int, int],
    input_size: tuple[int, int],
    num_keypoints: int,
    in_chans: int,
    drop_path_rate: float,
    patch_embed_eps: float,
    sample_ratio: float,
    density_noise: float,
) -> TCFormerPose:
    """Build a pose model; see `TCFormerBackbone` for the arguments."""
    backbone = TCFormerBackbone(
        depths=depths,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        patch_embed_eps=patch_embed_eps,
        sample_ratio=sample_ratio,
        density_noise=density_noise,
    )
    return TCFormerPose(backbone, in_chans, input_size, num_keypoints)
