"""ViTPose against the outputs of the implementation in the package transformers."""

from __future__ import annotations

import pytest
import torch
from goldens.compare import Golden
from goldens.fill import make_input, make_state, manifests
from torch import Tensor

import posezoo
from posezoo.errors import CheckpointError, InputError
from posezoo.models.vitpose.network import EXPERTS

MANIFESTS = manifests("vitpose")
QUICK = ["vitpose_b_simple_256x192", "vitpose_plus_s_256x192"]
VARIANTS = [v if v in QUICK else pytest.param(v, marks=pytest.mark.slow) for v in MANIFESTS]


def _run(variant: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every stored intermediate, by hooks on our modules, under the names of the golden file."""
    model = posezoo.create_model(variant)
    posezoo.load_checkpoint(model, make_state(MANIFESTS[variant]))
    model = model.to(dtype)
    found: dict[str, Tensor] = {}

    def keeper(name: str):
        def keep(module, args, output) -> None:  # a hook that returns something would replace it
            found.setdefault(name, output)

        return keep

    for name, module in model.named_modules():
        module.register_forward_hook(keeper(name))
    image = make_input("image", (1, 3, 256, 192)).to(dtype)
    with torch.inference_mode():
        for expert in range(len(EXPERTS) if model.experts else 1):
            if model.experts:
                model.set_expert(EXPERTS[expert])
            found[f"heatmaps.{expert}"] = model(image)
    return found


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_stage_and_expert_equals_transformers(variant, dtype, tolerance):
    Golden("vitpose", variant).check(_run(variant, dtype), tolerance)


@pytest.mark.parametrize("variant", MANIFESTS)
def test_file_from_the_hub_fills_every_tensor(variant):
    with torch.device("meta"):
        model = posezoo.create_model(variant)
        manifest = MANIFESTS[variant].items()
        state = {k: torch.empty(v["shape"], dtype=getattr(torch, v["dtype"])) for k, v in manifest}
    conversion = model.convert_state_dict(state)
    shapes = {key: tuple(value.shape) for key, value in conversion.state.items()}
    assert shapes == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert not conversion.ignored


def test_authors_own_file_gives_the_same_weights():
    variant = "vitpose_plus_s_256x192"
    ours = posezoo.create_model(variant)
    state = {}
    for key, value in ours.state_dict().items():
        key = key.replace("patch_embed", "patch_embed.proj") if "patch_embed" in key else key
        key = "last_norm" + key[4:] if key.startswith("norm.") else key
        state[f"keypoint_{key}" if key.startswith("head") else f"backbone.{key}"] = value
    state["backbone.cls_token"] = torch.zeros(1, 1, 384)
    state["associate_keypoint_heads.0.final_layer.bias"] = torch.zeros(14)
    again = posezoo.create_model(variant)
    report = posezoo.load_checkpoint(again, state)
    assert len(report.ignored) == 2
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in ours.state_dict().items())


def test_file_without_one_projection_is_refused():
    state = make_state(MANIFESTS["vitpose_b_simple_256x192"])
    del state["backbone.encoder.layer.3.attention.attention.key.bias"]
    with pytest.raises(CheckpointError, match="layer.3.*lacks one of query, key, value"):
        posezoo.load_checkpoint(posezoo.create_model("vitpose_b_simple_256x192"), state)


def test_expert_is_chosen_by_argument_and_survives_saving(tmp_path):
    model = posezoo.create_model("vitpose_plus_s_256x192", expert="mpii")
    again = posezoo.create_model(f"local-dir:{posezoo.save_pretrained(model, tmp_path)}")
    assert model.settings() == again.settings() == {"expert": "mpii"}
    with pytest.raises(InputError, match="expert is 'cats'"):
        model.set_expert("cats")
    with pytest.raises(InputError, match="has no experts"):
        posezoo.create_model("vitpose_b_256x192").set_expert("coco")
