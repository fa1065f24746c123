"""The two halves of the tokenizer: poses to token embeddings, tokens to poses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import without_autocast
from .checks import check_ids
from .swin import STRIDE

__all__ = [
    "CODEBOOK_SIZE",
    "NUM_KEYPOINTS",
    "NUM_TOKENS",
    "TOKEN_DIM",
    "TokenDecoder",
    "TokenEncoder",
    "features_at",
    "mixers",
]

NUM_KEYPOINTS = 17
NUM_TOKENS = 34
CODEBOOK_SIZE = 2048
TOKEN_DIM = 512


def mixers(count: int, dim: int, length: int, ratios: tuple[float, float]) -> nn.Sequential:
    """MLP-Mixer blocks (arXiv 2105.01601) on (B, length, dim).

    Args:
        ratios: widths of the hidden layers, over tokens and over channels, relative to `dim`.
    """
    from timm.models.mlp_mixer import MixerBlock

    blocks = (MixerBlock(dim, length, ratios, norm_layer=nn.LayerNorm) for _ in range(count))
    return nn.Sequential(*blocks)


def features_at(features: Tensor, keypoints: Tensor) -> Tensor:
    """Read the feature map (B, C, h, w) at keypoints (B, K, 2) -> (B, K, C).

    Quirk: the cell is trunc(x / 32 + 1 / 2), not the one under the pixel; weights depend on it.
    """
    height, width = features.shape[2:]
    cells = keypoints / STRIDE + 0.5
    x, y = cells[..., 0].clamp(0, width - 1).long(), cells[..., 1].clamp(0, height - 1).long()
    index = (y * width + x)[:, None].expand(-1, features.shape[1], -1)  # (B, C, K)
    return features.flatten(2).gather(2, index).transpose(1, 2)  # (B, K, C)


class TokenEncoder(nn.Module):
    """Keypoints (B, 17, 2) in input pixels -> token embeddings (B, 34, 512), continuous.

    Args:
        feature_dim: channels of the feature map that guides it; None: coordinates alone.
    """

    def __init__(self, feature_dim: int | None) -> None:
        super().__init__()
        self.start_embed = nn.Linear(2, TOKEN_DIM // 2 if feature_dim else TOKEN_DIM)
        self.start_img_embed = nn.Linear(feature_dim, TOKEN_DIM // 2) if feature_dim else None
        self.invisible_token = nn.Parameter(torch.empty(1, 1, TOKEN_DIM))
        self.mixers = mixers(4, TOKEN_DIM, NUM_KEYPOINTS, (0.125, 1.0))
        self.norm = nn.LayerNorm(TOKEN_DIM)
        self.token_mlp = nn.Linear(NUM_KEYPOINTS, NUM_TOKENS)
        self.feature_embed = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        nn.init.trunc_normal_(self.invisible_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, keypoints: Tensor, visible: Tensor, features: Tensor | None) -> Tensor:
        """Embed; `visible` (B, 17) is boolean, `features` (B, C, 8, 8)."""
        keypoints = keypoints.masked_fill(~visible[..., None], 0.0)  # hidden ones may be NaN
        with without_autocast(keypoints):  # bfloat16 has no room for a pixel of 256
            x = self.start_embed(keypoints)  # (B, 17, 512), or 256 of it
        if self.start_img_embed is not None and features is not None:
            guide = self.start_img_embed(features_at(features, keypoints))
            x = torch.cat([x, guide], dim=-1)  # (B, 17, 512)
        x = torch.where(visible[..., None], x, self.invisible_token)
        x = self.norm(self.mixers(x))
        x = self.token_mlp(x.transpose(1, 2)).transpose(1, 2)  # (B, 34, 512)
        return self.feature_embed(x)


class TokenDecoder(nn.Module):
    """The codebook, and tokens (B, 34, 512) -> keypoints (B, 17, 2) in input pixels.

    Tokens are rows of the codebook, or mixtures of them weighted by class probabilities.
    """

    graph_is_fused = False
    codebook: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(CODEBOOK_SIZE, TOKEN_DIM))
        self.token_mlp = nn.Linear(NUM_TOKENS, NUM_KEYPOINTS)
        self.start = nn.Linear(TOKEN_DIM, 32)
        self.mixers = mixers(1, 32, NUM_KEYPOINTS, (2.0, 2.0))
        self.norm = nn.LayerNorm(32)
        self.recover = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_mlp(tokens.transpose(1, 2)).transpose(1, 2)  # (B, 17, 512)
        x = self.mixers(self.start(x))  # (B, 17, 32)
        return self.recover(self.norm(x))  # (B, 17, 2)

    def nearest_ids(self, embeddings: Tensor) -> Tensor:
        """Return the row of the codebook closest to each embedding, (B, 34, 512) -> (B, 34)."""
        # squared distances without |z|^2, which moves no minimum
        squares = self.codebook.square().sum(1)
        distances = torch.addmm(squares, embeddings.flatten(0, 1), self.codebook.t(), alpha=-2)
        return distances.argmin(-1).unflatten(0, embeddings.shape[:2])

    def decode(self, ids: Tensor) -> Tensor:
        """Return the keypoints (N, 17, 2), input pixels, of token ids (N, 34).

        Raises:
            InputError: wrong shape or type, or ids outside the codebook.
        """
        check_ids(ids, NUM_TOKENS, self.codebook)
        return self(self.codebook[ids.long()])  # 2048 is beyond the range of a byte
