"""PCT: the kept position bias, the token space, files of all kinds, bad input."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import subprocess
import sys
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from goldens.fill import make_input, make_tensor, manifests
from torch import Tensor, nn

import posezoo
from posezoo.cli import main
from posezoo.codecs import build_codec
from posezoo.errors import CheckpointError, InputError
from posezoo.geometry import crop_matrices, image_to_input, input_to_image
from posezoo.models.pct import swin
from posezoo.models.pct.network import PCTOutput, PCTPose, TokenClassifier
from posezoo.models.pct.swin import SwinBackbone, SwinPose
from posezoo.models.pct.tokenizer import PCTTokenizer, TokenDecoder, features_at
from posezoo.zoo import catalog as _registry

MANIFESTS = manifests("pct")
TINY = (32, (2, 2, 2, 2), (1, 2, 4, 8))


@pytest.fixture(autouse=True)
def _tiny_size(monkeypatch):
    monkeypatch.setitem(swin._SIZES, "tiny", TINY)


def _fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values of ordinary size; a fresh Swin's norms hide its attention."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            noise *= tensor[0].numel() ** -0.5
        else:
            noise = 0.1 * noise + float(name.endswith(("weight", "running_var")))
        tensor.copy_(noise.abs() if name.endswith("running_var") else noise)
    return module


@pytest.fixture
def backbone() -> SwinBackbone:
    return _fill(SwinBackbone("tiny")).eval()


def _tiny_pose() -> PCTPose:
    return PCTPose(SwinBackbone("tiny"), TokenClassifier(256), TokenDecoder(), image_guided=True)


@pytest.fixture
def pose() -> PCTPose:
    return _fill(_tiny_pose()).eval()


@pytest.fixture
def registered(pose, monkeypatch) -> str:
    """The name under which the tiny pose model is known while a test runs."""
    cfg = posezoo.get_pretrained_cfg("pct_swin_base")
    cfg = dataclasses.replace(cfg, architecture="pct_swin_tiny", params=None)
    for table, entry in (
        (_registry._BUILDERS, _tiny_pose),
        (_registry._OPTIONS, _tiny_pose),
        (_registry._CFGS, {"coco": cfg}),
    ):
        monkeypatch.setitem(table, "pct_swin_tiny", entry)
    pose.pretrained_cfg, pose.model_args = cfg, {}
    return "pct_swin_tiny"


@pytest.fixture
def guided() -> PCTTokenizer:
    return _fill(PCTTokenizer(SwinBackbone("tiny"))).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PCTTokenizer:
    return _fill(posezoo.create_model("pct_tokenizer_swin_base_woimgguide"))


def _image(batch: int = 2) -> Tensor:
    return make_input("image", (batch, 3, 256, 256))


def _poses(count: int = 3) -> tuple[Tensor, Tensor]:
    visible = torch.ones(count, 17)
    visible[:, 9:11] = 0
    return 128 + 48 * make_input("joints", (count, 17, 2)), visible


def _hollow(variant: str) -> dict[str, Tensor]:
    """A state dict of the right keys and shapes that needs no memory."""
    return {
        key: torch.zeros((), dtype=getattr(torch, spec["dtype"])).expand(spec["shape"])
        for key, spec in MANIFESTS[variant].items()
    }


# ------------------------------------------------------------------------------- backbone


def test_keys_and_numbers_are_those_of_the_timm_class(backbone):
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    dim, depths, heads = TINY
    timm = SwinTransformerV2(
        img_size=256, num_classes=0, global_pool="", embed_dim=dim, depths=depths,
        num_heads=heads, window_size=16, pretrained_window_sizes=(12, 12, 12, 6),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
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


def test_gradient_checkpointing_changes_no_gradient(pose):
    pose.train()
    grads = []
    for enable in (False, True):
        pose.set_grad_checkpointing(enable)
        pose.zero_grad()
        pose(_image(2)).logits.square().mean().backward()
        grads.append(pose.backbone.layers[1].blocks[1].attn.qkv.weight.grad.clone())
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(*grads)


def test_drop_path_acts_in_training_only():
    backbone = _fill(SwinBackbone("tiny", drop_path_rate=0.9))
    image = _image(1)
    with torch.no_grad():
        assert not torch.equal(backbone.train()(image), backbone(image))
        assert torch.equal(backbone.eval()(image), backbone(image))


def _bias_made(monkeypatch) -> list[nn.Module]:
    made: list[nn.Module] = []
    real = swin.attention_bias
    monkeypatch.setattr(swin, "attention_bias", lambda block: made.append(block) or real(block))
    return made


def test_position_bias_is_made_once_per_block_at_inference(backbone, monkeypatch):
    made = _bias_made(monkeypatch)
    blocks = sum(TINY[1])
    with torch.inference_mode():
        backbone(_image(3))
        assert len(made) == blocks
        backbone(_image(1))
    with torch.no_grad():
        backbone(_image(2))
    assert len(made) == blocks


def test_position_bias_follows_the_gradient_where_it_learns(backbone, monkeypatch):
    made = _bias_made(monkeypatch)
    backbone(_image(1))
    backbone(_image(1))
    assert len(made) == 2 * sum(TINY[1])
    backbone.requires_grad_(False)
    made.clear()
    image = _image(1).requires_grad_()
    with torch.inference_mode():
        backbone(_image(1))
    backbone(image).sum().backward()  # a bias kept by inference_mode must not break this
    assert len(made) == sum(TINY[1]) and image.grad.abs().max() > 0


def _in_place(backbone):
    with torch.no_grad():
        backbone.layers[2].blocks[0].attn.cpb_mlp[2].weight.mul_(-1)
    return backbone


def _loaded(backbone):
    other = _fill(SwinBackbone("tiny"), seed=1)
    backbone.load_state_dict(other.state_dict())
    return backbone


def _assigned(backbone):
    other = _fill(SwinBackbone("tiny"), seed=1)
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


def test_bias_kept_under_autocast_is_the_full_one(backbone):
    image = _image(1)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            backbone(image)
        kept = [entry.bias for entry in backbone._kept.values()]
        assert kept and all(bias.dtype == torch.float32 for bias in kept)
        after = backbone(image)
        backbone._kept.clear()
        assert torch.equal(after, backbone(image))


def test_model_made_without_memory_equals_one_made_with(registered, pose, tmp_path):
    """Masks, position tables and the zero key bias are in no file."""
    again = posezoo.create_model(f"local-dir:{posezoo.save_pretrained(pose, tmp_path)}")
    with torch.inference_mode():
        for ours, theirs in zip(again(_image()), pose(_image())):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", ["base", "large", "huge"])
def test_every_size_builds_without_memory(size):
    names = [f"{kind}_swin_{size}" for kind in ("pct", "pct_tokenizer", "hmp")]
    for name in names:
        with torch.device("meta"):
            model = _registry.build_model(name)
        assert all(t.is_meta for t in [*model.parameters(), *model.buffers()])


def test_initialisation_is_that_of_the_recipe():
    torch.manual_seed(0)
    model = _tiny_pose()
    block = model.backbone.layers[1].blocks[0]
    assert (block.norm1.weight == 1e-5).all() and (block.norm2.weight == 1e-5).all()
    assert (model.backbone.norm.weight == 1).all() and not model.backbone.norm.bias.any()
    assert not block.attn.q_bias.any() and not block.mlp.fc1.bias.any()
    torch.testing.assert_close(
        block.attn.logit_scale, torch.full_like(block.attn.logit_scale, 10).log()
    )
    for weight in (model.backbone.patch_embed.proj.weight, block.mlp.fc1.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.head.blocks[0].conv1.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert model.decoder.codebook.std().item() == pytest.approx(1, rel=0.01)
    hidden = PCTTokenizer(None).encoder.invisible_token
    assert hidden.abs().max() <= 0.02 and hidden.std() > 0.005


# ------------------------------------------------------------------------------- pose model


def test_compiles_without_graph_breaks(pose):
    compiled = torch.compile(pose, fullgraph=True, backend="eager")
    with torch.inference_mode():
        for ours, theirs in zip(compiled(_image()), pose(_image())):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_compiles_with_inductor(pose):
    compiled = torch.compile(pose, fullgraph=True)
    with torch.inference_mode():
        for ours, theirs in zip(compiled(_image()), pose(_image())):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_exported_program_takes_any_batch(pose):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(pose, (_image(2),), dynamic_shapes=({0: batch},)).module()
    with torch.inference_mode():
        for ours, theirs in zip(program(_image(3)), pose(_image(3))):
            torch.testing.assert_close(ours, theirs)


def test_keypoints_stay_in_full_precision_under_autocast(pose):
    with torch.inference_mode():
        full = pose(_image())
        with torch.autocast("cpu", torch.bfloat16):
            half = pose(_image())
    assert half.logits.dtype == torch.bfloat16 and half.keypoints.dtype == torch.float32
    assert (half.logits - full.logits).std() < 0.1 * full.logits.std()


def test_batch_members_are_independent(pose):
    with torch.inference_mode():
        batch = pose(_image(3))
        single = pose(_image(3)[1:2])
    for ours, theirs in zip(single, batch):
        torch.testing.assert_close(ours[0], theirs[1], rtol=1e-4, atol=1e-5)


def test_score_is_the_mean_largest_logit_and_probability_stays_below_one(pose):
    with torch.inference_mode():
        output = pose(_image())
    codec = build_codec(posezoo.get_pretrained_cfg("pct_swin_base"))
    scores = codec.decode(output)[1]
    assert scores.shape == (2, 17)
    torch.testing.assert_close(scores[:, 0], output.logits.max(-1).values.mean(1))
    sharp = PCTOutput(output.keypoints, torch.eye(2048)[:34].expand(2, -1, -1) * 100)
    torch.testing.assert_close(sharp.probability(), torch.ones(2))
    flat = PCTOutput(output.keypoints, torch.zeros_like(output.logits))
    torch.testing.assert_close(flat.probability(), torch.full((2,), 1 / 2048))


@pytest.mark.parametrize(
    "shape", [(1, 3, 256, 192), (1, 3, 224, 224), (3, 256, 256), (1, 1, 256, 256)]
)
def test_images_of_another_size_are_refused(pose, guided, shape):
    for run in (pose, pose.forward_intermediates, guided.forward_features):
        with pytest.raises(InputError, match="256"):
            run(torch.zeros(shape))


def test_number_of_keypoints_is_fixed_by_the_tokenizer():
    with pytest.raises(TypeError, match="takes no argument 'num_keypoints'"):
        posezoo.create_model("pct_swin_base", num_keypoints=16)
    model = SwinPose(SwinBackbone("tiny"), posezoo.models.heads.HeatmapHead(256, 17))
    model.reset_head(5)
    assert model.num_keypoints == 5 and model(_image(1)).shape[1] == 5


# ------------------------------------------------------------------------------- token space


def test_decode_is_a_function_of_the_ids_alone(tokenizer):
    ids = tokenizer.encode(*_poses())
    assert ids.shape == (3, 34) and ids.dtype == torch.int64
    keypoints = tokenizer.decode(ids)
    assert keypoints.shape == (3, 17, 2)
    torch.testing.assert_close(keypoints, tokenizer(*_poses()).keypoints)
    torch.testing.assert_close(tokenizer.decode(ids.to(torch.int32)), keypoints)
    small = torch.arange(34)[None]  # a byte has no room for the size of the codebook
    assert torch.equal(tokenizer.decode(small.to(torch.uint8)), tokenizer.decode(small))


def test_coordinates_of_hidden_keypoints_have_no_effect(tokenizer):
    keypoints, visible = _poses()
    other = keypoints.clone()
    other[:, 9:11] = float("nan")
    assert torch.equal(tokenizer.encode(other, visible), tokenizer.encode(keypoints, visible))
    shown = tokenizer.encode(keypoints, torch.ones_like(visible))
    assert not torch.equal(shown, tokenizer.encode(keypoints, visible))


def test_complete_fills_hidden_keypoints_and_keeps_the_others(tokenizer):
    keypoints, visible = _poses()
    done = tokenizer.complete(keypoints, visible)
    hidden = visible == 0
    assert torch.equal(done[~hidden], keypoints[~hidden])
    decoded = tokenizer.decode(tokenizer.encode(keypoints, visible))
    torch.testing.assert_close(done[hidden], decoded[hidden])


def test_nearest_is_the_reconstruction_of_the_whole_pose(tokenizer):
    keypoints, _ = _poses()
    ids = tokenizer.encode(keypoints, torch.ones(3, 17, dtype=torch.bool))
    torch.testing.assert_close(tokenizer.nearest(keypoints), tokenizer.decode(ids))


def test_completed_pose_keeps_the_given_precision(tokenizer):
    keypoints, visible = _poses()
    keypoints = keypoints.double() + 1e-9
    done = tokenizer.complete(keypoints, visible)
    assert done.dtype == torch.float64 and torch.equal(done[visible > 0], keypoints[visible > 0])
    assert tokenizer.complete(keypoints.half(), visible).dtype == torch.float32


def test_token_is_the_closest_row_and_ties_take_the_first():
    decoder = TokenDecoder().double()
    decoder.codebook[7] = decoder.codebook[3]
    rows = torch.arange(34)
    found = decoder.nearest_ids(decoder.codebook[rows][None] + 0.01)
    assert found[0].tolist() == [3 if i == 7 else i for i in range(34)]


def test_guided_tokenizer_reads_the_features_under_each_keypoint(guided):
    keypoints, visible = _poses()
    with torch.inference_mode():
        features = guided.forward_features(_image(3))
        found, other = (guided(keypoints, visible, f) for f in (features, features.flip(0)))
        assert not torch.equal(found.embeddings, other.embeddings)
        assert torch.equal(found.ids, guided.encode(keypoints, visible, features))
        assert guided.complete(keypoints, visible, features).shape == (3, 17, 2)
        assert guided.nearest(keypoints, features).shape == (3, 17, 2)


@pytest.mark.parametrize(
    ("x", "cell"),
    [(-1e9, 0), (-40.0, 0), (15.9, 0), (16.0, 1), (47.9, 1), (48.0, 2), (207.9, 6), (208.0, 7),
     (255.0, 7), (1e9, 7)],
)  # fmt: skip
def test_guidance_cell_is_the_rounded_one(x, cell):
    features = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert features_at(features, torch.tensor([[[x, 0.0]]])).item() == cell
    assert features_at(features, torch.tensor([[[0.0, x]]])).item() == 8 * cell


def test_empty_batch_gives_empty_answers(tokenizer):
    keypoints, visible = torch.zeros(0, 17, 2), torch.zeros(0, 17)
    assert tokenizer.encode(keypoints, visible).shape == (0, 34)
    assert tokenizer.complete(keypoints, visible).shape == (0, 17, 2)
    assert tokenizer.decode(torch.zeros(0, 34, dtype=torch.int64)).shape == (0, 17, 2)


def test_tokenizer_compiles_without_graph_breaks(guided):
    keypoints, visible = _poses()
    compiled = torch.compile(guided, fullgraph=True, backend="eager")
    with torch.inference_mode():
        features = guided.forward_features(_image(3))
        ours, theirs = compiled(keypoints, visible, features), guided(keypoints, visible, features)
    assert torch.equal(ours.ids, theirs.ids)
    torch.testing.assert_close(ours.keypoints, theirs.keypoints)


def test_tokens_are_the_same_under_autocast(tokenizer):
    with torch.autocast("cpu", torch.bfloat16):
        ids = tokenizer.encode(*_poses())
    assert torch.equal(ids, tokenizer.encode(*_poses()))


@pytest.mark.parametrize("geometry", ["mmpose0", "mmpose1", "tokenpose"])
def test_frames_lead_from_the_image_to_the_input_and_back(geometry):
    centers, sizes = torch.tensor([[320.5, 240.25]]), torch.tensor([[300.0, 300.0]])
    points = 320 + 100 * make_input("points", (1, 17, 2)).double()
    frame = (centers, sizes, (256, 256), geometry)
    inside = image_to_input(points, *frame)
    torch.testing.assert_close(input_to_image(inside, *frame), points)
    matrix = torch.from_numpy(crop_matrices(centers.numpy(), sizes.numpy(), *frame[2:])[0])
    expected = points @ matrix[:, :2].T + matrix[:, 2]
    torch.testing.assert_close(inside, expected, rtol=1e-5, atol=1e-3)


def _spoil(keypoints: Tensor, visible: Tensor, how: str) -> tuple[Tensor, Tensor]:
    if how == "nan":
        keypoints[1, 3, 0] = float("nan")
    elif how == "infinite":
        keypoints[2, 0, 1] = float("inf")
    elif how == "hidden":
        visible[1] = 0
    elif how in ("2", "0.5", "-1", "nan flag"):
        visible[0, 0] = float(how.split()[0])
    return keypoints, visible


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "keypoint 3 of pose 1 is .*nan.*mark it hidden"),
        ("infinite", "keypoint 0 of pose 2 is .*inf"),
        ("hidden", "pose 1 has no visible keypoint"),
        ("2", r"visible must be 0 or 1, got 2.0.*flags > 0"),
        ("0.5", "visible must be 0 or 1, got 0.5"),
        ("-1", "visible must be 0 or 1, got -1"),
        ("nan flag", "visible must be 0 or 1, got nan"),
    ],
)
def test_poses_that_cannot_be_encoded_are_refused(tokenizer, how, words):
    keypoints, visible = _spoil(*_poses(), how)
    for run in (tokenizer.encode, tokenizer.complete):
        with pytest.raises(InputError, match=words):
            run(keypoints, visible)


@pytest.mark.parametrize("shape", [(17, 2), (3, 16, 2), (3, 17, 3), (3, 2, 17), (3, 133, 2)])
def test_keypoints_of_another_shape_are_refused(tokenizer, shape):
    for run in (lambda k: tokenizer.encode(k, torch.ones(shape[:-1])), tokenizer.nearest):
        with pytest.raises(InputError, match=r"keypoints must have shape \(N, 17, 2\)"):
            run(torch.zeros(shape))
    with pytest.raises(InputError, match=r"visible must have shape \(3, 17\)"):
        tokenizer.encode(torch.zeros(3, 17, 2), torch.ones(3, 16))


@pytest.mark.parametrize("make", [Tensor.numpy, Tensor.tolist, lambda t: None])
def test_what_is_no_tensor_is_refused(tokenizer, guided, make):
    keypoints, visible = _poses()
    for run, name in (
        (lambda: tokenizer.encode(make(keypoints), visible), "keypoints"),
        (lambda: tokenizer.complete(keypoints, make(visible)), "visible"),
        (lambda: tokenizer.nearest(make(keypoints)), "keypoints"),
        (lambda: tokenizer(make(keypoints), visible), "keypoints"),
        (lambda: tokenizer.decode(make(torch.zeros(1, 34))), "ids"),
    ):
        with pytest.raises(InputError, match=f"{name} must be a torch tensor, got .*as_tensor"):
            run()
    with pytest.raises(InputError, match="image_features"):
        guided.encode(keypoints, visible, make(torch.zeros(3, 256, 8, 8)))


def test_forward_refuses_shapes_types_and_devices(tokenizer):
    keypoints, visible = _poses()
    for arguments, words in (
        ((keypoints[0], visible[0]), r"keypoints must have shape \(N, 17, 2\)"),
        ((keypoints, visible[:1]), r"visible must have shape \(3, 17\), got \(1, 17\)"),
        ((keypoints.long(), visible), "keypoints must be floating point, got torch.int64"),
        ((keypoints.to("meta"), visible), "keypoints must be on the device .* cpu, got meta"),
        ((keypoints, visible.to("meta")), "visible must be on the device"),
    ):
        with pytest.raises(InputError, match=words):
            tokenizer(*arguments)


def test_features_that_are_not_finite_are_refused(guided):
    features = torch.zeros(3, 256, 8, 8)
    features[1, 5, 2, 2] = float("nan")
    with pytest.raises(InputError, match="image_features hold NaN or infinity"):
        guided.encode(*_poses(), features)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.zeros(34, dtype=torch.int64), r"shape \(N, 34\), got \(34,\)"),
        (torch.zeros(1, 17, dtype=torch.int64), r"shape \(N, 34\), got \(1, 17\)"),
        (torch.zeros(1, 34), "must be integers, got torch.float32"),
        (torch.zeros(1, 34, dtype=torch.bool), "must be integers, got torch.bool"),
        (torch.full((1, 34), 2048), "token id 2048 is outside the codebook; valid: 0 to 2047"),
        (torch.full((1, 34), -1), "token id -1 is outside the codebook"),
    ],
)
def test_ids_that_are_no_tokens_are_refused(tokenizer, ids, words):
    with pytest.raises(InputError, match=words):
        tokenizer.decode(ids)


def test_guidance_that_does_not_fit_is_refused(tokenizer, guided):
    with pytest.raises(
        InputError, match=r"needs image_features of shape \(3, 256, 8, 8\), got none"
    ):
        guided.encode(*_poses())
    with pytest.raises(InputError, match=r"got shape \(1, 256, 8, 8\)"):
        guided.encode(*_poses(), torch.zeros(1, 256, 8, 8))
    with pytest.raises(InputError, match="leave image_features out"):
        tokenizer.encode(*_poses(), torch.zeros(3, 256, 8, 8))
    with pytest.raises(InputError, match="coordinates alone"):
        tokenizer.forward_features(_image(1))


# ------------------------------------------------------------------------------- files


def _original(pose: PCTPose) -> dict[str, Tensor]:
    """The pose model as the authors would have written it: with all that inference ignores."""
    manifest = MANIFESTS["pct_swin_base"]
    names = pose.convert_state_dict(_hollow("pct_swin_base")).sources
    state = {names[key]: value for key, value in pose.state_dict().items()}
    state |= {f"extra_{key}": value for key, value in state.items() if key.startswith("backbone.")}
    for key, spec in manifest.items():
        if "tokenizer." in key and key not in state:
            state[key] = make_tensor(key, tuple(spec["shape"]))
    for block in ("backbone.layers.0.blocks.0", "extra_backbone.layers.0.blocks.0"):
        state[f"{block}.attn.relative_position_index"] = torch.zeros(256, 256, dtype=torch.int64)
        state[f"{block}.attn.relative_coords_table"] = torch.zeros(1, 31, 31, 2)
    return state


WRAPPERS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"meta": {"epoch": 1}, "state_dict": state, "optimizer": {}},
    "model": lambda state: {"model": state},
    "module": lambda state: {"module": state},
    "module.": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "backbone.": lambda state: {"state_dict": {f"backbone.{k}": v for k, v in state.items()}},
    "module.backbone.": lambda s: {"model": {f"module.backbone.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("variant", ["pct_swin_base", "pct_tokenizer_swin_base", "hmp_base"])
def test_files_are_understood_in_every_wrapper(variant, wrapper, tmp_path):
    torch.save(WRAPPERS[wrapper](_hollow(variant)), tmp_path / "swin_base.pth")
    with torch.device("meta"):
        model = _registry.build_model(variant.replace("hmp_", "hmp_swin_"))
    report = posezoo.load_checkpoint(model, tmp_path / "swin_base.pth")
    assert set(report.loaded) == set(model.state_dict())
    assert len(report.loaded) + len(report.ignored) == len(MANIFESTS[variant])


@pytest.mark.parametrize(
    "wrapper",
    [
        "state_dict",
        *(pytest.param(w, marks=pytest.mark.slow) for w in WRAPPERS if w != "state_dict"),
    ],
)
def test_convert_slims_a_pose_file_and_says_how(registered, pose, tmp_path, wrapper):
    source = tmp_path / "swin_base.pth"
    state = _original(pose)
    torch.save(WRAPPERS[wrapper](state), source)
    outputs = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        args = ["convert", str(source), "--model", registered, "--out", str(folder)]
        outcome = CliRunner().invoke(main, args)
        assert outcome.exit_code == 0, outcome.output
        outputs.append(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    assert outputs[0] == outputs[1] and f"output   sha256 {outputs[0]}" in outcome.output
    used = len(pose.state_dict())
    assert hashlib.sha256(source.read_bytes()).hexdigest() in outcome.output
    assert f"{len(state)} read, {used} used, {len(state) - used} ignored" in outcome.output
    for count, reason in (
        (4, "computed from the window size"),
        (59, "encoder of the tokenizer, no part of pose inference"),
        (2, "running sums behind the codebook, for training only"),
        (len(pose.backbone.state_dict()), "backbone of the tokenizer, equal to the one used"),
    ):
        assert f"{count} ignored: {reason}" in outcome.output
    again = posezoo.create_model(f"local-dir:{tmp_path / 'a'}")
    with torch.inference_mode():
        assert torch.equal(again(_image(1)).keypoints, pose(_image(1)).keypoints)


def test_second_backbone_may_differ_or_be_missing(registered, pose, tmp_path):
    state = _original(pose)
    key = "extra_backbone.layers.3.blocks.1.mlp.fc2.bias"
    for change, words in (
        ({key: state[key] + 1}, "backbone of the tokenizer, other than the one used"),
        ({key: state[key]}, "backbone of the tokenizer, equal to the one used"),
    ):
        report = posezoo.load_checkpoint(_tiny_pose(), state | change)
        assert words in report.ignored.values()
    stripped = {k: v for k, v in state.items() if not k.startswith("extra_backbone.")}
    model = _tiny_pose()
    report = posezoo.load_checkpoint(model, stripped)
    assert not any("tokenizer, equal" in reason for reason in report.ignored.values())
    assert all(torch.equal(v, pose.state_dict()[k]) for k, v in model.state_dict().items())


def test_all_of_a_tokenizer_file_is_kept(guided):
    names = guided.convert_state_dict(_hollow("pct_tokenizer_swin_base")).sources
    state = {names[key]: value for key, value in guided.state_dict().items()}
    assert {"keypoint_head.tokenizer.ema_w", "keypoint_head.tokenizer.invisible_token"} < set(state)
    model = PCTTokenizer(SwinBackbone("tiny"))
    assert not posezoo.load_checkpoint(model, state).ignored
    assert all(torch.equal(v, guided.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("file", "name", "words"),
    [
        ("pct_swin_large", "pct_swin_base", "looks like pct_swin_large$"),
        ("pct_swin_base", "pct_swin_large", "looks like pct_swin_base$"),
        ("pct_swin_base", "pct_tokenizer_swin_base", "looks like pct_swin_base$"),
        ("pct_swin_base", "hmp_swin_base", "looks like pct_swin_base$"),
        ("pct_swin_base", "pct_swin_base_woimgguide",
         "with image guidance; it looks like pct_swin_base$"),
        ("pct_swin_base_woimgguide", "pct_swin_base",
         "without image guidance; it looks like pct_swin_base_woimgguide$"),
        ("pct_tokenizer_swin_base", "pct_swin_base", "looks like pct_tokenizer_swin_base$"),
        ("pct_tokenizer_swin_base_woimgguide", "pct_tokenizer_swin_base",
         "looks like pct_tokenizer_swin_base_woimgguide$"),
        ("hmp_base", "pct_swin_base", "looks like hmp_swin_base$"),
    ],
)  # fmt: skip
def test_file_of_another_kind_is_named(file, name, words):
    with torch.device("meta"):
        model = _registry.build_model(name)
    with pytest.raises(CheckpointError, match=words):
        posezoo.load_checkpoint(model, _hollow(file))


@pytest.mark.parametrize("prefix", ["encoder.", "", "backbone."])
def test_backbone_given_for_a_model_is_named(prefix):
    """`encoder.`: SimMIM's files."""
    state = {
        prefix + key.removeprefix("backbone."): value
        for key, value in _hollow("hmp_base").items()
        if key.startswith("backbone.") and "norm3" not in key
    }
    if prefix == "encoder.":
        state["decoder.0.weight"] = torch.zeros(()).expand(3072, 1024, 1, 1)
    with torch.device("meta"):
        model = _registry.build_model("pct_swin_base")
    with pytest.raises(CheckpointError, match="looks like the backbone of hmp_swin_base$"):
        posezoo.load_checkpoint(model, state)


def test_integers_are_no_weights(pose):
    state = {**pose.state_dict(), "head.classify.bias": torch.zeros(2048, dtype=torch.int8)}
    words = r"1 mismatched: head.classify.bias: file \(2048,\) torch.int8, model \(2048,\)"
    with pytest.raises(CheckpointError, match=words):
        posezoo.load_checkpoint(_tiny_pose(), state)


def _upstream(backbone: SwinBackbone, prefix: str) -> dict[str, Tensor]:
    names = SwinBackbone.convert_state_dict(_hollow("hmp_base")).sources
    return {
        prefix + names[key].removeprefix("backbone."): value
        for key, value in backbone.state_dict().items()
    }


@pytest.mark.parametrize("prefix", ["", "backbone.", "extra_backbone.", "encoder."])
def test_backbone_loads_from_every_kind_of_file(backbone, prefix):
    """SimMIM (encoder.), heatmap, pose (backbone.), tokenizer (extra_backbone.), bare."""
    state = _upstream(backbone, prefix)
    if prefix:
        state["keypoint_head.final_layer.bias"] = torch.zeros(17)
    if prefix == "encoder.":
        state |= {"decoder.0.bias": torch.zeros(3), "encoder.mask_token": torch.zeros(1, 1, 32)}
        state |= {"encoder.norm.weight": torch.zeros(256), "encoder.norm.bias": torch.ones(256)}
    if prefix == "backbone.":
        state |= {key: value + 1 for key, value in _upstream(backbone, "extra_backbone.").items()}
    key = f"{prefix}layers.0.blocks.0.attn.relative_position_index"
    state[key] = torch.zeros(36, 36, dtype=torch.int64)
    for norm in ("weight", "bias"):
        del state[f"{prefix}norm3.{norm}"]
    fresh = _fill(SwinBackbone("tiny"), seed=1)
    report = posezoo.load_checkpoint(fresh, state)
    assert report.ignored[key] == "computed from the window size"
    for name, value in fresh.state_dict().items():
        if name == "norm.weight":
            assert (value == 1).all()
        elif name == "norm.bias":
            assert not value.any()
        else:
            assert torch.equal(value, backbone.state_dict()[name]), name


def test_backbone_with_anything_else_missing_is_refused(backbone):
    state = _upstream(backbone, "encoder.")
    del state["encoder.layers.1.blocks.0.attn.q_bias"]
    with pytest.raises(CheckpointError, match="1 missing: layers.1.blocks.0.attn.q_bias"):
        posezoo.load_checkpoint(SwinBackbone("tiny"), state)


def test_last_norm_of_a_file_that_has_one_is_used(backbone):
    fresh = SwinBackbone("tiny")
    posezoo.load_checkpoint(fresh, _upstream(backbone, "backbone."))
    assert torch.equal(fresh.norm.weight, backbone.norm.weight)


def test_weights_that_need_a_browser_name_the_page():
    with pytest.raises(posezoo.errors.WeightsUnavailableError, match="swin_base.pth.*sharepoint"):
        posezoo.create_model("pct_swin_base", pretrained=True)
    with pytest.raises(posezoo.errors.WeightsUnavailableError, match="no confirmed file"):
        posezoo.create_model("pct_swin_base_woimgguide", pretrained=True)


# ------------------------------------------------------------------------------- full size


@pytest.mark.slow
def test_huge_runs_for_real_and_equals_the_plain_path():
    model = _fill(posezoo.create_model("pct_swin_huge"))
    with torch.inference_mode():
        output = model(_image(1))
        assert output.keypoints.shape == (1, 17, 2) and output.logits.shape == (1, 34, 2048)
        model.backbone.plain = True
        for ours, theirs in zip(output, model(_image(1))):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


_CONVERT = """
import sys, pathlib, timm, posezoo
from posezoo.weights.convert import convert_file

def peak():  # KiB of this process image
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak()
cfg = posezoo.get_pretrained_cfg("pct_swin_base")
convert_file(pathlib.Path(sys.argv[1]), cfg, pathlib.Path(sys.argv[2]))
print((peak() - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("second_backbone", ["equal", "other"])
def test_convert_needs_less_than_twice_what_it_writes(tmp_path, second_backbone):
    """Beyond the imports, and with one tensor of slack."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(value.shape, generator=generator).to(value.dtype)
        for key, value in _hollow("pct_swin_base").items()
    }
    if second_backbone == "equal":
        state |= {k: state[k.removeprefix("extra_")].clone() for k in state if k[:6] == "extra_"}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "swin_base.pth")
    largest = max(t.numel() * t.element_size() for t in state.values())
    run = subprocess.run(
        [sys.executable, "-c", _CONVERT, str(tmp_path / "swin_base.pth"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert int(run.stdout) < 2 * written + largest
    assert written < 0.6 * (tmp_path / "swin_base.pth").stat().st_size
