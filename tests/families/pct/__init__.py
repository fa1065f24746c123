"""PCT: small models on a tiny Swin, and the published outputs of its three kinds of models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from goldens.fill import make_input
from goldens.watch import watching
from torch import Tensor

from posezoo.codecs import build_codec
from posezoo.geometry import input_to_image
from posezoo.models.pct.swin import logit_scale, swin_block
from posezoo.models.pct.tokens import features_at
from posezoo.skeletons import COCO_17

TINY = {"width": 32, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 4, 8)}
SMALL = {
    "pct_swin_base": TINY,
    "pct_tokenizer_swin_base": TINY,
    "pct_tokenizer_swin_base_woimgguide": {},
    "hmp_swin_base": TINY,
}
FILL = True
GOLDENS = [
    "pct_tokenizer_swin_base_woimgguide", "pct_swin_base", "hmp_base", "pct_tokenizer_swin_base",
    "pct_swin_base_woimgguide", "hmp_large",
]  # fmt: skip
SLOW = {"hmp_base", "pct_tokenizer_swin_base", "pct_swin_base_woimgguide", "hmp_large"}
# labels of the pose models' training, which the tokenizers cover; distances: see below
IGNORED = ("joints_in", "label_indices", "distance_gap")
FLOAT64, FLOAT32 = 1e-6, 1e-4
CENTER, BOX = np.array([[320.5, 240.25]]), np.array([[300.0, 300.0]])  # of the flip tests


def name_of(variant: str) -> str:
    return variant.replace("hmp_", "hmp_swin_")


def run(model: Any, golden: str, dtype: torch.dtype) -> dict[str, Tensor]:
    image = make_input("image", (1, 3, 256, 256)).to(dtype)
    found = {} if model.backbone is None else maps_of(model.backbone, image)
    if model.pretrained_cfg.task == "tokenizer":
        return found | run_tokenizer(model, image)
    points = named_parts(model) if golden.startswith("pct") else {}
    with watching(points) as parts:
        found["features"] = model.forward_features(image)
        output = model.forward_head(found["features"])
    codec = build_codec(model.pretrained_cfg)
    merged = codec.merge_flip(output, model(image.flip(-1)))
    found["flip_preds_image"] = to_image(*codec.decode(merged))
    if golden.startswith("hmp"):
        return found | {"heatmaps": output, "flip_heatmaps": merged}
    found["joints_out"], found["cls_logits"] = output
    found["encoding_scores"] = output.logits.amax(-1, keepdim=True)
    return found | parts


def maps_of(backbone: Any, image: Tensor) -> dict[str, Tensor]:
    """The maps (B, h, w, C) inside the backbone."""
    maps = backbone.forward_intermediates(image)
    found = {f"stage{i}": x.permute(0, 2, 3, 1) for i, x in enumerate(maps)}
    found["patch_embed"] = x = backbone.patch_embed(image)
    for i, block in enumerate(backbone.layers[0].blocks):
        if backbone.is_folded:
            x = block(x)
        else:
            x = swin_block(block, x, backbone.bias(block), logit_scale(block.attn))
        found[f"stage0_block{i}"] = x
    return found


def named_parts(model: Any) -> dict[str, Any]:
    def output(args: Any, output: Tensor) -> Tensor:
        return output

    return {
        "conv_trans": (model.head.reduce, output),
        "conv_head": (model.head.blocks, output),
        "mixer_trans": (model.head.to_tokens, output),
        "mixer0": (model.head.mixers[0], output),
        "mixer_norm": (model.head.norm, output),
        "decoder_out": (model.decoder.norm, output),
        "soft_tokens": (model.decoder, lambda args, output: args[0]),
    }


def run_tokenizer(model: Any, image: Tensor) -> dict[str, Tensor]:
    keypoints = (128 + 48 * make_input("joints", (1, 17, 2))).to(image)
    visible = make_input("visible", (1, 17)) > -0.8
    features = model.forward_features(image) if model.image_guided else None
    output = model(keypoints, visible, features)
    assert torch.equal(output.ids, model.encode(keypoints, visible, features))
    found = {
        "encoder_out": output.embeddings,
        "token_indices": output.ids,
        "joints_out": model.decode(output.ids),
    }
    if features is not None:
        found |= {"features": features, "joints_feat": features_at(features, keypoints)}
    order = list(COCO_17.flip_indices)
    mirrored = torch.stack([255 - keypoints[..., 0], keypoints[..., 1]], dim=-1)[:, order]
    features = model.forward_features(image.flip(-1)) if model.image_guided else None
    flipped = model(mirrored, visible[:, order], features).keypoints
    flipped = torch.stack([255 - flipped[..., 0], flipped[..., 1]], dim=-1)[:, order]
    found["flip_preds_image"] = to_image((output.keypoints + flipped) / 2, visible)
    return found


def to_image(keypoints: Tensor, scores: Tensor) -> Tensor:
    points = input_to_image(keypoints, CENTER, BOX, (256, 256), "mmpose0")
    return torch.cat([points, scores[..., None].to(points)], dim=-1)
