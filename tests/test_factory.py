"""create_model: names in, models out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from standins.weights import SMALL

import posezoo
from posezoo.errors import CheckpointError, InputError, UnknownModelError
from posezoo.zoo.address import Address, https, hub
from posezoo.zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg

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
    with pytest.raises(TypeError, match="Linear has no pretrained_cfg"):
        posezoo.save_pretrained(torch.nn.Linear(2, 2), tmp_path)


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
        ({"posezoo": {}}, "is missing"),
        ({"posezoo": {"task": "pose", "dataset": "coco", "input": {"size": [0, 8]}}}, "input size"),
    ],
)
def test_damaged_config_is_refused(saved, tmp_path, change, words):
    config = json.loads((saved[1] / "config.json").read_text())
    text = json.dumps({**config, **change} if isinstance(change, dict) else change)
    (tmp_path / "config.json").write_text("not json" if change == "not json" else text)
    with pytest.raises(CheckpointError, match=words):
        posezoo.create_model(f"local-dir:{tmp_path}")


DARK = DecodeCfg(codec="heatmap", heatmap_size=(8, 8), refine="dark", blur_kernel=7)
CROP = InputCfg(size=(8, 8), geometry="mmpose0")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InputCfg(size=(8, 8), std=(1, 1, 0)), "std is"),
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
    code = (
        "import posezoo, torch, posezoo.zoo.factory\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "base = peak()\n"
        f"model = posezoo.create_model('local-dir:{folder}')\n"
        "print((peak() - base) * 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.2 * (folder / "model.safetensors").stat().st_size + 30e6
