"""PCT and its heatmap models against the outputs of the published implementation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from goldens.compare import Golden, check_conversion
from goldens.fill import make_input, make_tensor, manifests
from torch import Tensor

import posezoo
from posezoo.codecs import build_codec
from posezoo.geometry import input_to_image
from posezoo.models.pct import swin
from posezoo.models.pct.tokenizer import TokenizerOutput, features_at
from posezoo.skeletons import COCO_17

MANIFESTS = manifests("pct")
TOLERANCES = [
    pytest.param(torch.float64, 1e-6, id="f64"),
    pytest.param(torch.float32, 1e-4, id="f32"),
]
CENTER, BOX = np.array([[320.5, 240.25]]), np.array([[300.0, 300.0]])  # of the flip tests


def _name(variant: str) -> str:
    return variant.replace("hmp_", "hmp_swin_")


@functools.cache
def _tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    return make_tensor(key, shape)


def _model(variant: str, dtype: torch.dtype) -> torch.nn.Module:
    """The variant with stand-in weights; what inference ignores is not even generated."""
    manifest = MANIFESTS[variant]
    needed = {
        key: spec
        for key, spec in manifest.items()
        if spec["dtype"].startswith("float")
        and "derived" not in spec
        and not (variant.startswith("pct_swin") and key.startswith("extra_backbone"))
    }
    state = {key: _tensor(key, tuple(spec["shape"])) for key, spec in needed.items()}
    model = posezoo.create_model(_name(variant))
    posezoo.load_checkpoint(model, state)
    return model.to(dtype)


def _watch(module: torch.nn.Module, found: dict[str, Tensor], name: str, at_input=False) -> None:
    """Keep the output (or input) of a module's first call under the name of the golden."""

    def hook(module, args, output):
        found.setdefault(name, args[0] if at_input else output)

    module.register_forward_hook(hook)


def _watch_backbone(backbone: torch.nn.Module, monkeypatch) -> dict[str, Tensor]:
    """Collect the maps (B, H, W, C) inside the next forward under the names of the goldens."""
    found: dict[str, Tensor] = {}
    names = {
        block: [f"stage0_block{j}"] * (i == 0) + [f"stage{i}"] * (j == len(stage.blocks) - 1)
        for i, stage in enumerate(backbone.layers)
        for j, block in enumerate(stage.blocks)
    }
    run = swin.swin_block

    def recording(block, x, bias):
        y = run(block, x, bias)
        for name in names[block]:
            found.setdefault(name, y)
        return y

    monkeypatch.setattr(swin, "swin_block", recording)
    _watch(backbone.patch_embed, found, "patch_embed")
    return found


def _image(dtype: torch.dtype) -> Tensor:
    return make_input("image", (1, 3, 256, 256)).to(dtype)


def _to_image(keypoints: Tensor, scores: Tensor) -> Tensor:
    points = input_to_image(keypoints, CENTER, BOX, (256, 256), "mmpose0")
    return torch.cat([points, scores[..., None].to(points)], dim=-1)


def _flip_test(model: torch.nn.Module, image: Tensor, output) -> tuple[Tensor, Tensor]:
    codec = build_codec(model.pretrained_cfg)
    merged = codec.merge_flip(output, model(image.flip(-1)))
    return merged, _to_image(*codec.decode(merged))


@pytest.mark.parametrize("variant", ["hmp_base", pytest.param("hmp_large", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@torch.inference_mode()
def test_heatmap_model_equals_the_published_one(variant, dtype, tolerance, monkeypatch):
    model = _model(variant, dtype)
    found = _watch_backbone(model.backbone, monkeypatch)
    image = _image(dtype)
    found["features"] = model.forward_features(image)
    found["heatmaps"] = model.forward_head(found["features"])
    found["flip_heatmaps"], found["flip_preds_image"] = _flip_test(model, image, found["heatmaps"])
    Golden("pct", variant).check(found, tolerance)


@pytest.mark.parametrize("variant", ["pct_swin_base", "pct_swin_base_woimgguide"])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@torch.inference_mode()
def test_pose_model_equals_the_published_one(variant, dtype, tolerance, monkeypatch):
    model = _model(variant, dtype)
    golden = Golden("pct", variant)
    found = _watch_backbone(model.backbone, monkeypatch)
    names = {
        "conv_trans": model.head.reduce,
        "conv_head": model.head.blocks,
        "mixer_trans": model.head.to_tokens,
        "mixer0": model.head.mixers[0],
        "mixer_norm": model.head.norm,
        "decoder_out": model.decoder.norm,
    }
    for name, module in names.items():
        _watch(module, found, name)
    _watch(model.decoder, found, "soft_tokens", at_input=True)
    image = _image(dtype)
    found["features"] = model.forward_features(image)
    output = model.forward_head(found["features"])
    found["joints_out"], found["cls_logits"] = output
    found["encoding_scores"] = output.logits.amax(-1, keepdim=True)
    found["flip_preds_image"] = _flip_test(model, image, output)[1]
    labelled = {"joints_in", "label_indices"}  # of training, covered by the tokenizers
    golden.tensors = {k: v for k, v in golden.tensors.items() if k.split(".")[0] not in labelled}
    golden.check(found, tolerance)


def _joints() -> tuple[Tensor, Tensor]:
    joints = 128 + 48 * make_input("joints", (1, 17, 2))
    return joints, make_input("visible", (1, 17)) > -0.8


def _tokenizer_run(model, keypoints, visible, image) -> tuple[TokenizerOutput, Tensor | None]:
    features = model.forward_features(image) if model.image_guided else None
    return model(keypoints, visible, features), features


@pytest.mark.parametrize(
    "variant", ["pct_tokenizer_swin_base", "pct_tokenizer_swin_base_woimgguide"]
)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@torch.inference_mode()
def test_tokenizer_equals_the_published_one(variant, dtype, tolerance, monkeypatch):
    model = _model(variant, dtype)
    golden = Golden("pct", variant)
    found = _watch_backbone(model.backbone, monkeypatch) if model.image_guided else {}
    joints, visible = _joints()
    image = _image(dtype)
    keypoints = joints.to(dtype)
    output, features = _tokenizer_run(model, keypoints, visible, image)
    squares = (output.embeddings[:, :, None] - model.decoder.codebook).square().sum(-1)
    best = squares.topk(2, largest=False).values
    found |= {
        "joints_in": torch.cat([joints, visible[..., None]], dim=-1),
        "encoder_out": output.embeddings,
        "token_indices": model.encode(keypoints, visible, features),
        "joints_out": model.decode(output.ids),
        "distance_gap": best[..., 1] - best[..., 0],
    }
    if features is not None:
        found["features"] = features
        found["joints_feat"] = features_at(features, keypoints)
    order = list(COCO_17.flip_indices)
    mirrored = torch.stack([255 - keypoints[..., 0], keypoints[..., 1]], dim=-1)[:, order]
    flipped = _tokenizer_run(model, mirrored, visible[:, order], image.flip(-1))[0].keypoints
    flipped = torch.stack([255 - flipped[..., 0], flipped[..., 1]], dim=-1)[:, order]
    found["flip_preds_image"] = _to_image((output.keypoints + flipped) / 2, visible)
    gap = float(golden.tensors.pop("distance_gap").sub(found["distance_gap"]).abs().max())
    assert gap < (1e-3 if dtype == torch.float32 else 1e-4)  # stored float32 of distances to 2400
    assert torch.equal(found["token_indices"], golden.tensors["token_indices"].view(1, -1))
    assert torch.equal(output.ids, found["token_indices"])
    golden.check(found, tolerance)


@pytest.mark.parametrize("variant", MANIFESTS)
def test_manifest_converts_key_by_key_and_back(variant):
    check_conversion(_name(variant), MANIFESTS[variant])
