"""TokenPose and TMPose: small models, and the published outputs with every mask."""

from __future__ import annotations

from typing import Any

import torch
from goldens.compare import Golden
from goldens.fill import golden_path, make_input
from torch import Tensor, nn

SMALL = {
    "tokenpose_t_256x192": {"size": (64, 48), "depths": (2,)},
    "tmpose_b_256x192": {"size": (64, 48), "depths": (1, 1), "trunk": "hrnet_xs"},
}
FILL = True
GOLDENS = [
    "tokenpose_t_coco_256x192", "tokenpose_s_v1_coco_256x192", "tmpose_b_coco_256x192",
    "tmpose_l_d6_mpii_256x256", "tokenpose_l_d24_coco_384x288", "tmpose_l_d24_coco_256x192",
]  # fmt: skip
SLOW = {"tokenpose_l_d24_coco_384x288", "tmpose_l_d24_coco_256x192"}
IGNORED = ("indices.", "override:", ".fillpos")  # see test_tokenpose for the first two
FLOAT64, FLOAT32 = 1e-6, 2e-5
# stored heatmaps -> mask (type, ratio, positions), and whether stored indices are handed in
MASKS: dict[str, tuple[str, float, str, bool]] = {
    "heatmaps.none": ("none", 1.0, "token", False),
    "heatmaps.uniform": ("uniform", 0.6, "slot", False),
    "heatmaps.uniform.r0.4": ("uniform", 0.4, "slot", False),
    "heatmaps.uniform.tokenpos": ("uniform", 0.6, "token", False),
    "heatmaps.block": ("block", 0.6, "slot", False),
    "heatmaps.random": ("random", 0.6, "slot", True),
    "heatmaps.random.tokenpos": ("random", 0.6, "token", True),
}


def name_of(variant: str) -> str:
    """`tmpose_l_d6_mpii_256x256` -> `tmpose_l_d6_256x256.mpii`."""
    family, dataset, size = variant.rsplit("_", 2)
    return f"{family}_{size}.{dataset}"


class Stored(nn.Module):
    """In place of a trunk whose output is known, as most of the time goes into it."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output


def run(model: Any, golden: str, dtype: torch.dtype) -> dict[str, Tensor]:
    stored = Golden(golden_path("tokenpose", f"{golden}.safetensors"))
    image = make_input("image", (1, 3, *model.input_size)).to(dtype)
    trunk = model.trunk
    found = {"trunk": image if trunk is None else trunk(image)}
    found["tokens"] = model.visual_tokens(found["trunk"], None)
    model.trunk = trunk and Stored(found["trunk"])
    for name in stored.names & set(MASKS):
        kind, ratio, pos, is_given = MASKS[name]
        model.set_mask(kind, ratio, pos)
        found[name] = model(image, stored.tensors["indices.random"] if is_given else None)
    # files of TMPose hold the keypoint tokens of the uniform run
    model.set_mask(*MASKS["heatmaps.uniform" if "tmpose" in golden else "heatmaps.none"][:3])
    found["kpt_tokens"] = model.forward_features(image)
    model.trunk = trunk
    return found
