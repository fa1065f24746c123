"""TokenPose and TMPose beyond parity: the mask, training, trunk, configurations."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

import posezoo
from posezoo.errors import InputError, WeightsUnavailableError
from posezoo.models.hrnet import HRNetTrunk
from posezoo.models.tokenpose.masks import TokenMask
from posezoo.models.tokenpose.network import TokenPose
from posezoo.zoo.catalog import build_model

NAMES = posezoo.list_models(["tokenpose*", "tmpose*"])
PUBLISHED = [name for name in NAMES if posezoo.get_pretrained_cfg(name).tag != "rendered"]
SIZES = [256, 288, 768]


@pytest.fixture(scope="module")
def small() -> TokenPose:
    """TokenPose-T: every mask, no trunk."""
    torch.manual_seed(0)
    return posezoo.create_model("tokenpose_t_256x192")


@pytest.fixture
def model(small) -> TokenPose:
    """The same, with the mask as it was built."""
    small.set_mask("uniform", 1.0, "token", True)
    return small.eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 256, 192, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------- which tokens


@given(st.sampled_from(SIZES), st.integers(1, 768))
def test_uniform_tokens_are_those_of_linspace(size, count):
    count = min(count, size)
    mask = TokenMask(type="uniform", ratio=min((count + 0.5) / size, 1.0))
    assert mask.kept(size) == np.linspace(0, size - 1, count, dtype=int).tolist()


@given(
    st.sampled_from(SIZES), st.sampled_from(["uniform", "random", "zone", "block"]),
    st.floats(0.02, 1.0), st.sampled_from(["token", "slot"]),
)  # fmt: skip
@settings(deadline=None)
def test_every_mask_keeps_the_promised_number_of_different_tokens(size, kind, ratio, pos):
    mask = TokenMask(type=kind, ratio=ratio, pos=pos)
    kept = mask.kept(size)
    assert len(kept) == len(set(kept)) == mask.count(size)
    assert set(kept) <= set(range(size))
    assert ratio * size - 4 < len(kept) <= ratio * size
    assert kept == sorted(kept) or (kind == "random" and pos == "slot")


@pytest.mark.parametrize(
    ("kind", "size", "ratio", "expected"),
    [
        ("block", 256, 0.6, list(range(152))),
        ("block", 288, 0.5, list(range(144))),
        ("zone", 256, 0.6, [64 * zone + i for zone in range(4) for i in range(38)]),
        ("zone", 288, 0.25, [72 * zone + i for zone in range(4) for i in range(18)]),
        ("uniform", 256, 0.005, [0]),
        ("none", 256, 0.5, list(range(256))),
    ],
)
def test_masks_by_hand(kind, size, ratio, expected):
    assert TokenMask(type=kind, ratio=ratio).kept(size) == expected


def test_random_list_is_fixed_and_grows_with_the_ratio():
    kept = [set(TokenMask(type="random", ratio=r).kept(256)) for r in (0.2, 0.4, 0.6, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    drawn = TokenMask(type="random", ratio=0.6, pos="slot").kept(256)
    assert drawn != sorted(drawn) and set(drawn) == kept[2]


# ------------------------------------------------------------------------------- the mask at work


@functools.lru_cache(maxsize=1)
def _tiny() -> tuple[TokenPose, torch.Tensor]:
    """Two layers and an image; hypothesis takes no fixtures of a test function."""
    torch.manual_seed(0)
    model = posezoo.create_model("tokenpose_t_256x192")
    model.stacks[0] = model.stacks[0][:2]
    return model, torch.randn(1, 3, 256, 192)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(256)), st.integers(1, 256))
def test_order_of_kept_tokens_is_free_and_matters_only_with_slots(order, count):
    model, image = _tiny()
    keep = torch.tensor(order[:count])
    in_order = keep.sort().values
    model.set_mask("uniform", 0.6, "token")
    with torch.inference_mode():
        assert torch.equal(model(image, keep), model(image, in_order))
        model.set_mask("uniform", 0.6, "slot")
        if not torch.equal(keep, in_order):
            assert not torch.equal(model(image, keep), model(image, in_order))


@pytest.mark.parametrize("kind", ["uniform", "random", "zone", "block"])
def test_mask_in_evaluation_gives_the_same_heatmaps_every_time(model, image, kind):
    full = model(image)
    model.set_mask(kind, 0.6)
    masked = model(image)
    assert torch.equal(masked, model(image)) and not torch.equal(masked, full)
    rebuilt = posezoo.create_model("tokenpose_t_256x192", mask_type=kind, mask_ratio=0.6)
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(masked, rebuilt(image))
    model.set_mask(kind, mask_eval=False)
    assert torch.equal(model(image), full)


@pytest.mark.parametrize("pos", ["token", "slot"])
def test_given_tokens_override_the_mask_per_batch_or_per_sample(model, image, pos):
    images = torch.cat([image, image.flip(-1)])
    keep = torch.stack([torch.randperm(256)[:40] for _ in images])
    with torch.inference_mode():
        model.set_mask("block", 0.5, pos)
        both = model(images, keep)
        for i in range(2):
            torch.testing.assert_close(both[i], model(images[i : i + 1], keep[i])[0])
        assert not torch.equal(both[0], model(images, keep[1])[0])


def test_ratio_can_be_turned_and_turned_back(model, image):
    with torch.inference_mode():
        full = model(image)
        outputs = []
        for ratio in (0.4, 0.8, 1.0):
            model.set_mask_ratio(ratio)
            outputs.append(model(image))
    assert torch.equal(outputs[2], full)
    assert (outputs[0] - full).abs().mean() > (outputs[1] - full).abs().mean() > 0


def test_training_draws_per_sample_from_torchs_generator(model):
    model.set_mask("random", 0.6)
    model.train()
    torch.manual_seed(3)
    keep = model._keep(4, None)
    assert keep.shape == (4, 153) and torch.equal(keep, keep.sort(1).values)
    assert len({tuple(row.tolist()) for row in keep}) == 4
    assert not torch.equal(keep, model._keep(4, None))
    torch.manual_seed(3)
    assert torch.equal(keep, model._keep(4, None))
    counts = torch.bincount(torch.cat([model._keep(64, None).flatten() for _ in range(4)]))
    assert counts.min() > 100 and counts.max() < 206  # 256 draws with probability 0.6


def test_fixed_masks_hold_in_training_too(model):
    model.set_mask("zone", 0.6, mask_eval=False)
    assert model._keep(2, None) is None
    assert torch.equal(model.train()._keep(2, None), model.kept)


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_compiled_model_is_compiled_once_for_a_ratio(is_training, image):
    torch._dynamo.reset()
    model = posezoo.create_model("tokenpose_t_256x192", mask_type="random", mask_ratio=0.3)
    model.stacks[0] = model.stacks[0][:2]
    model.train(is_training)
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for _ in range(3):
            compiled(image)
        assert counter.frame_count == 1
        if not is_training:
            torch.testing.assert_close(compiled(image), model(image))
            keep = torch.arange(90)
            torch.testing.assert_close(compiled(image, keep), model(image, keep))


def test_masked_model_is_exported_with_its_mask():
    model, image = _tiny()
    model.set_mask("random", 0.3)
    program = torch.export.export(model, (image,))
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(image), model(image))


def test_mask_of_a_saved_model_comes_back(model, tmp_path):
    made = posezoo.create_model("tokenpose_t_256x192", mask_type="zone", mask_ratio=0.5)
    posezoo.save_pretrained(made, tmp_path)
    again = posezoo.create_model(f"local-dir:{tmp_path}")
    made.set_mask("random", 0.25, "slot", False)
    posezoo.save_pretrained(made, tmp_path / "turned")
    turned = posezoo.create_model(f"local-dir:{tmp_path}/turned")
    assert turned.mask == made.mask and torch.equal(turned.kept, made.kept)
    made.set_mask("zone", 0.5, "token", True)
    assert again.mask == made.mask and torch.equal(again.kept, made.kept)
    assert torch.equal(again.positions, made.positions)


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("ratio", [0, -0.5, 1.01, float("nan"), "0.6", None, True])
def test_ratio_outside_zero_to_one_is_refused(model, ratio):
    with pytest.raises(InputError, match="share of tokens kept"):
        posezoo.create_model("tokenpose_t_256x192", mask_ratio=ratio)
    with pytest.raises(InputError, match="share of tokens kept"):
        model.set_mask_ratio(ratio)
    assert model.mask.ratio == 1.0


def test_unknown_words_are_refused_with_the_valid_ones(model):
    with pytest.raises(InputError, match="'grid', expected one of none, uniform, random, zone"):
        model.set_mask("grid", 0.5)
    with pytest.raises(InputError, match="'place', expected one of token, slot"):
        posezoo.create_model("tmpose_b_256x192", mask_pos="place")
    with pytest.raises(InputError, match="keeps none of 256 tokens"):
        model.set_mask("zone", 0.01)
    for kind in ("", False):
        with pytest.raises(InputError, match="expected one of none, uniform"):
            model.set_mask(kind)
    with pytest.raises(InputError, match="mask_eval is 'no', expected True or False"):
        model.set_mask("zone", mask_eval="no")
    model.set_mask(None)
    with pytest.raises(InputError, match="without a mask; choose one"):
        model.set_mask_ratio(0.5)
    with pytest.raises(InputError, match="without a mask; choose one"):
        model.set_mask("none", 0.5)


def test_numbers_of_numpy_are_ratios_too(model):
    model.set_mask_ratio(np.float32(0.5))
    assert type(model.mask.ratio) is float and len(model.kept) == 128


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, 3, 256, 192), np.float32), "a torch tensor, got ndarray"),
        (torch.zeros(1, 3, 256, 192).double(), "are torch.float64, the model torch.float32"),
        (torch.zeros(1, 3, 256, 192, device="meta"), "are on meta, the model on cpu"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(model, images, words):
    with pytest.raises(InputError, match=words):
        model(images)


@pytest.mark.parametrize("name", ["num_keypoints", "in_chans"])
@pytest.mark.parametrize("count", [0, -1, 1.5, "17"])
def test_counts_that_cannot_be_are_refused(name, count):
    with pytest.raises(InputError, match=f"{name} is {count!r}, expected a whole number above 0"):
        posezoo.create_model("tokenpose_t_256x192", **{name: count})


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (torch.tensor([0, 256]), "0 to 255, got 0 to 256"),
        (torch.tensor([-1, 5]), "0 to 255, got -1 to 5"),
        (torch.tensor([7, 3, 7]), "names a token twice"),
        (torch.tensor([[1, 2], [3, 3]]), "names a token twice"),
        (torch.tensor([1.0, 2.0]), "int64 tensor, got torch.float32"),
        (torch.tensor([True, False]), "int64 tensor, got torch.bool"),
        ([1, 2], "int64 tensor, got list"),
        (torch.tensor(3), r"\(n,\) or \(B, n\), got shape \(\)"),
        (torch.zeros(2, 0, dtype=torch.int64), r"got shape \(2, 0\)"),
        (torch.tensor([[1, 2]] * 3), "3 rows for a batch of 2"),
    ],
)
def test_given_tokens_that_cannot_be_are_refused(model, image, keep, words):
    with pytest.raises(InputError, match=words):
        model(image.expand(2, -1, -1, -1), keep)


# ------------------------------------------------------------------------------- training, trunk


def test_gradients_reach_all_and_checkpointing_changes_none(image):
    torch.manual_seed(0)
    model = posezoo.create_model("tokenpose_t_256x192", mask_type="random", mask_ratio=0.3)
    model.stacks[0] = model.stacks[0][:2]
    model.train()

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(1)
        model(image).square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    plain = gradients()
    model.set_grad_checkpointing()
    for name, gradient in gradients().items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, plain[name])


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


def test_weights_lie_as_the_maps_do_however_they_came(tmp_path):
    made = posezoo.create_model("tokenpose_s_v1_256x192")
    posezoo.save_pretrained(made, tmp_path)
    loaded = posezoo.create_model(f"local-dir:{tmp_path}")
    for model in (made, loaded):
        assert model.trunk.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in made.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_initialisation_is_that_of_the_published_training():
    model = posezoo.create_model("tokenpose_s_v1_256x192")
    assert float(model.trunk.conv2.weight.detach().std()) == pytest.approx(0.001, rel=0.05)
    for weight in (model.keypoint_tokens, model.patch_embed.weight, model.head[1].weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not model.patch_embed.bias.any() and model.stacks[0][0].attn.qkv.bias is None


def test_trunk_starts_from_timms_imagenet_weights(monkeypatch):
    import timm

    asked = []

    def create(name: str, **options: object) -> torch.nn.Module:
        asked.append((name, options))
        return donor

    donor = timm.create_model("hrnet_w32", pretrained=False)
    monkeypatch.setattr(timm, "create_model", create)
    model = posezoo.create_model("tmpose_b_256x192")
    model.init_trunk_from_imagenet()
    assert asked == [("hrnet_w32.ms_in1k", {"pretrained": True, "in_chans": 3})]
    weights = donor.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in model.trunk.state_dict().items())
    for name in ("tokenpose_t_256x192", "tokenpose_s_v1_256x192"):
        with torch.device("meta"), pytest.raises(InputError, match="HRNet trunk"):
            build_model(name).init_trunk_from_imagenet()


def test_keypoints_and_channels_can_be_others(image):
    model = posezoo.create_model("tokenpose_t_256x192", num_keypoints=5, in_chans=1)
    assert model(image[:, :1]).shape == (1, 5, 64, 48)
    head = model.head[3].weight.clone()
    model.reset_head(3)
    assert model(image[:, :1]).shape == (1, 3, 64, 48) and model.num_keypoints == 3
    assert torch.equal(model.head[3].weight, head)


# ------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize("name", NAMES)
def test_configuration_states_true_costs(name):
    with torch.device("meta"):
        model = build_model(name).eval()
        image = torch.empty(1, 3, *model.input_size)
    cfg = model.pretrained_cfg
    assert cfg.params == sum(p.numel() for p in model.parameters())
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_weights_are_explained_with_the_ways_out(name):
    with pytest.raises(WeightsUnavailableError, match="published no weights.*Train.*checkpoint="):
        posezoo.create_model(name, pretrained=True)
    assert name not in posezoo.list_models(pretrained=True)
