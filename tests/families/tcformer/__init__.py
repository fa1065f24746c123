"""TCFormer: small models, and the published outputs of its classifiers and its pose model."""

from __future__ import annotations

from typing import Any

import torch
from goldens.fill import make_input
from goldens.watch import watching
from torch import Tensor

SMALL = {
    "tcformer_light": {"size": (64, 64), "depths": (1, 1, 1, 1)},
    "tcformer_mta_256x192": {"size": (64, 48), "depths": (1, 1, 1, 1)},
}
FILL = False  # a bfloat16 more or less moves tokens to other clusters
GOLDENS = ["tcformer_mta_256x192", "tcformer_mta_256x192.padded", "tcformer_light", "tcformer"]
SLOW: set[str] = set()
IGNORED: tuple[str, ...] = ()
FLOAT64, FLOAT32 = 1e-6, 1e-4


def name_of(variant: str) -> str:
    if variant == "tcformer_coco_wholebody_256x192":
        return "tcformer_mta_256x192.coco_wholebody_mmpose"
    return variant


def image_of(golden: str, size: tuple[int, int]) -> Tensor:
    image = make_input("image", (1, 3, *size))
    if golden.endswith(".padded"):  # black margins, as of a box that leaves the photo
        black = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])[:, None, None]
        image[..., :64] = image[..., 208:, :] = black
    return image


def renumber(cell_token: Tensor) -> Tensor:
    """Number clusters by first occurrence in raster order."""
    number: dict[int, int] = {}
    flat = [number.setdefault(token, len(number)) for token in cell_token.flatten().tolist()]
    return torch.tensor(flat).view(cell_token.shape)


def run(model: Any, golden: str, dtype: torch.dtype) -> dict[str, Tensor]:
    def score(args: Any, output: Any) -> Tensor:
        old = args[0].regions
        return output[1].score[..., 0].gather(1, old.cell_token).unflatten(1, old.grid_size)

    def partition(args: Any, output: Any) -> Tensor:
        return renumber(output[0].regions.cell_token.unflatten(1, args[0].regions.grid_size))

    def level(i: int) -> Any:
        def take(args: Any, output: Any) -> Tensor:
            return output[i].regions.token2map(output[i].x).permute(0, 3, 1, 2)

        return take

    def after_neck(i: int) -> Any:
        return lambda args, output: level(i)(args, model.neck(output))

    points: dict[str, Any] = {}
    for i in (1, 2, 3):
        points[f"ctm{i}.score"] = model.backbone.stages[i].merge, score
        points[f"ctm{i}.partition"] = model.backbone.stages[i].merge, partition
    for i in range(4):
        points[f"stage{i + 1}.map"] = model.backbone, level(i)
    is_pose = model.pretrained_cfg.task == "pose"
    if is_pose:
        points |= {f"neck{i}.map": (model.backbone, after_neck(i)) for i in range(3)}
    with watching(points) as found:
        output = model(image_of(golden, model.pretrained_cfg.input.size).to(dtype))
    return found | {"heatmap" if is_pose else "logits": output}
