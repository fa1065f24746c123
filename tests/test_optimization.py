"""`posezoo.optimize`: the same numbers from a copy that computes less."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from families import SMALL, fill, small
from promises import inputs_of, run
from torch import nn

import posezoo
from posezoo import PosePredictor, optimize
from posezoo.device import has_bfloat16_tiles
from posezoo.errors import InputError
from posezoo.models import layers
from posezoo.models.layers import FoldedNorm, Mlp, attend
from posezoo.models.uniformer.blocks import PositionalConv
from posezoo.optimization import FastNetwork
from posezoo.packing import DoublingConv, PackedConv2d, PackedLinear, can_pack, pack_layers
from posezoo.zoo.model import Tokenizer
from posezoo.zoo.wrapped import unwrap


@pytest.fixture(params=SMALL, scope="module")
def model(request):
    network = small(request.param)
    # fresh BatchNorms and layer scales hide a wrong fold; TCFormer's clusters follow the last bit
    return network if "tcformer" in request.param else fill(network)


def spread(found, expected):
    """The largest difference as a share of an output's spread."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b.is_floating_point()]
    return max(float((a.double() - b.double()).abs().max() / b.double().std()) for a, b in pairs)


def test_optimized_model_gives_the_numbers_of_the_plain_one(model):
    double = optimize(model, dtype="float64")
    assert all(p.dtype == torch.float64 for p in double.parameters())
    plain = small(model.pretrained_cfg.architecture.removeprefix("small_"))
    plain.load_state_dict(model.state_dict())
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs_of(model, 3))
    expected = run(plain.double(), inputs)
    assert spread(run(double, inputs), expected) < 1e-12
    assert spread(run(optimize(model), inputs_of(model, 3)), run(model, inputs_of(model, 3))) < 1e-4


def test_model_and_its_state_stay_as_they_are(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    fast = optimize(model, dtype="bfloat16")
    run(fast, inputs_of(model))
    assert modules == [type(module) for module in model.modules()]
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    training = copy.copy(model).train()
    assert not any(m.training for m in optimize(training).modules()) and training.training
    model.eval()


def test_nothing_is_left_to_fold(model):
    """Norms that stand alone, such as a classifier's last one, have nothing to be folded into."""
    found = [m for m in optimize(model).modules() if isinstance(m, nn.BatchNorm2d)]
    alone = [model.norm] if isinstance(vars(model)["_modules"].get("norm"), nn.BatchNorm2d) else []
    assert len(found) == len(alone)
    convs = [m for m in optimize(model).modules() if isinstance(m, PositionalConv)]
    assert all(conv.centre is None for conv in convs)


def test_half_precision_is_that_of_autocast_and_part_of_the_copy(model):
    if isinstance(model, Tokenizer):
        return  # mostly in float32
    fast, inputs = optimize(model, dtype=torch.bfloat16), inputs_of(model, 2)
    assert isinstance(fast, FastNetwork) and unwrap(fast).pretrained_cfg == model.pretrained_cfg
    layers = [m for m in fast.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert torch.bfloat16 in {p.dtype for m in layers for p in m.parameters()}
    expected, found = run(model, inputs), run(fast, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        usual = run(model, inputs)
    assert [x.dtype for x in found] == [x.dtype for x in usual]
    assert 0 < spread(found, expected) < max(0.15, 1.5 * spread(usual, expected))


def test_copy_of_a_copy_and_of_a_wrapped_model_are_the_same(model):
    inputs, fast = inputs_of(model), optimize(model)
    expected = run(fast, inputs)
    for again in (optimize(fast), optimize(nn.DataParallel(model))):
        assert all(torch.equal(a, b) for a, b in zip(run(again, inputs), expected))


def test_pruned_and_parametrised_layers_are_folded_as_they_are():
    from torch.nn.utils import parametrizations, prune

    for name in ("uniformer_small_plus", "hrnet_xs_128x96", "pct_swin_base"):
        model = fill(small(name))
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        for i, layer in enumerate(layers):
            if i % 2:
                size = layer.weight.abs()
                prune.custom_from_mask(layer, "weight", size > size.mean() / 3)
            elif layer.weight.abs().sum() > 0:
                parametrizations.weight_norm(layer)
        fast = optimize(model)
        assert spread(run(fast, inputs_of(model)), run(model, inputs_of(model))) < 1e-4
        assert prune.is_pruned(model) and not prune.is_pruned(fast)


def test_hooks_of_layers_run():
    model = fill(small("hrnet_xs_128x96"))
    inputs, plain = inputs_of(model), run(optimize(model), inputs_of(model))
    seen = []
    model.trunk.conv2.register_forward_hook(lambda module, args, output: seen.append(output))
    run(model, inputs)
    assert len(seen) == 1
    model.head.final_layer.register_forward_hook(lambda module, args, output: 2 * output)
    fast = optimize(model)
    for _ in range(4):  # graphs are there from the third on
        assert spread(run(fast, inputs), [2 * x for x in plain]) < 1e-5
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("hrnet_xs_128x96", "trunk.stage2.0.branches.0.0.conv2"),
        ("tcformer_light", "backbone.stages.1.merge.conv"),
        ("uniformer_small_plus", "backbone.stages.0.blocks.0.pos_embed"),
    ],
)
def test_layers_with_hooks_are_not_folded(name, layer):
    model = small(name) if name == "tcformer_light" else fill(small(name))
    layer = model.get_submodule(layer)
    if name == "hrnet_xs_128x96":
        layer.register_forward_hook(lambda module, args, output: output + 1)
    else:
        nn.utils.spectral_norm(layer)
    expected = run(model, inputs_of(model))
    assert spread(run(optimize(model), inputs_of(model)), expected) < 1e-4


def test_a_copy_whose_weights_have_changed_refuses_to_run(model):
    changing = copy.deepcopy(model)
    fast, apart = optimize(changing), optimize(changing, dtype="float64")
    inputs, before = inputs_of(model), run(fast, inputs_of(model))
    others = copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))
    double = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    expected = run(apart, double)
    changing.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    with pytest.raises(InputError, match="weights of the model have changed since"):
        run(fast, inputs)
    assert run(fast.double(), double)  # has weights of its own now
    for other in others:  # have weights of their own
        assert all(torch.equal(a, b) for a, b in zip(run(other, inputs), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(run(apart, double), expected, strict=True))


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="needs x86")
def test_images_that_require_a_gradient_are_refused():
    model = small("tcformer_mta_256x192")
    image = model.example_inputs(1)[0].requires_grad_()
    fast = optimize(model)
    with pytest.raises(InputError, match="an input requires a gradient.*use the model itself"):
        fast(image)
    with pytest.raises(InputError, match="an input requires a gradient"):
        fast(x=image)
    with torch.no_grad():
        fast(image)
    optimize(model, dtype="float64").requires_grad_(False)(image.double())


@pytest.mark.parametrize("name", ["uniformer_s_256x192", "vitpose_b_simple_256x192"])
def test_default_device_does_not_matter(name):
    model = fill(small(name))
    with torch.device("meta"):
        fast = optimize(model)
    assert spread(run(fast, inputs_of(model)), run(model, inputs_of(model))) < 1e-4


def test_weights_that_are_no_numbers_are_seen_in_the_output():
    model = fill(small("hrnet_xs_128x96"))
    with torch.no_grad():
        model.trunk.conv2.weight[0, 0, 0, 0] = torch.nan
    assert not run(optimize(model), inputs_of(model))[0].isfinite().any()


def test_methods_and_options_of_a_copy_in_half_precision_run_in_it():
    model = fill(small("tokenpose_t_256x192"))
    fast, (image,) = optimize(model, dtype="float16"), inputs_of(model)
    keep = torch.arange(5)
    with torch.no_grad():
        assert not torch.equal(fast(image, keep_idx=keep), fast(image))
        found, expected = fast.forward_features(image), model.forward_features(image)
    assert spread([found], [expected]) < 0.2
    with pytest.raises(AttributeError, match="pretrained_cfg"):
        _ = fast.pretrained_cfg


@pytest.mark.skipif(not has_bfloat16_tiles(), reason="needs AMX")
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "size"),
    [
        (320, 3, 2, 1, (4, 2)), (64, 3, 2, 1, (12, 1)), (32, 2, 2, 0, (16, 3)),
        (4, 16, 16, 2, (64, 48)), (8, 16, 16, 0, (33, 65)), (8, 8, 8, 0, (16, 24)),
        (3, 7, 4, 3, (33, 4)),
    ],
)  # fmt: skip
def test_convolutions_that_fail_with_amx_are_right(channels, kernel, stride, padding, size):
    torch.manual_seed(0)
    conv = PackedConv2d(nn.Conv2d(channels, 512, kernel, stride, padding).bfloat16())
    x = torch.randn(2, channels, *size).bfloat16()
    for again in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            found = conv(x[again:]).float()
        expected = F.conv2d(
            x[again:].float(), conv.weight.float(), conv.bias.float(), stride, padding
        )
        assert (found - expected).abs().max() < 0.05


def test_predictor_runs_the_copy_where_the_given_model_cannot_run_as_it_is():
    model = posezoo.create_model("hrnet_xs_128x96")
    assert PosePredictor(model).model is model
    assert not any(isinstance(m, FoldedNorm) for m in model.modules())
    for dtype in ("bfloat16", "float64"):
        network = unwrap(PosePredictor(model, dtype=dtype).model)
        assert any(isinstance(m, FoldedNorm) for m in network.modules())
    named = PosePredictor("hrnet_xs_128x96").model
    assert any(isinstance(m, FoldedNorm) for m in named.modules())


def test_what_is_no_network_is_refused():
    with pytest.raises(InputError, match="model is a str; give a network"):
        optimize("hrnet_xs_128x96")
    with pytest.raises(InputError, match="engine is 'x'; valid: torch"):
        optimize(small("hrnet_xs_128x96"), engine="x")
    with pytest.raises(InputError, match="dtype is 'int8'"):
        optimize(small("hrnet_xs_128x96"), dtype="int8")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_copy_takes_any_batch_size_without_compiling_again(model, dtype):
    if isinstance(model, Tokenizer):
        return
    torch._dynamo.reset()
    fast = optimize(model, dtype=dtype, compile=True)
    plain = optimize(model, dtype=dtype)
    run(fast, inputs_of(model, 8))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (8, 5, 2):
            inputs = inputs_of(model, batch)
            tolerance = 1e-3 if dtype == "float32" else 0.2
            assert spread(run(fast, inputs), run(plain, inputs)) < tolerance


def test_attention_in_bfloat16_is_one_graph_for_the_compiler():
    """What the processor can do is read from a file, which the compiler cannot follow."""
    q, k, v = torch.randn(3, 2, 4, 17, 8).bfloat16().unbind()
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.5)
    assert torch.equal(compiled(q, k, v, scale=0.5), expected)


def test_layers_are_packed_where_that_is_faster_and_can_be_copied():
    model = small("tmpose_b_256x192")
    fast, inputs = optimize(model), inputs_of(model, 2)
    for kind in (PackedLinear, PackedConv2d):
        packed = any(isinstance(m, kind) for m in fast.modules())
        assert packed == can_pack(torch.device("cpu"), torch.float32)
    run(fast, inputs)  # convolutions are packed for the first size that comes
    again = pickle.loads(pickle.dumps(copy.deepcopy(fast)))
    assert all(torch.equal(a, b) for a, b in zip(run(again, inputs), run(fast, inputs)))
    assert all(len(x) == 0 for x in run(fast, tuple(x[:0] for x in inputs)))
    kinds = (PackedLinear, PackedConv2d)
    assert not any(isinstance(m, kinds) for m in optimize(model, dtype="float64").modules())


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="needs x86")
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(16, 16, 5, padding=2, groups=16),
        nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(12, 24, 1),
    ],
    ids=str,
)
def test_packed_convolutions_take_any_size_batch_and_memory_format(layer: nn.Conv2d):
    packed = PackedConv2d(layer)
    with torch.inference_mode():
        for shape in ((2, 16, 12), (5, 16, 12), (0, 16, 12), (3, 9, 20), (1, 16, 12)):
            x = torch.randn(shape[0], layer.in_channels, *shape[1:])
            for given in (x, x.contiguous(memory_format=torch.channels_last)):
                torch.testing.assert_close(packed(given), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="needs x86")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_convolutions_add_and_cut_off_in_the_same_pass(dtype: torch.dtype):
    if not can_pack(torch.device("cpu"), dtype):
        pytest.skip("no bfloat16 here")
    layer = nn.Conv2d(8, 16, 3, padding=1).to(dtype)
    packed = PackedConv2d(layer)
    with torch.inference_mode():
        for size in ((16, 12), (9, 20)):  # the second is not packed
            x, add = torch.randn(2, 8, *size).to(dtype), torch.randn(2, 16, *size).to(dtype)
            expected = (layer(x) + add).relu()
            torch.testing.assert_close(packed(x, add, True), expected, rtol=0.02, atol=0.02)
            torch.testing.assert_close(packed(x, None, True), layer(x).relu())


@pytest.mark.parametrize("tiles", [True, False])
def test_attention_in_bfloat16_is_that_of_float32_rounded(tiles: bool, monkeypatch):
    monkeypatch.setattr(layers, "has_bfloat16_tiles", lambda: tiles)
    for tokens in (24, 112, 131):  # the last does not fill whole vectors
        q, k, v = torch.randn(3, 2, 4, tokens, 8).unbind(0)
        v = v + 4  # a key too many would be seen
        bias = torch.randn(1, 4, tokens, tokens)
        for given in (None, bias):
            expected = F.scaled_dot_product_attention(q, k, v, attn_mask=given, scale=0.3)
            half = None if given is None else given.bfloat16()
            found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), scale=0.3, bias=half)
            assert found.dtype == torch.bfloat16 and (found - expected).abs().max() < 0.1


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="needs x86")
def test_packed_mlp_applies_gelu_in_its_first_layer_and_adds_in_its_last():
    mlp = Mlp(8, 24).eval().requires_grad_(False)
    x, add = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    expected = mlp(x)
    pack_layers(mlp, torch.float32)
    assert isinstance(mlp.fc1, PackedLinear) and mlp.fc1.gelu and isinstance(mlp.act, nn.Identity)
    torch.testing.assert_close(mlp(x), expected)
    hidden = mlp.fc1(x)
    torch.testing.assert_close(mlp.fc2(hidden, add), expected + add)
    torch.testing.assert_close(mlp.fc2(hidden, add.double()), expected + add.double())
    assert mlp(x[:0]).shape == (0, 5, 8)
    again = copy.deepcopy(mlp)
    pack_layers(again, torch.float32)
    assert again.fc1.gelu and torch.equal(again(x), mlp(x))
    torch.testing.assert_close(mlp.double()(x.double()), expected.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_one_convolution_doubles_a_map_as_the_transposed_one_does(bias: bool):
    layer = nn.ConvTranspose2d(6, 5, 4, 2, 1, bias=bias).double().requires_grad_(False)
    for shape in ((2, 6, 3, 5), (1, 6, 1, 1), (0, 6, 2, 2)):
        x = torch.randn(shape).double()
        torch.testing.assert_close(DoublingConv(layer)(x), layer(x), rtol=1e-12, atol=1e-12)


def test_only_layers_that_double_a_map_are_replaced_by_one_that_does():
    if not can_pack(torch.device("cpu"), torch.bfloat16):
        pytest.skip("no bfloat16 here")
    sizes = [
        (4, 2, 1),
        (4, 2, 1, 1),
        (2, 2, 0),
        (4, 2, 1, 0, 2),
        (4, 4, 0),
        (4, 2, 1, 0, 1, True, 2),
    ]
    block = nn.Sequential(*(nn.ConvTranspose2d(4, 4, *size) for size in sizes)).bfloat16()
    pack_layers(block, torch.bfloat16)
    kinds = [type(layer) for layer in block]
    assert kinds == [DoublingConv] + 5 * [nn.ConvTranspose2d]


@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="needs x86")
def test_in_float32_maps_are_doubled_by_one_convolution_where_channels_shrink():
    block = nn.Sequential(*(nn.ConvTranspose2d(c, 4, 4, 2, 1) for c in (8, 4, 2)))
    pack_layers(block, torch.float32)
    assert [type(layer) is DoublingConv for layer in block] == [True, False, False]


def test_copy_of_an_optimised_model_in_another_type(model):
    """What was packed for one type does not stay for the next."""
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs_of(model, 2))
    fast = optimize(model)
    run(fast, inputs_of(model, 2))
    assert (
        spread(run(optimize(fast, dtype="float64"), inputs), run(fast, inputs_of(model, 2))) < 1e-4
    )


def test_other_paddings_are_not_packed():
    block = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding="same"), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
    )
    pack_layers(block, torch.float32)
    assert [type(layer) for layer in block] == [nn.Conv2d, nn.Conv2d]


def test_heads_of_optimised_models_can_be_replaced():
    model = small("tcformer_mta_256x192")
    fast = optimize(model)
    with torch.no_grad():
        features = [network.forward_features(*inputs_of(model)) for network in (fast, model)]
    assert spread(features[:1], features[1:]) < 1e-4
    fast.reset_head(5)
    assert run(fast, inputs_of(model))[0].shape[1] == 5
