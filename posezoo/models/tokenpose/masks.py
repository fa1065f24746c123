"""Which visual tokens of TokenPose and TMPose take part, and the positions they have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from .variants import MASK_ARGS, MaskPos, MaskType

__all__ = ["TokenMask", "check_keep_idx", "check_ratio_matters", "sine_positions"]


def sine_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Return the fixed table of positions (h * w, dim) for a grid (h, w), row-major, float32.

    The first half of the channels encodes the row, the second half the column, as sine and
    cosine in turn (DETR, arXiv 2005.12872, appendix A.4). Rows and columns count from 1 and
    are scaled to 2 pi.
    """
    exponent = 2 * torch.div(torch.arange(dim // 2), 2, rounding_mode="floor") / (dim // 2)
    wavelengths = 10000**exponent  # (dim / 2,)

    def encode(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, dtype=torch.float32)
        angles = (steps / (count + 1e-6) * (2 * math.pi))[:, None] / wavelengths
        waves = [angles[:, 0::2].sin(), angles[:, 1::2].cos()]
        return torch.stack(waves, dim=-1).flatten(1)  # (count, dim / 2)

    height, width = grid
    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (h * w, dim)


@dataclass(frozen=True, kw_only=True)
class TokenMask:
    """Which visual tokens take part, and which positions they get.

    Args:
        type: "none" or None keeps all; "uniform" evenly spaced ones; "random" draws; "zone" the
            beginning of each quarter of the tokens in raster order (repaired: the published code
            of it cannot run); "block" the beginning of all (four quarters of the count, as
            published: the bottom of the crop is dropped).
        ratio: share of the tokens that is kept, in (0, 1]; rounded down to whole tokens.
        pos: "token", each token has its own position; or "slot", the j-th kept token has the
            j-th position, wherever it came from, as in the published code.
        in_eval: whether the mask applies in evaluation too.

    Raises:
        InputError: an unknown word, a ratio outside (0, 1], or `in_eval` is not a bool.
    """

    type: MaskType | None = "none"
    ratio: float = 1.0
    pos: MaskPos = "token"
    in_eval: bool = True

    def __post_init__(self) -> None:
        for field, argument in (
            ("type", "mask_type"),
            ("ratio", "mask_ratio"),
            ("pos", "mask_pos"),
            ("in_eval", "mask_eval"),
        ):
            value = MASK_ARGS[argument].check(argument, getattr(self, field))
            object.__setattr__(self, field, value)

    def count(self, num_tokens: int) -> int:
        """Return how many of `num_tokens` are kept.

        Raises:
            InputError: not even one.
        """
        if self.type == "none" or self.ratio == 1:
            return num_tokens
        parts = 4 if self.type in ("zone", "block") else 1
        count = parts * int(num_tokens * self.ratio / parts)
        if count == 0:
            raise InputError(
                f"mask_ratio {self.ratio} keeps none of {num_tokens} tokens with mask_type "
                f"{self.type!r}; take at least {parts / num_tokens:.3g}"
            )
        return count

    def kept(self, num_tokens: int) -> list[int]:
        """Return the kept tokens; for "random" a fixed list, a beginning of one permutation."""
        count = self.count(num_tokens)
        if count == num_tokens or self.type == "block":
            return list(range(count))
        if self.type == "uniform":  # numpy.linspace(0, num_tokens - 1, count, dtype=int)
            step = (num_tokens - 1) / max(count - 1, 1)
            inner = [int(i * step) for i in range(count - 1)]
            return [*inner, num_tokens - 1 if count > 1 else 0]
        if self.type == "zone":
            starts = [zone * num_tokens // 4 for zone in range(4)]
            return [start + i for start in starts for i in range(count // 4)]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randperm(num_tokens, generator=generator, device="cpu")[:count].tolist()
        return drawn if self.pos == "slot" else sorted(drawn)


def check_ratio_matters(mask: TokenMask) -> None:
    """Raise InputError for a ratio below 1 without a mask, which would be ignored."""
    if mask.type == "none" and mask.ratio != 1:
        raise InputError(
            f"mask_ratio {mask.ratio} without a mask; choose one with set_mask('uniform', ratio)"
        )


def check_keep_idx(keep_idx: Tensor, batch: int, num_tokens: int) -> None:
    """Check that `keep_idx`, (n,) or (batch, n) int64, names tokens once each.

    Raises:
        InputError: wrong type or shape; indices out of range or repeated.
    """
    if not isinstance(keep_idx, Tensor) or keep_idx.dtype != torch.int64:
        kind = keep_idx.dtype if isinstance(keep_idx, Tensor) else type(keep_idx).__name__
        raise InputError(f"keep_idx must be an int64 tensor, got {kind}")
    if keep_idx.ndim not in (1, 2) or not keep_idx.numel():
        raise InputError(f"keep_idx must be (n,) or (B, n), got shape {tuple(keep_idx.shape)}")
    if keep_idx.ndim == 2 and len(keep_idx) != batch:
        raise InputError(f"keep_idx has {len(keep_idx)} rows for a batch of {batch}")
    if torch.compiler.is_compiling():
        return  # the values are not known while a graph is traced
    ordered = keep_idx.sort(dim=-1).values
    if ordered.min() < 0 or ordered.max() >= num_tokens:
        raise InputError(
            f"keep_idx must be from 0 to {num_tokens - 1}, got {int(ordered.min())} to "
            f"{int(ordered.max())}"
        )
    if (ordered.diff(dim=-1) == 0).any():
        raise InputError("keep_idx names a token twice; give each token at most once")
