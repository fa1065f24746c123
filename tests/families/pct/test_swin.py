"""The backbone of PCT: timm's numbers, and the kept position bias."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from goldens.fill import make_input
from torch import Tensor, nn

from families import fill
from families.pct import TINY
from posezoo.models.pct.swin import (
    SwinBackbone,
    attention_bias,
    logit_scale,
    window_attention,
)

BLOCKS = sum(TINY["depths"])


def _make(drop_path_rate: float = 0.0, seed: int = 0) -> SwinBackbone:
    return fill(SwinBackbone(**TINY, drop_path_rate=drop_path_rate), seed).eval()


@pytest.fixture
def backbone() -> SwinBackbone:
    return _make()


def _image(batch: int = 2) -> Tensor:
    return make_input("image", (batch, 3, 256, 256))


def test_keys_and_numbers_are_those_of_the_timm_class(backbone):
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    timm = SwinTransformerV2(
        img_size=256, num_classes=0, global_pool="", embed_dim=TINY["width"],
        depths=TINY["depths"], num_heads=TINY["num_heads"], window_size=16,
        pretrained_window_sizes=(12, 12, 12, 6), norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    timm.load_state_dict(backbone.state_dict())
    timm.double().eval()
    backbone.double()
    image = _image().double()
    with torch.inference_mode():
        expected = timm.forward_features(image).permute(0, 3, 1, 2)
        torch.testing.assert_close(backbone(image), expected, rtol=0, atol=1e-12)
        maps, stages = timm.forward_intermediates(image)[1], backbone.forward_intermediates(image)
        for ours, theirs in zip(stages, maps):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        backbone.plain = True
        assert torch.equal(backbone(image), expected)


def test_gradients_are_those_of_the_plain_path(backbone):
    backbone.double()
    image = _image(1).double()
    grads = []
    for plain in (False, True):
        backbone.plain = plain
        backbone.zero_grad()
        (backbone(image) * make_input("weights", (1, 256, 8, 8))).sum().backward()
        grads.append({k: p.grad.clone() for k, p in backbone.named_parameters()})
    for key, grad in grads[1].items():
        assert grad.abs().max() > 0, key
        torch.testing.assert_close(grads[0][key], grad, rtol=1e-8, atol=1e-12, msg=key)


def test_drop_path_acts_in_training_only():
    backbone, image = _make(drop_path_rate=0.9), _image(1)
    with torch.no_grad():
        assert not torch.equal(backbone.train()(image), backbone(image))
        assert torch.equal(backbone.eval()(image), backbone(image))


class Counting:
    """Counts how often each block's bias is made, by hooks on the layers that make it."""

    def __init__(self, backbone: Any) -> None:
        self.count = 0
        for stage in backbone.layers:
            for block in stage.blocks:
                block.attn.cpb_mlp.register_forward_hook(self._add)

    def _add(self, *args: object) -> None:
        self.count += 1

    def since(self) -> int:
        count, self.count = self.count, 0
        return count


def test_position_bias_is_made_once_per_block_at_inference(backbone):
    made = Counting(backbone)
    with torch.inference_mode():
        backbone(_image(3))
        assert made.since() == BLOCKS
        backbone(_image(1))
    with torch.no_grad():
        backbone(_image(2))
    assert made.since() == 0


def test_position_bias_follows_the_gradient_where_it_learns(backbone):
    made = Counting(backbone)
    backbone(_image(1))
    backbone(_image(1))
    assert made.since() == 2 * BLOCKS
    backbone.requires_grad_(False)
    image = _image(1).requires_grad_()
    with torch.inference_mode():
        backbone(_image(1))
    backbone(image).sum().backward()  # a bias kept by inference_mode must not break this
    assert made.since() == BLOCKS and image.grad.abs().max() > 0


def _in_place(backbone):
    with torch.no_grad():
        backbone.layers[2].blocks[0].attn.cpb_mlp[2].weight.mul_(-1)
    return backbone


def _loaded(backbone):
    other = _make(seed=1)
    backbone.load_state_dict(other.state_dict())
    return backbone


def _assigned(backbone):
    other = _make(seed=1)
    backbone.load_state_dict(other.state_dict(), assign=True)
    return backbone


def _stepped(backbone):
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1)
    backbone(_image(1)).square().mean().backward()
    optimizer.step()
    return backbone


def _through_data(backbone):
    for parameter in backbone.parameters():
        parameter.data.mul_(-0.5)
    return backbone


def _replaced_data(backbone):
    for parameter in backbone.parameters():
        parameter.data = parameter.data * -0.5
    return backbone


def _copied(backbone):
    return _in_place(copy.deepcopy(backbone))


@pytest.mark.parametrize(
    "change",
    [
        _in_place, _loaded, _assigned, _stepped, _through_data, _replaced_data, _copied,
        lambda b: b.double(), lambda b: b.half().float(),
    ],
    ids=["in place", "load", "assign", "optimizer", "data", "new data", "copy", "double",
         "half"],
)  # fmt: skip
def test_kept_bias_never_goes_stale(backbone, change):
    image = _image(1)
    with torch.inference_mode():
        before = backbone(image)
    changed = change(backbone)
    with torch.inference_mode():
        after = changed(image.to(next(changed.parameters()).dtype))
        changed._kept.clear()
        assert torch.equal(after, changed(image.to(after.dtype)))
        assert not torch.equal(after.float(), before)


def test_copies_and_pickles_carry_no_kept_bias(backbone):
    with torch.inference_mode():
        backbone(_image(1))
    assert backbone._kept and not copy.deepcopy(backbone)._kept


def test_bias_kept_under_autocast_is_the_full_one_rounded(backbone):
    image = _image(1)

    def kept() -> list[torch.Tensor]:
        return [entry.bias for entry in backbone._kept.values()]

    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            backbone(image)
        rounded = kept()
        after = backbone(image)  # in float32 it is made anew
        assert rounded and all(map(torch.equal, rounded, (full.bfloat16() for full in kept())))
        assert all(full.dtype == torch.float32 for full in kept())
        backbone._kept.clear()
        assert torch.equal(after, backbone(image))


@pytest.mark.parametrize("shift", [0, 1], ids=["windows", "shifted windows"])
def test_windows_of_two_images_are_those_of_each(backbone, shift):
    """Alone they join the batch; where windows have masks and images are many, the heads."""
    block = backbone.layers[0].blocks[shift]
    assert (block.attn_mask is not None) == bool(shift)
    args = attention_bias(block), logit_scale(block.attn)
    x = make_input("map", (2, 64, 64, TINY["width"]))
    with torch.no_grad():
        both = window_attention(block, x, *args)
        alone = [window_attention(block, image, *args) for image in x.split(1)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_folded_blocks_keep_the_bias_of_the_type_they_run_in(backbone):
    image = _image(1).float()
    backbone.float().requires_grad_(False)
    with torch.inference_mode():
        expected = backbone(image)
        backbone.fold()
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.equal(backbone(image), expected)
        assert torch.equal(backbone(image), expected)  # in float32 again, not what was rounded
        double = backbone.double()(image.double())
        assert 0 < double.sub(expected).abs().max() < 1e-4
        assert backbone.to("meta")(image.double().to("meta")).shape == expected.shape


def test_initialisation_is_that_of_the_recipe():
    torch.manual_seed(0)
    backbone = SwinBackbone(**TINY, drop_path_rate=0.0)
    block = backbone.layers[1].blocks[0]
    assert (block.norm1.weight == 1e-5).all() and (block.norm2.weight == 1e-5).all()
    assert (backbone.norm.weight == 1).all() and not backbone.norm.bias.any()
    assert not block.attn.q_bias.any() and not block.mlp.fc1.bias.any()
    torch.testing.assert_close(
        block.attn.logit_scale, torch.full_like(block.attn.logit_scale, 10).log()
    )
    for weight in (backbone.patch_embed.proj.weight, block.mlp.fc1.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
