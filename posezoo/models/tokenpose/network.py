"""TokenPose, which is also TMPose where a mask leaves visual tokens out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...weights.keys import Conversion, rename_keys
from ...zoo.arguments import NUM_KEYPOINTS
from ...zoo.model import PoseModel
from ..hrnet import HRNET_S, HRNET_XS, STEM_PARTS, HRNetStem, HRNetTrunk
from ..layers import check_images, init_transformer_weights, module_list, run_block
from .masks import TokenMask, check_keep_idx, check_ratio_matters, sine_positions
from .transformer import WIDTH, Block, make_head
from .variants import MaskPos, MaskType

__all__ = ["TokenPose", "build_pose"]


class TokenPose(PoseModel):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values.

    Keypoint tokens, which are learned, and visual tokens, which are patches of the trunk's map,
    go through the transformer together; each keypoint token is then mapped to its heatmap.

    Args:
        trunk: image to feature map; None cuts patches out of the image itself.
        patch: (h, w) of a visual token in cells of the trunk's map.
        depths: layers of each stack; the tokens that leave each stack are concatenated.
        scale: factor on q . k.
    """

    positions: Tensor
    kept: Tensor

    def __init__(
        self,
        trunk: HRNetStem | None,
        *,
        input_size: tuple[int, int],
        patch: tuple[int, int],
        depths: tuple[int, ...],
        num_heads: int,
        scale: float,
        num_keypoints: int,
        in_chans: int,
        mask: TokenMask,
    ) -> None:
        super().__init__()
        stride, channels = (4, trunk.width) if trunk else (1, in_chans)
        self.input_size, self.patch, self.in_chans = input_size, patch, in_chans
        self.grid = (input_size[0] // stride // patch[0], input_size[1] // stride // patch[1])
        self.heatmap_size = (input_size[0] // 4, input_size[1] // 4)
        self.grad_checkpointing = False
        self.trunk = trunk
        self.patch_embed = nn.Linear(math.prod(patch) * channels, WIDTH)
        self.stacks = module_list(
            module_list(Block(num_heads, scale) for _ in range(depth)) for depth in depths
        )
        self.head = make_head(WIDTH * len(depths), self.heatmap_size)
        blocks = (block for stack in self.stacks for block in stack)
        for part in (self.patch_embed, *blocks, self.head):
            part.apply(init_transformer_weights)
        self.reset_head(num_keypoints)
        self.register_buffer("positions", sine_positions(self.grid, WIDTH), persistent=False)
        self._set_mask(mask)

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens before masking."""
        return self.grid[0] * self.grid[1]

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename keys of TokenPose, TMPose and PPT training files; ours stay as they are."""
        return rename_keys(
            state, _KEYS, ignore={"pos_embedding": "fixed table of positions, computed here"}
        )

    def init_non_persistent_buffers(self) -> None:
        self.positions.copy_(sine_positions(self.grid, WIDTH))
        self._set_mask(self.mask)

    def reset_head(self, size: int) -> None:
        """Replace the keypoint tokens by fresh ones; all share the map to heatmaps, which stays."""
        self.num_keypoints = NUM_KEYPOINTS.check("num_keypoints", size)
        self.keypoint_tokens = nn.Parameter(torch.empty(1, size, WIDTH))
        nn.init.trunc_normal_(self.keypoint_tokens, std=0.02)

    def init_from_imagenet(self) -> None:
        """Fill the trunk with timm's ImageNet weights of the same width, fetched by timm.

        Raises:
            InputError: the trunk is not HRNet up to stage 3; those are trained from scratch.
        """
        import timm

        if not isinstance(self.trunk, HRNetTrunk):
            raise InputError("only models with an HRNet trunk start from ImageNet weights")
        name = f"hrnet_w{self.trunk.width}.ms_in1k"
        donor = timm.create_model(name, pretrained=True, in_chans=self.in_chans)
        weights = donor.state_dict()
        self.trunk.load_state_dict({key: weights[key] for key in self.trunk.state_dict()})

    def settings(self) -> dict[str, Any]:
        """Return the mask as it is now, as arguments of `create_model`."""
        return {
            "mask_type": self.mask.type,
            "mask_ratio": self.mask.ratio,
            "mask_pos": self.mask.pos,
            "mask_eval": self.mask.in_eval,
        }

    def set_mask(
        self,
        mask_type: MaskType | None,
        mask_ratio: float | None = None,
        mask_pos: MaskPos | None = None,
        mask_eval: bool | None = None,
    ) -> None:
        """Change the mask; what is not given stays. See `TokenMask` for the words.

        Any weights can be run with any mask. Weights trained without one expect
        `mask_pos="token"`, and lose accuracy as the ratio falls.

        Raises:
            InputError: an unknown word, a ratio outside (0, 1], or one without a mask.
        """
        given = {"ratio": mask_ratio, "pos": mask_pos, "in_eval": mask_eval}
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        mask = replace(self.mask, type=mask_type, **changes)
        if mask_ratio is not None:
            check_ratio_matters(mask)
        self._set_mask(mask)

    def set_mask_ratio(self, mask_ratio: float) -> None:
        """Change the share of visual tokens that is kept.

        Raises:
            InputError: a ratio outside (0, 1], or there is no mask to change.
        """
        mask = replace(self.mask, ratio=mask_ratio)
        check_ratio_matters(mask)
        self._set_mask(mask)

    def _set_mask(self, mask: TokenMask) -> None:
        kept = mask.kept(self.num_tokens)
        device = self.positions.device
        self.register_buffer("kept", torch.tensor(kept, device=device), persistent=False)
        self.mask = mask

    def kept_cells(self) -> Tensor | None:
        """Return which visual tokens the mask keeps in evaluation, (h, w) bool; None for all."""
        if len(self.kept) == self.num_tokens or not self.mask.in_eval:
            return None
        cells = torch.zeros(self.num_tokens, dtype=torch.bool, device=self.kept.device)
        return cells.index_fill(0, self.kept, True).view(self.grid)

    def tokens_to_keep(self, batch: int, keep_idx: Tensor | None) -> Tensor | None:
        """Return the tokens to keep, (n,) or (B, n), or None for all."""
        count = len(self.kept)
        if keep_idx is not None:
            check_keep_idx(keep_idx, batch, self.num_tokens)
            keep = keep_idx.to(self.positions.device)
        elif count == self.num_tokens or not (self.training or self.mask.in_eval):
            return None
        elif self.training and self.mask.type == "random":
            noise = torch.rand(batch, self.num_tokens, device=self.positions.device)
            keep = noise.argsort(dim=1)[:, :count]  # (B, n)
        else:
            return self.kept
        return keep if self.mask.pos == "slot" else keep.sort(dim=-1).values

    def visual_tokens(self, maps: Tensor, keep: Tensor | None) -> Tensor:
        """Cut the map (B, C, h, w) into patches and embed those to keep: (B, n, D).

        A patch is flattened by row, column, channel, the channel fastest.
        """
        patches = maps.unflatten(3, (-1, self.patch[1])).unflatten(2, (-1, self.patch[0]))
        patches = patches.permute(0, 2, 4, 3, 5, 1)  # (B, rows, columns, p1, p2, C)
        if keep is None:
            return self.patch_embed(patches.flatten(3).flatten(1, 2))
        row, column = keep // self.grid[1], keep % self.grid[1]
        if keep.ndim == 1:
            patches = patches[:, row, column]  # (B, n, p1, p2, C)
        else:
            sample = torch.arange(len(maps), device=maps.device)[:, None]
            patches = patches[sample, row, column]  # (B, n, p1, p2, C)
        return self.patch_embed(patches.flatten(2))

    def forward_features(self, x: Tensor, keep_idx: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> keypoint tokens (B, K, D * stacks).

        Args:
            x: normalised images.
            keep_idx: visual tokens to keep instead of the mask's choice, int64 (n,) or (B, n)
                in raster order of the grid. Their order matters only with `mask_pos="slot"`.
                Checking its values waits for the device that holds them.

        Raises:
            InputError: wrong shape or type of either; indices out of range or repeated.
        """
        check_images(x, self.in_chans, self.input_size, 1, like=self.keypoint_tokens)
        keep = self.tokens_to_keep(x.shape[0], keep_idx)
        visual = self.visual_tokens(x if self.trunk is None else self.trunk(x), keep)
        if keep is None or self.mask.pos == "slot":
            positions = self.positions[: visual.shape[1]]  # (n, D)
        else:
            positions = self.positions[keep]  # (n, D) or (B, n, D)
        keypoint = self.keypoint_tokens.expand(x.shape[0], -1, -1)
        tokens = torch.cat([keypoint, visual + positions], dim=1)  # (B, K + n, D)
        # keypoint tokens have no position
        positions = F.pad(positions, (0, 0, self.num_keypoints, 0))
        last = self.stacks[-1][-1]
        outputs = []
        for stack in self.stacks:
            for i, block in enumerate(stack):
                if i:  # Quirk: positions are added again, but not where a stack begins
                    tokens = tokens + positions
                count = self.num_keypoints if block is last else None
                recompute = self.grad_checkpointing and self.training
                tokens = run_block(block, tokens, count, recompute=recompute)
            outputs.append(tokens[:, : self.num_keypoints])
        return torch.cat(outputs, dim=-1)

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, K, D * stacks) -> heatmaps (B, K, H / 4, W / 4)."""
        return self.head(features).unflatten(-1, self.heatmap_size)

    def forward(self, x: Tensor, keep_idx: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4); see `forward_features`."""
        return self.forward_head(self.forward_features(x, keep_idx))


# authors' names to ours: first the parts, then the inside of a layer
_KEYS = [
    ("^pre_feature", "trunk"),
    *((f"^features.{name}", f"trunk.{name}") for name in STEM_PARTS),
    ("^transformer", ""),
    ("^features", ""),
    ("^transformer.layers", "stacks.0"),
    *((f"^transformer{i + 1}.layers", f"stacks.{i}") for i in range(3)),
    ("^keypoint_token", "keypoint_tokens"),
    ("^patch_to_embedding", "patch_embed"),
    ("^mlp_head", "head"),
    ("0.fn.norm", "norm1"),
    ("0.fn.fn.to_qkv", "attn.qkv"),
    ("0.fn.fn.to_out.0", "attn.proj"),
    ("0.norm", "norm1"),  # PPT has one wrapper less around attention
    ("0.fn.to_qkv", "attn.qkv"),
    ("0.fn.to_out.0", "attn.proj"),
    ("1.fn.norm", "norm2"),
    ("1.fn.fn.net.0", "mlp.fc1"),
    ("1.fn.fn.net.3", "mlp.fc2"),
]


def make_trunk(trunk: str | None, in_chans: int) -> HRNetStem | None:
    """Return the "stem" or, up to stage 3, "hrnet_xs", "hrnet_s", "hrnet_w32" or "hrnet_w48"."""
    if trunk is None:
        return None
    if trunk == "stem":
        return HRNetStem("hrnet_w32", in_chans)
    narrow = {"hrnet_xs": HRNET_XS, "hrnet_s": HRNET_S}
    return HRNetTrunk(narrow.get(trunk, trunk), in_chans)


def build_pose(
    *,
    trunk: str | None,
    input_size: tuple[int, int],
    patch: tuple[int, int],
    depths: tuple[int, ...],
    num_heads: int,
    scale_width: int,
    num_keypoints: int,
    in_chans: int,
    mask_type: MaskType,
    mask_ratio: float,
    mask_pos: MaskPos,
    mask_eval: bool,
) -> TokenPose:
    """Build a model; see `make_trunk`, `TokenPose` and `TokenMask` for the arguments.

    Args:
        scale_width: q . k is divided by the root of it.
    """
    return TokenPose(
        make_trunk(trunk, in_chans),
        input_size=input_size,
        patch=patch,
        depths=depths,
        num_heads=num_heads,
        scale=scale_width**-0.5,
        num_keypoints=num_keypoints,
        in_chans=in_chans,
        mask=TokenMask(type=mask_type, ratio=mask_ratio, pos=mask_pos, in_eval=mask_eval),
    )
