"""UniFormer against the outputs of the published implementations."""

from __future__ import annotations

import pytest
import torch
from goldens.compare import Golden, check_conversion
from goldens.fill import make_input, make_state, manifests
from torch import Tensor

import posezoo
from posezoo.codecs import build_codec

MANIFESTS = manifests("uniformer")
# manifest -> our name; the rest are called the same
NAMES = {"uniformer_s_256x192_official": "uniformer_s_256x192.coco_official"}
POSE = ["uniformer_s_256x192", "uniformer_b_256x192", "uniformer_s_448x320"]
CLASSIFIERS = ["uniformer_small", "uniformer_small_plus"]


def _model(variant: str) -> torch.nn.Module:
    model = posezoo.create_model(NAMES.get(variant, variant))
    posezoo.load_checkpoint(model, make_state(MANIFESTS[variant]))
    return model


def _run(variant: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every stored intermediate, by hooks on our modules, under the names of the golden file."""
    model = _model(variant).to(dtype)
    found: dict[str, Tensor] = {}

    def keep(name: str, nhwc: bool = True):
        def hook(module, args, output):
            found[name] = output.permute(0, 3, 1, 2) if nhwc else output

        return hook

    for i, stage in enumerate(model.backbone.stages, 1):
        stage.register_forward_hook(keep(f"stage{i}"))
        stage.patch_embed.register_forward_hook(keep(f"patch_embed{i}"))
        stage.blocks[0].register_forward_hook(keep(f"blocks{i}.0"))
        if i > 2:
            stage.blocks[0].attn.register_forward_hook(keep(f"blocks{i}.0.attn", nhwc=False))
    if hasattr(model, "norm"):
        model.norm.register_forward_hook(keep("norm", nhwc=False))
    else:
        model.backbone.stages[3].norm.register_forward_hook(keep("norm4"))
        for i in (2, 5, 8):
            model.head.deconv_layers[i].register_forward_hook(
                keep(f"head.deconv_layers.{i}", nhwc=False)
            )
    image = make_input("image", (1, 3, *model.pretrained_cfg.input.size)).to(dtype)
    with torch.inference_mode():
        output = model(image)
        first = dict(found)  # the hooks go on writing to `found`
        if hasattr(model, "num_classes"):
            return first | {"logits": output}
        first["heatmaps"] = output
        if variant in POSE:
            codec = build_codec(model.pretrained_cfg)
            merged = codec.merge_flip(output, model(image.flip(-1)))
            points, scores = codec.decode(merged)
            first |= {"heatmaps_flip_merged": merged, "keypoints": points, "scores": scores}
    return first


@pytest.mark.parametrize("variant", [*POSE, *CLASSIFIERS, "uniformer_s_256x192_official"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_every_stage_equals_the_published_implementation(variant, dtype, tolerance):
    Golden("uniformer", variant).check(_run(variant, dtype), tolerance)


@pytest.mark.parametrize("variant", MANIFESTS)
def test_manifest_converts_key_by_key_and_back(variant):
    check_conversion(NAMES.get(variant, variant), MANIFESTS[variant])


def test_wrong_block_epsilon_is_visible():
    """The two code bases differ in one epsilon only; the parity test must see it."""
    model = posezoo.create_model("uniformer_s_256x192", block_eps=1e-6)
    posezoo.load_checkpoint(model, make_state(MANIFESTS["uniformer_s_256x192"]))
    image = make_input("image", (1, 3, 256, 192)).double()
    with torch.inference_mode():
        heatmaps = model.double()(image)
    assert Golden("uniformer", "uniformer_s_256x192").distance("heatmaps", heatmaps) > 3e-7
