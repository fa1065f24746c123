"""PCT's pose models, and authors' files of all kinds."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from click.testing import CliRunner
from goldens.fill import make_input, make_tensor, manifests
from standins.memory import highest_rise
from torch import Tensor

import posezoo
from families import fill, on_meta, registered, small, smaller
from families.pct import TINY, name_of
from posezoo.cli import main
from posezoo.codecs import build_codec
from posezoo.errors import CheckpointError, WeightsUnavailableError
from posezoo.models.pct.network import PCTOutput, PCTPose
from posezoo.models.pct.swin import SwinBackbone
from posezoo.weights.convert import convert_file
from posezoo.zoo.catalog import build_model

NAME = "small_pct_swin_base"
MANIFESTS = manifests("pct")


@pytest.fixture(scope="module")
def pose() -> PCTPose:
    return small("pct_swin_base")


@pytest.fixture
def known():
    """The small pose model is in the registry."""
    with registered(smaller("pct_swin_base", **TINY)):
        yield


def _image(batch: int = 2) -> Tensor:
    return make_input("image", (batch, 3, 256, 256))


def _hollow(variant: str) -> dict[str, Tensor]:
    """A state dict of the right keys and shapes that needs no memory but can be written."""
    return {
        key: torch.zeros((), dtype=getattr(torch, spec["dtype"])).expand(spec["shape"])
        for key, spec in MANIFESTS[variant].items()
    }


def test_keypoints_stay_in_full_precision_under_autocast(pose):
    with torch.inference_mode():
        full = pose(_image())
        with torch.autocast("cpu", torch.bfloat16):
            half = pose(_image())
    assert half.logits.dtype == torch.bfloat16 and half.keypoints.dtype == torch.float32
    assert (half.logits - full.logits).std() < 0.1 * full.logits.std()


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


def test_fresh_head_and_codebook_are_those_of_the_recipe():
    torch.manual_seed(0)
    with registered(smaller("pct_swin_base", **TINY)):
        model = build_model(NAME)
    assert model.head.blocks[0].conv1.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert model.decoder.codebook.std().item() == pytest.approx(1, rel=0.01)
    hidden = posezoo.create_model("pct_tokenizer_swin_base_woimgguide").encoder.invisible_token
    assert hidden.abs().max() <= 0.02 and hidden.std() > 0.005


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


# prefixes of PCT's files; wrappers alone are tested where files are read
WRAPPERS = {
    "bare": lambda state: state,
    "module.": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "backbone.": lambda state: {"state_dict": {f"backbone.{k}": v for k, v in state.items()}},
    "module.backbone.": lambda s: {"model": {f"module.backbone.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize(
    ("variant", "wrapper"),
    [
        *(("hmp_base", wrapper) for wrapper in WRAPPERS),
        ("pct_swin_base", "module.backbone."),
        ("pct_tokenizer_swin_base", "backbone."),
    ],
)
def test_files_are_understood_in_every_wrapper(variant, wrapper, tmp_path):
    torch.save(WRAPPERS[wrapper](_hollow(variant)), tmp_path / "swin_base.pth")
    model = copy.deepcopy(on_meta(name_of(variant)))
    report = posezoo.load_checkpoint(model, tmp_path / "swin_base.pth")
    assert set(report.loaded) == set(model.state_dict())
    assert len(report.loaded) + len(report.ignored) == len(MANIFESTS[variant])


def test_convert_slims_a_pose_file_and_says_how(known, pose, tmp_path):
    source = tmp_path / "swin_base.pth"
    state = _original(pose)
    torch.save({"meta": {"epoch": 1}, "state_dict": state, "optimizer": {}}, source)
    folder = tmp_path / "converted"
    outcome = CliRunner().invoke(
        main, ["convert", str(source), "--model", NAME, "--out", str(folder)]
    )
    assert outcome.exit_code == 0, outcome.output
    written = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert f"output   sha256 {written}" in outcome.output
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
    again = posezoo.create_model(f"local-dir:{folder}")
    with torch.inference_mode():
        assert torch.equal(again(_image(1)).keypoints, pose(_image(1)).keypoints)


def test_second_backbone_may_differ_or_be_missing(pose):
    state = _original(pose)
    key = "extra_backbone.layers.3.blocks.0.mlp.fc2.bias"
    for change, words in (
        ({key: state[key] + 1}, "backbone of the tokenizer, other than the one used"),
        ({key: state[key]}, "backbone of the tokenizer, equal to the one used"),
    ):
        assert words in pose.convert_state_dict(state | change).ignored.values()
    stripped = {k: v for k, v in state.items() if not k.startswith("extra_backbone.")}
    model = fill(small("pct_swin_base"), seed=1)
    report = posezoo.load_checkpoint(model, stripped)
    assert not any("backbone of the tokenizer" in reason for reason in report.ignored.values())
    assert all(torch.equal(v, pose.state_dict()[k]) for k, v in model.state_dict().items())


def test_all_of_a_tokenizer_file_is_kept():
    guided = small("pct_tokenizer_swin_base")
    names = guided.convert_state_dict(_hollow("pct_tokenizer_swin_base")).sources
    state = {names[key]: value for key, value in guided.state_dict().items()}
    assert {"keypoint_head.tokenizer.ema_w", "keypoint_head.tokenizer.invisible_token"} < set(state)
    model = fill(small("pct_tokenizer_swin_base"), seed=1)
    assert not posezoo.load_checkpoint(model, state).ignored
    assert all(torch.equal(v, guided.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("file", "name", "words"),
    [
        pytest.param("pct_swin_large", "pct_swin_base", "looks like pct_swin_large$",
                     marks=pytest.mark.slow),
        ("pct_swin_base", "pct_tokenizer_swin_base", "looks like pct_swin_base$"),
        ("pct_swin_base", "pct_swin_base_woimgguide",
         "with image guidance; it looks like pct_swin_base$"),
        ("pct_swin_base_woimgguide", "pct_swin_base",
         "without image guidance; it looks like pct_swin_base_woimgguide$"),
        pytest.param("hmp_base", "pct_swin_base", "looks like hmp_swin_base$",
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_file_of_another_kind_is_named(file, name, words):
    with pytest.raises(CheckpointError, match=words):
        posezoo.load_checkpoint(on_meta(name), _hollow(file))


@pytest.mark.parametrize("prefix", ["encoder.", "backbone."])
def test_backbone_given_for_a_model_is_named(prefix):
    """`encoder.`: SimMIM's files."""
    state = {
        prefix + key.removeprefix("backbone."): value
        for key, value in _hollow("hmp_base").items()
        if key.startswith("backbone.") and "norm3" not in key
    }
    if prefix == "encoder.":
        state["decoder.0.weight"] = torch.zeros(()).expand(3072, 1024, 1, 1)
    with pytest.raises(CheckpointError, match="looks like the backbone of hmp_swin_base$"):
        posezoo.load_checkpoint(on_meta("pct_swin_base"), state)


def _backbone(seed: int = 0) -> SwinBackbone:
    return fill(SwinBackbone(**TINY, drop_path_rate=0.0), seed)


def _upstream(backbone: SwinBackbone, prefix: str) -> dict[str, Tensor]:
    names = SwinBackbone.convert_state_dict(_hollow("hmp_base")).sources
    return {
        prefix + names[key].removeprefix("backbone."): value
        for key, value in backbone.state_dict().items()
    }


@pytest.mark.parametrize("prefix", ["", "backbone.", "extra_backbone.", "encoder."])
def test_backbone_loads_from_every_kind_of_file(prefix):
    """SimMIM (encoder.), heatmap, pose (backbone.), tokenizer (extra_backbone.), bare."""
    backbone = _backbone()
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
    fresh = _backbone(seed=1)
    report = posezoo.load_checkpoint(fresh, state)
    assert report.ignored[key] == "computed from the window size"
    for name, value in fresh.state_dict().items():
        if name == "norm.weight":
            assert (value == 1).all()
        elif name == "norm.bias":
            assert not value.any()
        else:
            assert torch.equal(value, backbone.state_dict()[name]), name


def test_backbone_needs_all_but_the_last_norm_which_is_used_where_it_is():
    backbone, fresh = _backbone(), _backbone(seed=1)
    state = _upstream(backbone, "encoder.")
    del state["encoder.layers.1.blocks.0.attn.q_bias"]
    with pytest.raises(CheckpointError, match="1 missing: layers.1.blocks.0.attn.q_bias"):
        posezoo.load_checkpoint(fresh, state)
    posezoo.load_checkpoint(fresh, _upstream(backbone, "backbone."))
    assert torch.equal(fresh.norm.weight, backbone.norm.weight)


def test_weights_that_need_a_browser_name_the_page():
    with pytest.raises(WeightsUnavailableError, match="swin_base.pth.*sharepoint"):
        posezoo.create_model("pct_swin_base", pretrained=True)
    with pytest.raises(WeightsUnavailableError, match="no confirmed file"):
        posezoo.create_model("pct_swin_base_woimgguide", pretrained=True)


@pytest.mark.slow
def test_huge_runs_for_real_and_equals_the_plain_path():
    model = fill(posezoo.create_model("pct_swin_huge"))
    with torch.inference_mode():
        output = model(_image(1))
        assert output.keypoints.shape == (1, 17, 2) and output.logits.shape == (1, 34, 2048)
        model.backbone.plain = True
        for ours, theirs in zip(output, model(_image(1))):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("second_backbone", ["equal", "other"])
def test_convert_needs_less_than_twice_what_it_writes(tmp_path, second_backbone):
    """With one tensor of slack."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(value.shape, generator=generator).to(value.dtype)
        for key, value in _hollow("pct_swin_base").items()
    }
    if second_backbone == "equal":
        state |= {k: state[k.removeprefix("extra_")].clone() for k in state if k[:6] == "extra_"}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "swin_base.pth")
    largest = max(t.numel() * t.element_size() for t in state.values())
    del state
    source, cfg = tmp_path / "swin_base.pth", posezoo.get_pretrained_cfg("pct_swin_base")
    rise = highest_rise(lambda: convert_file(source, cfg, tmp_path / "out", is_published=False))
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert rise < 2 * written + largest
    assert written < 0.6 * source.stat().st_size
