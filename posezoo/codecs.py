"""Network output to keypoints in input pixels, and the merge of the flip test.

Everything stays on the device of the output and never waits for it. Half-precision heatmaps
are decoded in float32.

What a keypoint score means depends on the codec; compare scores of one model only.

* `HeatmapCodec`: the height of the heatmap's peak, that is of one cell, before any refinement;
  with flip test, of the mean of both heatmaps. Networks are trained towards peaks of 1, so that it
  is mostly between 0 and 1, near 0 where nothing was found; it may exceed 1 and, in an empty map,
  be negative. It says how sure the network is that the keypoint is there, hidden or not.
* `RegressionCodec`: one number for all keypoints of a person, the mean of the largest logits of
  its tokens, often 5 to 20. It ranks persons; it says nothing about single keypoints, and a
  threshold like 0.3 lets all of them through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .geometry import CropConvention, get_convention
from .zoo.config import PretrainedCfg

__all__ = ["Codec", "HeatmapCodec", "RegressionCodec", "RegressionOutput", "build_codec"]

Refine = Literal["quarter", "dark", "dark_udp", "none"]

_LOG_FLOOR = 1e-10  # smallest heatmap value before the logarithm of DARK
_UDP_RANGE = (0.001, 50.0)  # of heatmap values before the logarithm in UDP
_UDP_RIDGE = float(torch.finfo(torch.float32).eps)


class Codec(Protocol):
    """What a predictor needs to know about a network's output."""

    def decode(self, output: Any) -> tuple[Tensor, Tensor]:
        """Return keypoints `(B, K, 2)` in input pixels and scores `(B, K)`."""

    def merge_flip(self, output: Any, output_flipped: Any) -> Any:
        """Average the output with that of the mirrored input, mirrored back."""


@dataclass(frozen=True, kw_only=True)
class HeatmapCodec:
    """One heatmap `(h, w)` per keypoint; the peak is the keypoint, its height the score.

    `refine` says how to get below one cell: "quarter" moves the peak a quarter cell towards the
    larger neighbour, "dark" is the Taylor step of DARK (arXiv:1910.06278) on the heatmap
    blurred with a Gaussian of `blur_kernel` cells, "dark_udp" its form in UDP (arXiv:1911.07524).
    `geometry` is the crop convention or its name; it decides about borders, empty maps and the
    step from cells to pixels. With `shift_heatmap` the mirrored heatmap moves one cell to the
    right before averaging.

    Raises:
        InputError: sizes, kernel or flip indices that cannot be right.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    geometry: str | CropConvention
    refine: Refine
    flip_indices: tuple[int, ...]
    blur_kernel: int | None = None
    shift_heatmap: bool = False

    def __post_init__(self) -> None:
        _check_size("input_size", self.input_size)
        _check_size("heatmap_size", self.heatmap_size)
        _check_flip_indices(self.flip_indices)
        object.__setattr__(self, "geometry", get_convention(self.geometry))
        if self.refine not in get_args(Refine):
            raise InputError(
                f"refine is {self.refine!r}, expected one of {', '.join(get_args(Refine))}"
            )
        if self.refine in ("dark", "dark_udp"):
            _check_kernel(self.blur_kernel, self.heatmap_size)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return keypoints `(B, K, 2)` in input pixels and scores `(B, K)` of `(B, K, h, w)`.

        A map without a positive value puts its keypoint at the convention's `empty_cell`, in the
        top left corner. The score of a map with NaN is NaN.

        Raises:
            InputError: another number of heatmaps or another size.
        """
        expected = (len(self.flip_indices), *self.heatmap_size)
        if output.shape[1:] != expected:
            raise InputError(
                f"heatmaps have shape {tuple(output.shape)}, expected (B, {expected[0]}, "
                f"{expected[1]}, {expected[2]}): the input was not {self.input_size}, or the "
                "codec belongs to another model"
            )
        heatmaps = _upcast(output)
        cells, scores = _peaks(heatmaps)
        if self.refine == "quarter":
            offsets = _quarter_offsets(heatmaps, cells, alone=self.convention.quarter_step_per_axis)
        elif self.refine == "dark" and self.blur_kernel:
            offsets = _dark_offsets(_log_blurred(heatmaps, self.blur_kernel), cells)
        elif self.refine == "dark_udp" and self.blur_kernel:
            offsets = _dark_udp_offsets(heatmaps, self.blur_kernel, cells)
        else:
            offsets = torch.zeros_like(scores)[..., None]
        positive = ~(scores <= 0)[..., None]  # NaN counts as found, so that it stays visible
        found = torch.where(positive, cells + offsets, self.convention.empty_cell)
        return self.convention.rescale(found, self.heatmap_size, self.input_size), scores

    def merge_flip(self, output: Tensor, output_flipped: Tensor) -> Tensor:
        """Average heatmaps `(B, K, h, w)` with those of the mirrored input."""
        channels = _upcast(output_flipped).flip(-1).unbind(1)
        mirrored = torch.stack([channels[i] for i in self.flip_indices], dim=1)
        if self.shift_heatmap:
            mirrored = torch.cat([mirrored[..., :1], mirrored[..., :-1]], dim=-1)
        return (_upcast(output) + mirrored) * 0.5

    def to_cells(self, points: Tensor) -> Tensor:
        """Turn input pixels `(..., 2)` into heatmap cells (x, y), where `decode` finds them."""
        return self.convention.rescale(points, self.input_size, self.heatmap_size)

    @property
    def convention(self) -> CropConvention:
        """The crop convention, which `geometry` may have given by name."""
        return get_convention(self.geometry)


class RegressionOutput(NamedTuple):
    """Merged output of a network that regresses keypoints by way of tokens.

    `keypoints (B, K, 2)` in input pixels; `logits (B, T, 1)`, the largest logit of each token.
    """

    keypoints: Tensor
    logits: Tensor


class _TokenOutput(Protocol):
    """Keypoints `(B, K, 2)` in input pixels and class logits `(B, T, V)` of the tokens."""

    @property
    def keypoints(self) -> Tensor: ...
    @property
    def logits(self) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class RegressionCodec:
    """Keypoints straight from the network, scored by the token logits (PCT).

    The score is the mean over tokens of the largest logit, the same for all keypoints of a
    person; it is no probability and typically well above 1. The model's output has one:
    `PCTOutput.probability()`.

    Raises:
        InputError: a size or flip indices that cannot be right.
    """

    input_size: tuple[int, int]
    flip_indices: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_size("input_size", self.input_size)
        _check_flip_indices(self.flip_indices)

    def decode(self, output: _TokenOutput) -> tuple[Tensor, Tensor]:
        """Return keypoints `(B, K, 2)` in input pixels and scores `(B, K)`.

        Raises:
            InputError: another number of keypoints.
        """
        self._check(output)
        scores = _upcast(output.logits).amax(-1).mean(-1, keepdim=True)  # (B, 1)
        return _upcast(output.keypoints), scores.expand(output.keypoints.shape[:2])

    def merge_flip(self, output: _TokenOutput, output_flipped: _TokenOutput) -> RegressionOutput:
        """Average keypoints with those of the mirrored input, and the largest logits.

        Raises:
            InputError: another number of keypoints.
        """
        self._check(output)
        self._check(output_flipped)
        joints = _upcast(output_flipped.keypoints).unbind(1)
        mirrored = torch.stack([joints[i] for i in self.flip_indices], dim=1)
        x, y = mirrored.unbind(-1)
        mirrored = torch.stack([self.input_size[1] - 1 - x, y], dim=-1)
        best, best_flipped = (
            _upcast(out.logits).amax(-1, keepdim=True) for out in (output, output_flipped)
        )  # (B, T, 1)
        return RegressionOutput(
            keypoints=(_upcast(output.keypoints) + mirrored) * 0.5,
            logits=(best + best_flipped) * 0.5,
        )

    def _check(self, output: _TokenOutput) -> None:
        shape, count = tuple(output.keypoints.shape), len(self.flip_indices)
        if shape[1:] != (count, 2):
            raise InputError(
                f"keypoints have shape {shape}, expected (B, {count}, 2); "
                "the codec belongs to another model"
            )


def build_codec(cfg: PretrainedCfg) -> Codec:
    """Return the codec of a pose configuration.

    Raises:
        InputError: the configuration is not one of a pose model, or incomplete.
    """
    decode = cfg.decode
    if decode is None:
        raise InputError(f"{cfg.name!r} is a {cfg.task} model; only pose models have a codec")
    flip_indices = cfg.skeleton.flip_indices
    if decode.codec == "regression":
        return RegressionCodec(input_size=cfg.input.size, flip_indices=flip_indices)
    if decode.heatmap_size is None or cfg.input.geometry is None:
        raise InputError(f"{cfg.name!r} has a heatmap codec and needs heatmap_size and geometry")
    return HeatmapCodec(
        input_size=cfg.input.size,
        heatmap_size=decode.heatmap_size,
        geometry=cfg.input.geometry,
        refine=decode.refine,
        flip_indices=flip_indices,
        blur_kernel=decode.blur_kernel,
        shift_heatmap=decode.shift_heatmap,
    )


def _check_size(name: str, size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 2:
        raise InputError(f"{name} is {size!r}, expected (H, W) of at least 2")


def _check_kernel(size: int | None, heatmap_size: tuple[int, int]) -> None:
    if size is None or size < 3 or size % 2 == 0 or size // 2 >= min(heatmap_size):
        raise InputError(
            f"blur_kernel is {size!r}; refine='dark' and 'dark_udp' need an odd number of cells "
            f"from 3 on that fits into a heatmap of {heatmap_size} (11 for sigma 2, 17 for 3)"
        )


def _check_flip_indices(indices: tuple[int, ...]) -> None:
    count = len(indices)
    if sorted(indices) != list(range(count)) or any(indices[j] != i for i, j in enumerate(indices)):
        raise InputError(
            f"flip_indices {indices} do not swap keypoints in pairs; use Skeleton.flip_indices"
        )


def _upcast(tensor: Tensor) -> Tensor:
    """Return half precision as float32, others as they are."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells (x, y) of the maxima `(B, K, 2)` and their values `(B, K)`.

    torch.argmax promises the first of equal maxima, torch.max over a dimension does not.
    """
    flat = heatmaps.flatten(2)  # (B, K, h * w)
    index = flat.argmax(-1, keepdim=True)
    scores = flat.gather(-1, index)[..., 0]
    width = heatmaps.shape[-1]
    cells = torch.cat([index % width, index.div(width, rounding_mode="floor")], dim=-1)
    return cells, scores


def _neighbours(heatmaps: Tensor, cells: Tensor, *steps: tuple[int, int]) -> list[Tensor]:
    """Read `(B, K)` values at `cells` plus each step (x, y); steps over the edge stay on it."""
    height, width = heatmaps.shape[-2:]
    x, y = cells.unbind(-1)
    indices = [
        (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dx, dy in steps
    ]
    return list(heatmaps.flatten(2).gather(-1, torch.stack(indices, -1)).unbind(-1))


def _quarter_offsets(heatmaps: Tensor, cells: Tensor, *, alone: bool) -> Tensor:
    """Return steps `(B, K, 2)` of a quarter cell towards the larger neighbour.

    An axis is left alone next to the border; unless `alone`, then neither axis moves.

    Quirk: index 1 counts as border, index size - 2 does not.
    """
    right, left, below, above = _neighbours(heatmaps, cells, (1, 0), (-1, 0), (0, 1), (0, -1))
    height, width = heatmaps.shape[-2:]
    x, y = cells.unbind(-1)
    inside_x, inside_y = (x > 1) & (x < width - 1), (y > 1) & (y < height - 1)
    if alone:
        may_x = inside_x & (y > 0)
        may_y = inside_y & (x > 0)
    else:
        may_x = may_y = inside_x & inside_y
    return 0.25 * torch.stack(
        [torch.sign(right - left) * may_x, torch.sign(below - above) * may_y], dim=-1
    )


def _gaussian(size: int) -> list[float]:
    """Return the 1-D kernel that OpenCV uses for a `size` without a given sigma."""
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return [weight / sum(weights) for weight in weights]


def _log_blurred(heatmaps: Tensor, kernel_size: int) -> Tensor:
    """Blur `(B, K, h, w)` with zeros around it, restore each maximum, take the logarithm."""
    reach = kernel_size // 2
    blurred = _blurred(F.pad(heatmaps, (reach,) * 4), kernel_size)
    restored = blurred * (heatmaps.amax((-2, -1)) / blurred.amax((-2, -1)))[..., None, None]
    return restored.clamp(min=_LOG_FLOOR).log()


def _blurred(padded: Tensor, kernel_size: int) -> Tensor:
    """Blur maps `(B, K, h + k - 1, w + k - 1)` to `(B, K, h, w)`.

    The blur is a sum of shifted copies: a convolution would run in TF32 or under autocast in
    half precision, too coarse for the logarithm's derivatives.
    """
    kernel = _gaussian(kernel_size)
    for dim in (-1, -2):
        size = padded.shape[dim] - kernel_size + 1
        parts = [padded.narrow(dim, start, size) for start in range(kernel_size)]
        padded = torch.zeros_like(parts[0])
        for part, weight in zip(parts, kernel):
            padded.add_(part, alpha=weight)
    return padded


def _dark_offsets(logs: Tensor, cells: Tensor) -> Tensor:
    """Return the Newton steps `(B, K, 2)` to the maximum of the log heatmaps (DARK, eq. 6-9).

    Maxima within two cells of the border, or with a singular Hessian, do not move.
    """
    here, right, left, below, above = _neighbours(
        logs, cells, (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)
    )
    right2, left2, below2, above2 = _neighbours(logs, cells, (2, 0), (-2, 0), (0, 2), (0, -2))
    se, ne, sw, nw = _neighbours(logs, cells, (1, 1), (1, -1), (-1, 1), (-1, -1))
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxx, dyy = 0.25 * (right2 - 2 * here + left2), 0.25 * (below2 - 2 * here + above2)
    dxy = 0.25 * (se - ne - sw + nw)
    determinant = dxx * dyy - dxy * dxy
    height, width = logs.shape[-2:]
    x, y = cells.unbind(-1)
    may = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (determinant != 0)
    divisor = torch.where(may, determinant, 1.0)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / divisor[..., None]
    return torch.where(may[..., None], step, 0.0)


def _dark_udp_offsets(heatmaps: Tensor, kernel_size: int, cells: Tensor) -> Tensor:
    """Return the Newton steps `(B, K, 2)` as UDP takes them.

    The blur mirrors the map at its edges, derivatives are those of neighbouring cells, maxima at
    the border move too, and the Hessian is made regular by a tiny multiple of the identity.
    """
    reach = kernel_size // 2
    blurred = _blurred(F.pad(heatmaps, (reach,) * 4, mode="reflect"), kernel_size)
    logs = blurred.clamp(*_UDP_RANGE).log()
    here, right, left, below, above = _neighbours(
        logs, cells, (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)
    )
    southeast, northwest = _neighbours(logs, cells, (1, 1), (-1, -1))
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxx = right - 2 * here + left + _UDP_RIDGE
    dyy = below - 2 * here + above + _UDP_RIDGE
    dxy = 0.5 * (southeast - right - below + 2 * here - left - above + northwest)
    determinant = dxx * dyy - dxy * dxy
    return torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / determinant[..., None]
