"""TokenPose and TMPose beyond the mask: training, trunk, files, configurations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from goldens.fill import make_state, manifests
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

import posezoo
from families import hollow, on_meta, small
from families.tokenpose import name_of
from posezoo.errors import InputError, WeightsUnavailableError
from posezoo.models.hrnet import HRNetTrunk

NAMES = posezoo.list_models(["tokenpose*", "tmpose*"])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, 3, 64, 48), np.float32), "a torch tensor, got ndarray"),
        (torch.zeros(1, 3, 64, 48).double(), "are torch.float64, the model torch.float32"),
        (torch.zeros(1, 3, 64, 48, device="meta"), "are on meta, the model on cpu"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(images, words):
    with pytest.raises(InputError, match=words):
        small("tokenpose_t_256x192")(images)


def test_training_reaches_every_parameter():
    model = small("tokenpose_t_256x192", mask_type="random", mask_ratio=0.3).train()
    model(*model.example_inputs()).square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def _timm_forward(trunk: HRNetTrunk, x: torch.Tensor) -> torch.Tensor:
    """The same layers run by timm's own code."""
    x = torch.relu(trunk.bn1(trunk.conv1(x)))
    x = trunk.layer1(torch.relu(trunk.bn2(trunk.conv2(x))))
    maps = trunk.stage2([path(x) for path in trunk.transition1])
    return trunk.stage3([*maps, trunk.transition2[2](maps[-1])])[0]


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_trunk_equals_timms_own_forward(is_training):
    torch.manual_seed(0)
    ours, theirs = HRNetTrunk("hrnet_w32", 3).double(), HRNetTrunk("hrnet_w32", 3).double()
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 64).double()
    found = ours.train(is_training)(x)
    expected = _timm_forward(theirs.train(is_training), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    buffers = dict(theirs.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_trunk_follows_every_change_of_its_weights():
    torch.manual_seed(0)
    trunk, x = HRNetTrunk("hrnet_w32", 3).double().eval(), torch.randn(1, 3, 64, 64).double()
    for conv in trunk.modules():
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(conv.weight)
    block = trunk.layer1[0]

    def freeze_and_train() -> None:
        trunk.train()
        block.bn2.eval()
        trunk(x)
        trunk.eval()

    changes = [
        lambda: block.bn2.weight.data.mul_(2),
        lambda: block.bn2.running_mean.add_(1),
        lambda: setattr(block.bn2, "eps", 0.1),
        lambda: setattr(trunk.conv1, "weight", torch.nn.Parameter(trunk.conv1.weight.flip(1))),
        freeze_and_train,
        lambda: prune.custom_from_mask(block.conv2, "weight", block.conv2.weight > 0),
        lambda: block.conv2.weight_orig.data.mul_(2),
        lambda: parametrizations.weight_norm(block.conv1),
        lambda: trunk.load_state_dict({k: v * 2 for k, v in trunk.state_dict().items()}),
    ]
    before = trunk(x)
    for i, change in enumerate(changes):
        change()
        after = trunk(x)
        assert not torch.allclose(after, before) or i == 7  # weight_norm begins as the same
        torch.testing.assert_close(after, _timm_forward(trunk, x), rtol=1e-9, atol=1e-9)
        before = after


def test_weights_are_channels_last_however_they_came(tmp_path):
    made = posezoo.create_model("tokenpose_s_v1_256x192")
    posezoo.save_pretrained(made, tmp_path)
    loaded = posezoo.create_model(f"local-dir:{tmp_path}")
    for model in (made, loaded):
        assert model.trunk.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in made.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    # a fresh one is initialised like in the published training
    assert float(made.trunk.conv2.weight.detach().std()) == pytest.approx(0.001, rel=0.05)
    for weight in (made.keypoint_tokens, made.patch_embed.weight, made.head[1].weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not made.patch_embed.bias.any() and made.stacks[0][0].attn.qkv.bias is None


def test_trunk_starts_from_timms_imagenet_weights(monkeypatch):
    import timm

    asked = []

    def create(name: str, **options: object) -> torch.nn.Module:
        asked.append((name, options))
        return donor

    donor = timm.create_model("hrnet_w32", pretrained=False)
    monkeypatch.setattr(timm, "create_model", create)
    model = posezoo.create_model("tmpose_b_256x192")
    model.init_from_imagenet()
    assert asked == [("hrnet_w32.ms_in1k", {"pretrained": True, "in_chans": 3})]
    weights = donor.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in model.trunk.state_dict().items())
    for name in ("tokenpose_t_256x192", "tokenpose_s_v1_256x192"):
        with pytest.raises(InputError, match="HRNet trunk"):
            on_meta(name).init_from_imagenet()


def test_map_to_heatmaps_stays_where_keypoints_are_replaced():
    model = small("tokenpose_t_256x192")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_head(3)
    after = model.state_dict()
    assert {n for n in after if not torch.equal(after[n], before[n])} == {"keypoint_tokens"}


@pytest.mark.parametrize("name", NAMES)
def test_configuration_states_true_costs(name):
    model = on_meta(name)
    image = torch.empty(1, 3, *model.input_size, device="meta")
    cfg = model.pretrained_cfg
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        heatmaps = model(image)
    visual, width = len(model.kept), 192
    tokens = visual + model.num_keypoints
    # what the last layer leaves out: projection, MLP and queries of visual tokens
    skipped = visual * (7 * width**2 + 2 * tokens * width)
    assert counter.get_total_flops() / 2 + skipped == pytest.approx(cfg.macs, rel=2e-3)
    assert heatmaps.shape[2:] == cfg.decode.heatmap_size
    assert (model.mask.type, model.mask.ratio) == (
        ("random", 0.6) if name.startswith("tmpose") else ("uniform", 1.0)
    )


def test_missing_weights_are_explained_with_the_ways_out():
    for name in ("tokenpose_s_v1_256x192", "tmpose_l_d6_256x256"):
        with pytest.raises(
            WeightsUnavailableError, match="published no weights.*Train.*checkpoint="
        ):
            posezoo.create_model(name, pretrained=True)
    assert posezoo.list_models(["tokenpose*", "tmpose*"], pretrained=True) == [
        "tmpose_s_192x144",
        "tokenpose_xs_128x96",
    ]


def test_all_twelve_published_variants_have_a_manifest():
    ours = posezoo.list_models(["tokenpose*.coco", "tmpose*.coco", "t*pose*.mpii"], tags=True)
    assert sorted(map(name_of, manifests("tokenpose"))) == sorted(ours) and len(ours) == 12


def _as_ppt(key: str) -> str:
    """Keys of PPT: one wrapper less around attention."""
    for old, new in ((".0.fn.norm.", ".0.norm."), (".0.fn.fn.", ".0.fn.")):
        key = key.replace(old, new)
    return key


@pytest.mark.parametrize("variant", ["tokenpose_b_coco_256x192", "tokenpose_s_v1_coco_256x192"])
def test_files_of_ppt_convert_to_the_same_weights(variant):
    state = hollow("tokenpose", variant)
    ppt = {_as_ppt(key): value for key, value in state.items()}
    assert sum(key not in state for key in ppt) == 12 * 5
    model = on_meta(name_of(variant))
    ours, theirs = model.convert_state_dict(state), model.convert_state_dict(ppt)
    assert set(ours.state) == set(theirs.state) == set(model.state_dict())
    assert all(theirs.state[key] is value for key, value in ours.state.items())


def test_training_checkpoint_with_all_its_fields_loads(tmp_path):
    variant = "tokenpose_t_coco_256x192"
    state = make_state(manifests("tokenpose")[variant])
    content = {
        "epoch": 12,
        "model": "pose_tokenpose_t",
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "best_state_dict": state,
        "perf": np.float64(0.65),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    model = posezoo.create_model("tokenpose_t_256x192", checkpoint=tmp_path / "checkpoint.pth")
    key = "transformer.transformer.layers.3.0.fn.fn.to_qkv.weight"
    assert torch.equal(model.stacks[0][3].attn.qkv.weight, state[key])
    report = posezoo.load_checkpoint(model, state)
    assert list(report.ignored) == ["transformer.pos_embedding"]
