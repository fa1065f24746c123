"""ViTPose: small models, and the outputs of the implementation in the package transformers."""

from __future__ import annotations

from typing import Any

import torch
from goldens.fill import make_input
from goldens.watch import watching
from torch import Tensor

from posezoo.models.vitpose.variants import EXPERTS

SMALL = {
    "vitpose_b_simple_256x192": {"size": (64, 48), "dim": 48, "depth": 2, "num_heads": 2},
    "vitpose_plus_s_256x192": {
        "size": (64, 48), "dim": 48, "depth": 2, "num_heads": 2, "expert_dim": 12,
    },
}  # fmt: skip
FILL = True
GOLDENS = [
    "vitpose_plus_s_256x192", "vitpose_b_simple_256x192", "vitpose_b_256x192",
    "vitpose_plus_b_256x192", "vitpose_plus_l_256x192", "vitpose_plus_h_256x192",
]  # fmt: skip
SLOW = set(GOLDENS[2:])
IGNORED: tuple[str, ...] = ()
FLOAT64, FLOAT32 = 1e-9, 1e-4


def name_of(variant: str) -> str:
    return variant


def run(model: Any, golden: str, dtype: torch.dtype) -> dict[str, Tensor]:
    image = make_input("image", (1, 3, 256, 192)).to(dtype)
    points = {name: (module, lambda args, output: output) for name, module in model.named_modules()}
    heatmaps = {}
    with watching(points) as found:
        for i, expert in enumerate(EXPERTS if model.experts else [None]):
            if expert is not None:
                model.set_expert(expert)
            heatmaps[f"heatmaps.{i}"] = model(image)
    return found | heatmaps
