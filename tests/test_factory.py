"""create_model: names in, models out."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os

import pytest
import torch
from click.testing import CliRunner
from standins.memory import highest_rise
from standins.weights import SMALL, small_cfg

import posezoo
from posezoo.cli import main
from posezoo.errors import CheckpointError, InputError, IntegrityError, UnknownModelError
from posezoo.files import sha256_of
from posezoo.weights.convert import convert_file
from posezoo.weights.publish import golden_of
from posezoo.zoo.address import Address, https, hub
from posezoo.zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from posezoo.zoo.factory import resolve_cfg
from posezoo.zoo.registry import ARCHITECTURES
from posezoo.zoo.wrapped import unwrap

IMAGE = torch.randn(1, 3, 128, 96)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = posezoo.create_model(SMALL)
    return model, posezoo.save_pretrained(model, tmp_path_factory.mktemp("saved"))


def _equal(a, b) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_model_is_ready_to_use():
    model = posezoo.create_model(SMALL)
    assert not model.training and model.pretrained_cfg.name == f"{SMALL}.rendered"
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_saved_model_comes_back_equal_to_the_last_bit(saved):
    model, folder = saved
    again = posezoo.create_model(f"local-dir:{folder}")
    assert _equal(model, again) and not again.training
    assert not any(t.is_meta for t in [*again.parameters(), *again.buffers()])
    assert torch.equal(model(IMAGE), again(IMAGE))
    assert again.pretrained_cfg == model.pretrained_cfg


def test_checkpoint_argument_loads_and_conflicts_are_refused(saved):
    model, folder = saved
    weights = folder / "model.safetensors"
    assert _equal(model, posezoo.create_model(SMALL, checkpoint=weights))
    with pytest.raises(ValueError, match="either"):
        posezoo.create_model(SMALL, pretrained=True, checkpoint=weights)
    with pytest.raises(ValueError, match="names weights already"):
        posezoo.create_model(f"local-dir:{folder}", checkpoint=weights)


def test_another_head_keeps_the_body_and_says_so_in_config(saved, tmp_path):
    model, folder = saved
    name = f"local-dir:{folder}"
    small = posezoo.create_model(name, num_keypoints=7)
    assert small(IMAGE).shape == (1, 7, 32, 24)
    body, ours = small.trunk.state_dict(), model.trunk.state_dict()
    assert all(torch.equal(body[k], ours[k]) for k in ours)
    again = posezoo.create_model(f"local-dir:{posezoo.save_pretrained(small, tmp_path)}")
    assert _equal(small, again) and again.num_keypoints == 7
    assert json.loads((tmp_path / "config.json").read_text())["model_args"] == {"num_keypoints": 7}
    assert json.loads((folder / "config.json").read_text())["model_args"] == {}
    with pytest.raises(InputError, match="num_keypoints is '7'"):
        posezoo.create_model(name, num_keypoints="7")


def test_classifiers_are_saved_with_what_timm_reads(tmp_path):
    model = posezoo.create_model("uniformer_small", num_classes=3)
    config = json.loads((posezoo.save_pretrained(model, tmp_path) / "config.json").read_text())
    assert config["num_classes"] == 3 and config["num_features"] == 512
    assert config["pretrained_cfg"]["input_size"] == [3, 224, 224]
    assert config["pretrained_cfg"]["crop_pct"] == 0.875


def test_only_models_of_the_zoo_are_saved(tmp_path):
    for other, words in ((torch.nn.Linear(2, 2), "Linear has no"), ("hrnet", "str has no")):
        with pytest.raises(TypeError, match=words):
            posezoo.save_pretrained(other, tmp_path)


def _averaged(model):
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: torch.compile(m, backend="eager"),
        torch.nn.DataParallel,
        lambda m: torch.nn.DataParallel(torch.compile(m, backend="eager")),
        torch.optim.swa_utils.AveragedModel,
        _averaged,
    ],
    ids=["compiled", "DataParallel", "both", "AveragedModel", "ModelEmaV3"],
)
def test_wrapped_model_is_saved_and_filled_under_its_own_keys(saved, tmp_path, wrap):
    model, folder = saved
    wrapped = wrap(copy.deepcopy(model))
    wrote = posezoo.save_pretrained(wrapped, tmp_path / "saved")
    for name in ("config.json", "model.safetensors"):
        assert (wrote / name).read_bytes() == (folder / name).read_bytes()
    assert _equal(model, posezoo.create_model(f"local-dir:{wrote}"))
    torch.save(wrapped.state_dict(), tmp_path / "wrapped.pth")
    for source in (tmp_path / "wrapped.pth", wrapped.state_dict(), wrote / "model.safetensors"):
        other = wrap(posezoo.create_model(SMALL))
        posezoo.load_checkpoint(other, source)
        assert _equal(model, unwrap(other))
    golden, expected = golden_of(wrapped), golden_of(model)
    assert all(torch.equal(golden[key], expected[key]) for key in expected)


def test_model_that_would_not_load_again_is_not_saved(saved, tmp_path):
    model = copy.deepcopy(saved[0])
    model.head.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"head\.extra\.weight.*would not load again"):
        posezoo.save_pretrained(model, tmp_path)
    model = copy.deepcopy(saved[0])
    model.head.final_layer = torch.nn.Conv2d(24, 3, 1)
    with pytest.raises(CheckpointError, match=r"head\.final_layer\.weight"):
        posezoo.save_pretrained(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_disk_that_gives_other_bytes_is_noticed(saved, tmp_path, monkeypatch):
    folder = posezoo.save_pretrained(saved[0], tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(hashlib, "sha256", lambda *data: hashlib.new("sha256", os.urandom(8)))
    with pytest.raises(CheckpointError, match="model.safetensors was not written: the disk"):
        posezoo.save_pretrained(posezoo.create_model(SMALL), tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_checkpoint_with_another_head_loads_first_and_then_gives_a_fresh_one(saved, tmp_path):
    model, folder = saved
    weights = folder / "model.safetensors"
    small = posezoo.create_model(SMALL, checkpoint=weights, num_keypoints=7)
    assert small(IMAGE).shape[1] == 7
    body, ours = small.trunk.state_dict(), model.trunk.state_dict()
    assert all(torch.equal(body[k], ours[k]) for k in ours)
    posezoo.save_pretrained(small, tmp_path)
    again = posezoo.create_model(SMALL, checkpoint=tmp_path / "model.safetensors", num_keypoints=7)
    assert _equal(small, again)  # the file's own head fits: it is kept
    with pytest.raises(CheckpointError, match="mismatched: head.final_layer"):
        posezoo.create_model(SMALL, checkpoint=tmp_path / "model.safetensors", num_keypoints=5)
    for size in (-1, 10**18):
        with pytest.raises(InputError, match=f"num_keypoints is {size}"):
            posezoo.create_model(SMALL, checkpoint=weights, num_keypoints=size)


def test_cached_weights_that_were_changed_after_the_check_are_not_used(saved, monkeypatch):
    """A check is remembered by size and time of the file; what is loaded is hashed anyway."""
    original = saved[1] / "model.safetensors"
    cfg = small_cfg(original_sha256=sha256_of(original))
    monkeypatch.setitem(ARCHITECTURES[SMALL].cfgs, "rendered", cfg)
    folder = convert_file(original, cfg).directory
    assert _equal(saved[0], posezoo.create_model(SMALL, pretrained=True))
    path = folder / "model.safetensors"
    data, time = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(time, time))
    with pytest.raises(IntegrityError, match="model.safetensors has hash"):
        posezoo.create_model(SMALL, pretrained=True)


def test_name_of_another_type_is_refused(tmp_path):
    for name in (tmp_path, None, 5):
        with pytest.raises(UnknownModelError, match="the name of a model is text.*local-dir:"):
            posezoo.create_model(name)


def test_configuration_of_a_name_needs_no_weights(saved, tmp_path):
    model, folder = saved
    posezoo.save_pretrained(posezoo.create_model(SMALL, num_keypoints=7), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    cfg = resolve_cfg(f"local-dir:{tmp_path}")
    assert cfg.model_args == {"num_keypoints": 7} and cfg.name == model.pretrained_cfg.name
    assert resolve_cfg(SMALL) == posezoo.get_pretrained_cfg(SMALL)
    result = CliRunner().invoke(main, ["info", f"local-dir:{tmp_path}"])
    assert result.exit_code == 0 and "num_keypoints=7" in result.output


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("org/model", UnknownModelError, "hf-hub:org/model"),
        ("./folder", UnknownModelError, "local-dir:./folder"),
        ("uniformer", UnknownModelError, "uniformer_"),
        ("", UnknownModelError, "list_models"),
        ("local-dir:/nowhere", CheckpointError, "/nowhere/config.json"),
    ],
)
def test_name_that_means_nothing(name, error, words):
    with pytest.raises(error, match=words):
        posezoo.create_model(name)


def test_misspelt_argument_lists_valid_ones():
    with pytest.raises(TypeError, match="'num_clases'.*did you mean 'num_classes'.*drop_path_rate"):
        posezoo.create_model("uniformer_small", num_clases=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("not json", "not a posezoo configuration"),
        ([], "not a posezoo configuration"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"architecture": 5}, "'architecture' is 5"),
        ({"architecture": "uniformer_base"}, "disagree"),
        ({"model_args": []}, "'model_args' is"),
        ({"model_args": {"num_keypoints": -1}}, "num_keypoints is -1"),
        ({"model_args": {"num_keypoints": 10**18}}, "num_keypoints is 1000"),
        ({"model_args": {"num_keypoints": "7"}}, "num_keypoints is '7'"),
        ({"model_args": {"num_keypoints": None}}, "num_keypoints is None"),
        ({"model_args": {"drop_path_rate": 7}}, "no argument 'drop_path_rate'"),
        ({"architecture": "nonsense", "posezoo": {"architecture": "nonsense"}}, "no model named"),
        ({"posezoo": {}}, "is missing"),
        ({"posezoo": {"task": "pose", "dataset": "coco", "input": {"size": [0, 8]}}}, "input size"),
    ],
)
def test_damaged_config_is_refused(saved, tmp_path, change, words):
    config = json.loads((saved[1] / "config.json").read_text())
    if isinstance(change, dict):
        inner = {**config["posezoo"], **change.get("posezoo", {})} if change.get("posezoo") else {}
        change = {**config, **change, **({"posezoo": inner} if "posezoo" in change else {})}
    text = change if change == "not json" else json.dumps(change)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        posezoo.create_model(f"local-dir:{tmp_path}")
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"size": [10**8, 8]}, "input size is .100000000, 8.*from 1 to 16384"),
        ({"size": [8, 8], "mean": [math.nan, 0, 0]}, "'input.mean' is nan, expected a finite"),
        ({"size": [8, 8], "std": [1, math.nan, 1]}, "'input.std' is nan"),
        ({"size": [8, 8], "std": [1, 0, 1]}, "std is"),
        ({"size": [8, 8], "bbox_padding": 10**400}, "'input.bbox_padding' is 1000.*finite number"),
    ],
)
def test_number_that_makes_no_sense_in_config_is_refused(saved, tmp_path, value, words):
    config = json.loads((saved[1] / "config.json").read_text())
    config["posezoo"]["input"] |= value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words) as caught:
        posezoo.create_model(f"local-dir:{tmp_path}")
    assert str(tmp_path / "config.json") in str(caught.value)


DARK = DecodeCfg(codec="heatmap", heatmap_size=(8, 8), refine="dark", blur_kernel=7)
CROP = InputCfg(size=(8, 8), geometry="mmpose0")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InputCfg(size=(8, 8), std=(1, 1, 0)), "std is"),
        (lambda: InputCfg(size=(8, 8), std=(1, math.nan, 1)), "std is"),
        (lambda: InputCfg(size=(8, 8), std=(1, math.inf, 1)), "std is"),
        (lambda: InputCfg(size=(8, 8), mean=(0, math.nan, 0)), "mean is"),
        (lambda: InputCfg(size=(8, 8), bbox_padding=0), "bbox_padding is 0"),
        (lambda: InputCfg(size=(8, 8), crop_pct=1.2), "crop_pct is 1.2"),
        (lambda: DecodeCfg(codec="heatmap", heatmap_size=(8, -8)), "heatmap_size is"),
        (lambda: DecodeCfg(codec="heatmap", refine="dark", blur_kernel=4), "blur_kernel is 4"),
        (lambda: MetricsCfg(values={"AP": 74.0}, protocol="", url=""), "AP is 74.0"),
        (lambda: SourceCfg(sha256="abc"), "sha256 is 'abc'"),
        (lambda: SourceCfg(original_sha256="xyz"), "original_sha256 is 'xyz'"),
        (lambda: https("ftp://x/y"), "https address is 'ftp"),
        (lambda: hub("o/r", "f", revision="main"), "revision is 'main'"),
        (lambda: Address(kind="ftp", where="x"), "kind is 'ftp'"),
        (lambda: Address(kind="hub", where="o/r"), "only, have a file"),
        (lambda: SourceCfg(packaged="../x"), "packaged is"),
        (lambda: SourceCfg(packaged="x"), "needs its sha256"),
        (lambda: SourceCfg(packaged="x", unavailable="lost"), "unavailable"),
        (lambda: PretrainedCfg(task="pose", dataset="coco", input=CROP, macs=0), "macs is 0"),
        (lambda: PretrainedCfg(task="pose", dataset="coco", input=InputCfg(size=(8, 8)),
                               decode=DARK), "needs heatmap_size and geometry"),
        (lambda: PretrainedCfg(task="tokenizer", dataset="coco", input=CROP, decode=DARK),
         "only pose models"),
    ],
)  # fmt: skip
def test_impossible_configuration_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_official_tag_brings_its_epsilon():
    for tag, eps in (("coco_official", 1e-6), ("coco", 1e-5)):
        model = posezoo.create_model(f"uniformer_s_256x192.{tag}")
        assert model.backbone.stages[2].blocks[0].norm1.eps == eps


def test_loading_peaks_at_little_more_than_the_size_of_the_file(tmp_path):
    """Nothing is initialised only to be overwritten, and no second copy is held."""
    folder = posezoo.save_pretrained(posezoo.create_model("uniformer_small"), tmp_path)
    name = f"local-dir:{folder}"
    posezoo.create_model(name)  # whatever is imported late
    size = (folder / "model.safetensors").stat().st_size
    assert 0.5 * size < highest_rise(lambda: posezoo.create_model(name)) < 1.2 * size + 30e6
