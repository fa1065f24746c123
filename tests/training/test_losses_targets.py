"""Losses and targets against formulas written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import posezoo
from posezoo.codecs import build_codec
from posezoo.training import RECIPES, gaussian_targets, heatmap_mse

HEATMAPS = [name for name, recipe in RECIPES.items() if recipe.objective == "heatmap"]


def test_heatmap_mse_and_its_gradient_are_the_formula():
    torch.manual_seed(0)
    heatmaps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    weights = torch.tensor([[1.0, 0, 1], [1, 1, 0]], dtype=torch.float64)
    heatmap_mse(heatmaps, targets, weights).backward()
    difference = (heatmaps - targets).detach()
    expected = 2 * weights[..., None, None] * difference / heatmaps.numel()
    torch.testing.assert_close(heatmaps.grad, expected, rtol=1e-12, atol=0)
    value = heatmap_mse(heatmaps, targets, weights).item()
    by_hand = sum(
        float(weights[b, k]) * float(difference[b, k, y, x]) ** 2
        for b in range(2) for k in range(3) for y in range(4) for x in range(5)
    ) / 120  # fmt: skip
    assert value == pytest.approx(by_hand, rel=1e-12)


def test_half_precision_heatmaps_are_compared_in_float32():
    heatmaps = torch.full((1, 1, 8, 8), 1e-4, dtype=torch.float16)
    loss = heatmap_mse(heatmaps, torch.zeros(1, 1, 8, 8), torch.ones(1, 1))
    assert loss.dtype == torch.float32 and loss == pytest.approx(1e-8, rel=1e-2)


def _by_hand(x: float, y: float, size: tuple[int, int], sigma: float, rounded: bool) -> np.ndarray:
    if rounded:
        x, y = math.floor(x + 0.5), math.floor(y + 0.5)
    out = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            if rounded and max(abs(row - y), abs(column - x)) > 3 * sigma:
                continue
            out[row, column] = math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * sigma**2))
    return out


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("place", [(5.5, 7.2), (0.49, 0.5), (11.9, 15.4), (-3.0, 4.0)])
def test_targets_are_gaussians(place, rounded):
    keypoints = torch.tensor([[place]], dtype=torch.float64)
    heatmaps, weights = gaussian_targets(
        keypoints, torch.ones(1, 1), (16, 12), sigma=1.5, rounded=rounded
    )
    expected = _by_hand(*place, (16, 12), 1.5, rounded)
    np.testing.assert_allclose(heatmaps[0, 0].numpy(), expected, atol=1e-6)
    assert weights.item() == 1


def test_rounded_peak_is_exactly_one_and_halves_round_up():
    heatmaps, _ = gaussian_targets(
        torch.tensor([[[3.5, 2.4999]]]), torch.ones(1, 1), (8, 8), sigma=2, rounded=True
    )
    assert heatmaps[0, 0, 2, 4] == 1


@pytest.mark.parametrize(
    ("x", "weight"), [(-6.4, 1), (-6.6, 0), (13.4, 1), (13.6, 0), (4.0, 1)]
)  # centre + 6 < 0, or centre - 6 >= 8, is wholly outside
def test_far_outside_keypoints_have_no_weight(x, weight):
    heatmaps, weights = gaussian_targets(
        torch.tensor([[[x, 4.0]]]), torch.ones(1, 1), (8, 8), sigma=2, rounded=True
    )
    assert weights.item() == weight and (weight or not heatmaps.any())


def test_unlabelled_keypoints_give_empty_targets():
    heatmaps, weights = gaussian_targets(
        torch.full((1, 2, 2), 4.0), torch.tensor([[1, 0]]), (8, 8), sigma=2, rounded=False
    )
    assert weights.tolist() == [[1, 0]] and not heatmaps[0, 1].any()


@pytest.mark.parametrize("name", HEATMAPS)
def test_targets_decode_to_the_keypoints_they_were_made_of(name):
    """Otherwise a network would be trained to be off, the more the further from the middle."""
    recipe, codec = RECIPES[name], build_codec(posezoo.get_pretrained_cfg(name))
    height, width = codec.input_size
    count, margin = len(codec.flip_indices), 20.0
    share = torch.rand(8, count, 2, generator=torch.Generator().manual_seed(0))
    keypoints = margin + share * (torch.tensor([width, height]) - 2 * margin)
    heatmaps, _ = gaussian_targets(
        codec.to_cells(keypoints), torch.ones(8, count), codec.heatmap_size,
        sigma=recipe.sigma, rounded=recipe.rounded,
    )  # fmt: skip
    found, scores = codec.decode(heatmaps)
    stride = width / codec.heatmap_size[1]
    # rounded peaks are half a cell off at most
    limit = (0.501 if recipe.rounded else 0.1) * stride
    assert (found - keypoints).abs().max() < limit
    assert scores.min() > 0.7
