"""A plain vision transformer and a small decoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...graphs import Graph
from ...weights.keys import Conversion, rename_keys
from ..heads import HeatmapHead, HeatmapPose, KeypointHead
from ..layers import (
    as_linear,
    check_images,
    drop_path_rates,
    module_list,
    nhwc,
    run_block,
    without_autocast,
)
from .variants import EXPERTS

__all__ = ["ExpertMlp", "SimpleHead", "ViTPose", "build_pose"]

PATCH = 16


class ExpertMlp(nn.Module):
    """The feed-forward network of ViTPose+: (B, N, D) -> (B, N, D), arXiv 2212.04246 eq. 4.

    `fc2` gives the first channels for every data set, one of `experts` the last `expert_dim`.

    Attributes:
        expert: which expert is used, an index into `EXPERTS`.
    """

    def __init__(self, dim: int, hidden_dim: int, expert_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim - expert_dim)
        self.experts = module_list(nn.Linear(hidden_dim, expert_dim) for _ in EXPERTS)
        self.expert = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1(x))  # (B, N, 4 D)
        return torch.cat([self.fc2(x), self.experts[self.expert](x)], dim=-1)


class SimpleHead(KeypointHead):
    """The decoder without learned upsampling: (B, D, h, w) -> heatmaps (B, K, 4 h, 4 w).

    Args:
        width: D, channels of the map.
        grid: (h, w).
    """

    kernel_size = 3
    rows: Tensor
    columns: Tensor
    bias: Tensor

    def __init__(self, width: int, grid: tuple[int, int], num_keypoints: int) -> None:
        super().__init__()
        self.width, self.grid = width, grid
        self.reset(num_keypoints)

    def reset(self, num_keypoints: int) -> None:
        super().reset(num_keypoints)
        self.taps: nn.Linear | None = None

    def fold(self) -> None:
        """Let the convolution come before the upsampling: both are linear, and maps are smaller.

        The taps of the kernel are multiplied with the cells; what they give is moved by a pixel
        and upsampled by matrices, row by row and column by column.
        """
        weight = self.final_layer.weight  # (K, D, 3, 3)
        zero = weight.new_zeros(len(weight))
        bias = zero if self.final_layer.bias is None else self.final_layer.bias.detach()
        self.taps = as_linear(weight.permute(0, 2, 3, 1).flatten(0, 2), zero.repeat(9))
        rows, columns = (upsampled_taps(cells).to(weight) for cells in self.grid)
        for name, value in {"rows": rows, "columns": columns, "bias": bias}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if self.taps is None:
            x = F.interpolate(x, scale_factor=4, mode="bilinear")  # (B, D, 4 h, 4 w)
            return self.final_layer(x)
        taps = self.taps(nhwc(x))  # (B, h, w, 9 K)
        y = taps.unflatten(-1, (-1, 3, 3)).permute(0, 3, 4, 1, 5, 2)  # (B, K, 3, h, 3, w)
        with without_autocast(x):
            y = y.flatten(4).to(self.rows.dtype) @ self.columns.mT  # (B, K, 3, h, 4 w)
            y = self.rows @ y.flatten(2, 3) + self.bias[:, None, None]  # (B, K, 4 h, 4 w)
        return y.to(taps.dtype)


def upsampled_taps(cells: int) -> Tensor:
    """Return (4 cells, 3 cells): what pixels take from the cells through each of three taps.

    Upsampling is bilinear; taps are one pixel before, on and after a pixel, zero outside.
    """
    one = torch.eye(cells, dtype=torch.float64, device="cpu")
    pixels = F.interpolate(one[None], scale_factor=4, mode="linear")[0].t()  # (4 cells, cells)
    padded = F.pad(pixels, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + 4 * cells] for tap in range(3)], dim=1)


class ViTPose(HeatmapPose):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values.

    Args:
        input_size: (H, W), multiples of 16.
        dim: width D of the tokens.
        depth: number of blocks.
        num_heads: of attention.
        expert_dim: channels of an expert in ViTPose+, None in ViTPose.
        simple_head: the decoder without learned upsampling.
        norm_eps: epsilon of all layer norms.
    """

    def __init__(
        self,
        *,
        input_size: tuple[int, int],
        dim: int,
        depth: int,
        num_heads: int,
        expert_dim: int | None,
        simple_head: bool,
        num_keypoints: int,
        in_chans: int,
        drop_path_rate: float,
        norm_eps: float,
    ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.input_size, self.in_chans = input_size, in_chans
        self.grid = (input_size[0] // PATCH, input_size[1] // PATCH)
        self.num_keypoints = num_keypoints
        self.grad_checkpointing = False
        # Quirk: patches start 2 pixels outside the image
        self.patch_embed = nn.Conv2d(in_chans, dim, PATCH, PATCH, padding=2)
        # the first row belonged to a class token; it is added to all others
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, dim))
        norm = partial(nn.LayerNorm, eps=norm_eps)
        (rates,) = drop_path_rates([depth], drop_path_rate)
        self.blocks = module_list(
            Block(dim, num_heads, qkv_bias=True, drop_path=rate, norm_layer=norm) for rate in rates
        )
        for block in self.blocks:
            block.graph_is_fused = False
            if expert_dim is not None:
                block.mlp = ExpertMlp(dim, 4 * dim, expert_dim)
        self.norm = norm(dim)
        self.head: KeypointHead
        if simple_head:
            self.head = SimpleHead(dim, self.grid, num_keypoints)
        else:
            self.head = HeatmapHead(dim, num_keypoints, deconv_channels=(256, 256))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename the Hub's and the authors' keys and join projections; ours stay as they are.

        Raises:
            ValueError: a projection of the attention is missing.
        """
        return rename_keys(_with_joint_qkv(state), _KEYS, _UNUSED)

    @property
    def experts(self) -> list[ExpertMlp]:
        """The expert layers; none in ViTPose."""
        return [module for module in self.modules() if isinstance(module, ExpertMlp)]

    def set_expert(self, name: str) -> None:
        """Choose the data set whose experts are used.

        Raises:
            InputError: the model has no experts, or none of that name.
        """
        if not self.experts:
            raise InputError(f"{self.pretrained_cfg.architecture} has no experts; ViTPose+ has")
        if name not in EXPERTS:
            raise InputError(f"expert is {name!r}, expected one of {', '.join(EXPERTS)}")
        for mlp in self.experts:
            mlp.expert = EXPERTS.index(name)
        for block in self.blocks:
            if isinstance(block, Graph):
                block.forget()  # it is of another expert

    def settings(self) -> dict[str, Any]:
        experts = self.experts
        return {"expert": EXPERTS[experts[0].expert]} if experts else {}

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised map (B, D, H / 16, W / 16).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, self.in_chans, self.input_size, PATCH, like=self.patch_embed.weight)
        x = self.patch_embed(x).flatten(2).transpose(1, 2)  # (B, N, D), row-major
        x = x + (self.pos_embed[:, 1:] + self.pos_embed[:, :1])
        for block in self.blocks:
            x = run_block(block, x, recompute=self.grad_checkpointing and self.training)
        return self.norm(x).transpose(1, 2).unflatten(2, self.grid)  # (B, D, h, w)


_KEYS = [
    # names on the Hub
    ("^backbone.embeddings.patch_embeddings.projection", "patch_embed"),
    ("^backbone.embeddings.position_embeddings", "pos_embed"),
    ("^backbone.encoder.layer", "blocks"),
    ("^backbone.layernorm", "norm"),
    ("attention.output.dense", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("^head.deconv1", "head.deconv_layers.0"),
    ("^head.batchnorm1", "head.deconv_layers.1"),
    ("^head.deconv2", "head.deconv_layers.3"),
    ("^head.batchnorm2", "head.deconv_layers.4"),
    ("^head.conv", "head.final_layer"),
    # the authors' names
    ("^backbone.patch_embed.proj", "patch_embed"),
    ("^backbone.pos_embed", "pos_embed"),
    ("^backbone.blocks", "blocks"),
    ("^backbone.last_norm", "norm"),
    ("mlp.experts", "mlp.experts"),
    ("^keypoint_head", "head"),
]
_UNUSED = {
    "backbone.cls_token": "class token, no part of pose inference",
    "associate_keypoint_heads": "decoders of other data sets",
}
_PARTS = ("query", "key", "value")


def _with_joint_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the projections that files on the Hub keep apart, as timm's blocks have them."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        before, found, after = key.partition(".attention.attention.")
        part, _, kind = after.partition(".")
        if not found or part not in _PARTS:
            joined[key] = value
            continue
        name = f"{before}.attn.qkv.{kind}"
        if name not in joined:
            three = [state.get(f"{before}{found}{p}.{kind}") for p in _PARTS]
            if any(t is None for t in three):
                raise ValueError(f"{before}{found} lacks one of {', '.join(_PARTS)}")
            joined[name] = torch.cat([t for t in three if t is not None])  # (3 D, D)
    return joined


def build_pose(*, expert: str | None, **args: Any) -> ViTPose:
    """Build a network from the arguments of its architecture."""
    model = ViTPose(**args)
    if expert is not None:
        model.set_expert(expert)
    return model
