"""UniFormer: small models, and the published outputs of two code bases."""

from __future__ import annotations

from typing import Any

import torch
from goldens.fill import make_input
from goldens.watch import watching
from torch import Tensor

from posezoo.codecs import build_codec

SMALL = {
    "uniformer_s_256x192": {"size": (64, 64), "depths": (1, 1, 1, 1)},
    "uniformer_small_plus": {"size": (64, 64), "depths": (1, 1, 1, 1)},
}
FILL = True
GOLDENS = [
    "uniformer_s_256x192", "uniformer_small_plus", "uniformer_b_256x192", "uniformer_s_448x320",
    "uniformer_small", "uniformer_s_256x192_official",
]  # fmt: skip
SLOW = {"uniformer_b_256x192", "uniformer_s_448x320"}
IGNORED: tuple[str, ...] = ()
FLOAT64, FLOAT32 = 1e-6, 1e-4


def name_of(variant: str) -> str:
    official = "uniformer_s_256x192_official"
    return "uniformer_s_256x192.coco_official" if variant == official else variant


def run(model: Any, golden: str, dtype: torch.dtype) -> dict[str, Tensor]:
    def nchw(args: Any, output: Tensor) -> Tensor:
        return output.permute(0, 3, 1, 2)

    def same(args: Any, output: Tensor) -> Tensor:
        return output

    points: dict[str, Any] = {}
    for i, stage in enumerate(model.backbone.stages, 1):
        points[f"stage{i}"] = stage, nchw
        points[f"patch_embed{i}"] = stage.patch_embed, nchw
        points[f"blocks{i}.0"] = stage.blocks[0], nchw
        if i > 2:
            points[f"blocks{i}.0.attn"] = stage.blocks[0].attn, same
    is_pose = model.pretrained_cfg.task == "pose"
    if is_pose:
        points["norm4"] = model.backbone.stages[3].norm, nchw
        for i in (2, 5, 8):
            points[f"head.deconv_layers.{i}"] = model.head.deconv_layers[i], same
    else:
        points["norm"] = model.norm, same
    image = make_input("image", (1, 3, *model.pretrained_cfg.input.size)).to(dtype)
    with watching(points) as found:
        output = model(image)
    if not is_pose:
        return found | {"logits": output}
    codec = build_codec(model.pretrained_cfg)
    merged = codec.merge_flip(output, model(image.flip(-1)))
    points, scores = codec.decode(merged)
    return found | {
        "heatmaps": output, "heatmaps_flip_merged": merged, "keypoints": points, "scores": scores,
    }  # fmt: skip
