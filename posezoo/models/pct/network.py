"""PCT: Human Pose as Compositional Tokens (arXiv 2303.11638), the pose models.

Original: Gengzigang/PCT (MIT). A crop is classified into 34 tokens out of 2048; the mixture of
codebook rows that the probabilities make is decoded to 17 keypoints in input pixels, without
heatmaps. The residual and mixer blocks are timm's. Of the tokenizer only the codebook and the
decoder are here, and of the two backbones of the original files only the one that is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...weights.keys import Conversion, rename_keys
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.model import PoseModel
from ...zoo.registry import register_model
from .swin import (
    DERIVED,
    INPUT_SIZE,
    UNWRAP,
    SwinBackbone,
    SwinModel,
    backbone_rules,
    pct_source,
    without_autocast,
)
from .tokenizer import CODEBOOK_SIZE, DECODER_KEYS, NUM_KEYPOINTS, NUM_TOKENS, TokenDecoder, mixers

__all__ = ["PCTOutput", "PCTPose", "TokenClassifier"]


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

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.reduce(x))  # (B, 256, 8, 8)
        x = x.permute(0, 2, 3, 1).flatten(1)  # (B, 64 * 256), position-major
        x = self.to_tokens(x).unflatten(1, (NUM_TOKENS, -1))  # (B, 34, 64)
        return self.classify(self.norm(self.mixers(x)))


class PCTPose(SwinModel, PoseModel):
    """Top-down pose by tokens: (B, 3, 256, 256) -> `PCTOutput`.

    Args:
        image_guided: whether the tokenizer behind the codebook was guided by images. It changes
            nothing here but which of the authors' files fit.
    """

    head_argument = None

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
        ignore = DERIVED | _UNUSED | {"extra_backbone": _second_backbone(state)}
        rules = [*UNWRAP, *backbone_rules(state), *_HEAD_KEYS, *DECODER_KEYS]
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


_HEAD_KEYS = [
    ("^keypoint_head.conv_trans", "head.reduce"),
    ("^keypoint_head.conv_head.0", "head.blocks"),
    ("^keypoint_head.mixer_trans.ff", "head.to_tokens"),
    ("^keypoint_head.mixer_head", "head.mixers"),
    ("^keypoint_head.mixer_norm_layer.ff", "head.norm"),
    ("^keypoint_head.cls_pred_layer", "head.classify"),
]
_UNUSED = {
    f"tokenizer.{name}": reason
    for reason, names in {
        "encoder of the tokenizer, no part of pose inference": (
            "start_embed", "start_img_embed", "invisible_token", "encoder", "encoder_layer_norm",
            "token_mlp", "feature_embed",
        ),
        "running sums behind the codebook, for training only": ("ema_w", "ema_cluster_size"),
    }.items()
    for name in names
}  # fmt: skip


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


# ------------------------------------------------------------------------------- configurations


def _cfg(
    what: str,
    source: SourceCfg,
    *,
    params: int,
    gmacs: float,
    reported: tuple[float, str] | None = None,
) -> PretrainedCfg:
    """`reported`: AP on COCO val2017, and how far the number can be trusted."""
    metrics = reported and MetricsCfg(
        values={"AP": reported[0]},
        protocol=f"COCO val2017, bbox=det56.4, flip test; {reported[1]}",
        url="https://arxiv.org/abs/2303.11638",
    )
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=f"top-down pose by compositional tokens, {what}",
        source=source,
        input=InputCfg(size=INPUT_SIZE, bbox_padding=1.12, geometry="mmpose0"),
        decode=DecodeCfg(codec="regression"),
        metrics=metrics or None,
        params=params,
        macs=round(gmacs * 1e9),
    )


def _published(
    size: str, *, params: int, gmacs: float, reported: tuple[float, str]
) -> PretrainedCfg:
    source = pct_source("Epf3xVN8lJ9Km4qGQePCKR4Bl809PZXxXJETzWz6LFuFig?e=PbG3Ps", size)
    return _cfg(f"Swin-V2-{size}", source, params=params, gmacs=gmacs, reported=reported)


def _build(size: str, image_guided: bool, /, *, drop_path_rate: float = 0.0) -> PCTPose:
    backbone = SwinBackbone(size, drop_path_rate=drop_path_rate)
    head = TokenClassifier(backbone.num_features)
    return PCTPose(backbone, head, TokenDecoder(), image_guided=image_guided)


@register_model(
    _build,
    coco=_published(
        "base",
        params=125_488_230,
        gmacs=22.2,
        reported=(0.777, "not confirmed: a user's run of the weights gave 75.9, others quote 77.5"),
    ),
)
def pct_swin_base(**model_args: Any) -> PCTPose:
    """PCT on Swin-V2-Base, 256x256, COCO 17 keypoints."""
    return _build("base", True, **model_args)


@register_model(
    _build,
    coco=_published("large", params=233_928_418, gmacs=48.0, reported=(0.783, "not confirmed")),
)
def pct_swin_large(**model_args: Any) -> PCTPose:
    """PCT on Swin-V2-Large, 256x256, COCO 17 keypoints."""
    return _build("large", True, **model_args)


@register_model(
    _build,
    coco=_published("huge", params=688_338_014, gmacs=164.6, reported=(0.793, "confirmed")),
)
def pct_swin_huge(**model_args: Any) -> PCTPose:
    """PCT on Swin-V2-Huge, 256x256, COCO 17 keypoints."""
    return _build("huge", True, **model_args)


@register_model(
    _build,
    coco=_cfg(
        "Swin-V2-base, tokenizer without image guidance",
        SourceCfg(
            license="mit",
            dataset_license="COCO: annotations CC BY 4.0, images under mixed Flickr licences",
            paper="arXiv:2303.11638",
            unavailable="no confirmed file: the authors mention one, their list does not have it",
        ),
        params=125_488_230,
        gmacs=22.2,
    ),
)
def pct_swin_base_woimgguide(**model_args: Any) -> PCTPose:
    """PCT on Swin-V2-Base around the tokenizer without image guidance, 256x256, COCO."""
    return _build("base", False, **model_args)
