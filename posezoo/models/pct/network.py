"""Models on the backbone of PCT: poses by tokens, the tokenizers' builders, and heatmaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...weights.keys import Conversion, rename_keys
from ...zoo.model import PoseModel, ZooModel
from ..heads import HeatmapHead, HeatmapPose
from ..layers import check_images, fold_norms, nhwc, without_autocast
from .keys import (
    DECODER_KEYS,
    DERIVED,
    HEAD_KEYS,
    NOT_FOR_INFERENCE,
    UNWRAP,
    backbone_rules,
)
from .swin import INPUT_SIZE, STRIDE, SwinBackbone
from .tokenizer import PCTTokenizer
from .tokens import CODEBOOK_SIZE, NUM_KEYPOINTS, NUM_TOKENS, TokenDecoder, mixers

__all__ = [
    "PCTOutput",
    "PCTPose",
    "SwinPose",
    "TokenClassifier",
    "build_guided_tokenizer",
    "build_heatmap_pose",
    "build_pose",
    "build_tokenizer",
]


class PCTOutput(NamedTuple):
    """Output of a PCT pose model.

    `keypoints (B, 17, 2)` in input pixels; `logits (B, 34, 2048)`, the classes of each token.
    `keypoint_scores` of a predictor are the mean over tokens of the largest logit, as the
    published AP needs it: one value per person, unbounded. `probability` stays in [0, 1].
    """

    keypoints: Tensor
    logits: Tensor

    def probability(self) -> Tensor:
        """Return the mean over tokens of the largest class probability, (B,)."""
        return self.logits.float().softmax(-1).amax(-1).mean(-1)


class TokenClassifier(nn.Module):
    """Feature map (B, C, 8, 8) -> class logits of the tokens (B, 34, 2048)."""

    graph_is_fused = False

    def __init__(self, in_channels: int) -> None:
        from timm.models.resnet import BasicBlock

        super().__init__()
        dim, cells, width = 256, 64, 64
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU()
        )
        self.blocks = nn.Sequential(BasicBlock(dim, dim), BasicBlock(dim, dim))
        self.to_tokens = nn.Sequential(
            nn.Linear(cells * dim, NUM_TOKENS * width), nn.LayerNorm(NUM_TOKENS * width), nn.ReLU()
        )
        self.mixers = mixers(4, width, NUM_TOKENS, (1.0, 4.0))
        self.norm = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
        self.classify = nn.Linear(width, CODEBOOK_SIZE)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)

    def fold(self) -> None:
        """Fold the norms into the convolutions."""
        fold_norms(self.reduce)
        fold_norms(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.reduce(x))  # (B, 256, 8, 8)
        x = nhwc(x).flatten(1)  # (B, 64 * 256), position-major
        x = self.to_tokens(x).unflatten(1, (NUM_TOKENS, -1))  # (B, 34, 64)
        return self.classify(self.norm(self.mixers(x)))


class SwinModel(ZooModel):
    """What the pose models share: a backbone and access to its maps."""

    def __init__(self, backbone: SwinBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) -> normalised last map (B, 8 C, 8, 8).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, 3, INPUT_SIZE, STRIDE, like=self.backbone.patch_embed.proj.weight)
        return self.backbone(x)

    def forward_intermediates(self, x: Tensor, *, tokens: bool = False) -> list[Tensor]:
        """Return the maps after each stage, (B, D, h, w) at strides 4, 8, 16, 32.

        Raises:
            InputError: wrong shape or type, or tokens are asked for.
        """
        if tokens:
            super().forward_intermediates(x, tokens=tokens)
        check_images(x, 3, INPUT_SIZE, STRIDE, like=self.backbone.patch_embed.proj.weight)
        return self.backbone.forward_intermediates(x)


class PCTPose(SwinModel, PoseModel):
    """Top-down pose by tokens: (B, 3, 256, 256) -> `PCTOutput`.

    Args:
        image_guided: whether the tokenizer behind the codebook was guided by images. It changes
            nothing here but which of the authors' files fit.
    """

    head_argument = None  # the tokenizer fixes the keypoints
    without_autocast = ("decoder", "cpb_mlp")

    def __init__(
        self,
        backbone: SwinBackbone,
        head: TokenClassifier,
        decoder: TokenDecoder,
        *,
        image_guided: bool,
    ) -> None:
        super().__init__(backbone)
        self.head = head
        self.decoder = decoder
        self.image_guided = image_guided
        self.num_keypoints = NUM_KEYPOINTS

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Keep what pose inference needs under our names; ours stay as they are.

        Raises:
            ValueError: the file's tokenizer has image guidance and this model's has not, or
                the reverse.
        """
        guided = any(key.endswith("tokenizer.start_img_embed.weight") for key in state)
        if guided != self.image_guided and any(".start_embed." in key for key in state):
            how = "with" if guided else "without"
            raise ValueError(f"its tokenizer was trained {how} image guidance")
        ignore = DERIVED | NOT_FOR_INFERENCE | {"extra_backbone": _second_backbone(state)}
        rules = [*UNWRAP, *backbone_rules(state), *HEAD_KEYS, *DECODER_KEYS]
        return rename_keys(state, rules, ignore)

    def forward_head(self, features: Tensor) -> PCTOutput:
        """(B, 8 C, 8, 8) -> keypoints and logits.

        Tokens become keypoints in the precision of the weights even under autocast: bfloat16
        has no room for a pixel of 256.
        """
        logits = self.head(features)
        codebook = self.decoder.codebook
        with without_autocast(codebook):
            tokens = logits.to(codebook).softmax(-1) @ codebook  # (B, 34, 512)
            return PCTOutput(self.decoder(tokens), logits)

    def forward(self, x: Tensor) -> PCTOutput:
        return self.forward_head(self.forward_features(x))


class SwinPose(SwinModel, HeatmapPose):
    """Top-down heatmap pose: (B, 3, 256, 256) -> heatmaps (B, K, 64, 64), raw values."""

    without_autocast = ("cpb_mlp",)

    def __init__(self, backbone: SwinBackbone, num_keypoints: int) -> None:
        super().__init__(backbone)
        width = backbone.num_features
        self.head = HeatmapHead(
            width, num_keypoints, deconv_channels=(width // 32,) * 3, deconv_kernel=2
        )
        self.num_keypoints = num_keypoints

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are."""
        bare = [(f"^{name}", f"backbone.{name}") for name in ("patch_embed", "layers", "norm3")]
        rules = [*UNWRAP, *bare, *backbone_rules(state), ("^keypoint_head", "head")]
        return rename_keys(state, rules, DERIVED)


def _second_backbone(state: Mapping[str, Tensor]) -> str:
    """Return why the second backbone is left out, and whether it equals the first.

    The comparison ends at the first difference; published files should have none.
    """
    pairs = [
        (value, state.get(key.replace("extra_backbone", "backbone")))
        for key, value in state.items()
        if "extra_backbone" in key and not value.is_meta
    ]
    equal = all(other is not None and torch.equal(value, other) for value, other in pairs)
    return f"backbone of the tokenizer, {'equal to' if equal else 'other than'} the one used"


def build_pose(
    *,
    width: int,
    depths: tuple[int, int, int, int],
    num_heads: tuple[int, int, int, int],
    image_guided: bool,
    drop_path_rate: float,
) -> PCTPose:
    """Build a model of poses by tokens; see `SwinBackbone` and `PCTPose` for the arguments."""
    backbone = SwinBackbone(
        width=width, depths=depths, num_heads=num_heads, drop_path_rate=drop_path_rate
    )
    head = TokenClassifier(backbone.num_features)
    return PCTPose(backbone, head, TokenDecoder(), image_guided=image_guided)


def build_heatmap_pose(
    *,
    width: int,
    depths: tuple[int, int, int, int],
    num_heads: tuple[int, int, int, int],
    num_keypoints: int,
    drop_path_rate: float,
) -> SwinPose:
    """Build a heatmap model; see `SwinBackbone` for the arguments."""
    backbone = SwinBackbone(
        width=width, depths=depths, num_heads=num_heads, drop_path_rate=drop_path_rate
    )
    return SwinPose(backbone, num_keypoints)


def build_tokenizer() -> PCTTokenizer:
    """Build a tokenizer of coordinates alone."""
    return PCTTokenizer(None)


def build_guided_tokenizer(
    *, width: int, depths: tuple[int, int, int, int], num_heads: tuple[int, int, int, int]
) -> PCTTokenizer:
    """Build a tokenizer that is guided by images; see `SwinBackbone` for the arguments."""
    return PCTTokenizer(
        SwinBackbone(width=width, depths=depths, num_heads=num_heads, drop_path_rate=0.0)
    )
