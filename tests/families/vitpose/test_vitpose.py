"""ViTPose's own: the authors' files and the experts of ViTPose+."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import posezoo
from families import SMALL, hollow, on_meta, registered, small, smaller
from posezoo.errors import InputError
from posezoo.models.vitpose.network import SimpleHead

PLUS = "vitpose_plus_s_256x192"


def test_authors_own_file_gives_the_same_weights():
    ours, state = small(PLUS), {}
    for key, value in ours.state_dict().items():
        key = key.replace("patch_embed", "patch_embed.proj") if "patch_embed" in key else key
        key = "last_norm" + key[4:] if key.startswith("norm.") else key
        state[f"keypoint_{key}" if key.startswith("head") else f"backbone.{key}"] = value
    state["backbone.cls_token"] = torch.zeros(1, 1, 48)
    state["associate_keypoint_heads.0.final_layer.bias"] = torch.zeros(14)
    again = ours.convert_state_dict(state)
    assert len(again.ignored) == 2
    assert set(again.state) == set(ours.state_dict())
    assert all(torch.equal(again.state[key], v) for key, v in ours.state_dict().items())


def test_file_without_one_projection_is_refused():
    name = "vitpose_b_simple_256x192"
    state = hollow("vitpose", name)
    del state["backbone.encoder.layer.3.attention.attention.key.bias"]
    with pytest.raises(ValueError, match="layer.3.*lacks one of query, key, value"):
        on_meta(name).convert_state_dict(state)


def test_expert_is_chosen_by_argument_and_survives_saving(tmp_path):
    with registered(smaller(PLUS, **SMALL[PLUS])):
        model = small(PLUS, expert="mpii")
        again = posezoo.create_model(f"local-dir:{posezoo.save_pretrained(model, tmp_path)}")
    assert model.settings() == again.settings() == {"expert": "mpii"}
    x = model.example_inputs()
    with torch.inference_mode():
        mpii = model(*x)
        model.set_expert("coco")
        assert not torch.equal(mpii, model(*x))
    with pytest.raises(InputError, match="expert is 'cats'"):
        model.set_expert("cats")
    with pytest.raises(InputError, match="has no experts"):
        small("vitpose_b_simple_256x192").set_expert("coco")


def test_a_fast_copy_follows_its_expert():
    """Also once its blocks are programs, which keep what they did."""
    fast = posezoo.optimize(small(PLUS))
    (x,) = fast.example_inputs(2)
    found = {}
    with torch.inference_mode():
        for expert in ("coco", "mpii", "coco", "mpii"):
            fast.set_expert(expert)
            for _ in range(4):
                assert torch.equal(fast(x), found.setdefault(expert, fast(x)))
    assert not torch.equal(found["coco"], found["mpii"])


def test_convolution_before_the_upsampling_is_the_one_after_it():
    head = SimpleHead(5, (3, 2), 4).double().requires_grad_(False)
    nn.init.normal_(head.final_layer.weight), nn.init.normal_(head.final_layer.bias)
    x = torch.randn(2, 5, 3, 2, dtype=torch.float64)
    expected = head(x)
    head.fold()
    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-13)
    head.reset(7)
    assert head.double()(x).shape == (2, 7, 12, 8)
