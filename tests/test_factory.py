"""create_model: names in, models out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import posezoo
from posezoo.errors import CheckpointError, UnknownModelError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = posezoo.create_model("uniformer_small")
    return model, posezoo.save_pretrained(model, tmp_path_factory.mktemp("saved"))


def _equal(a, b) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_model_is_ready_to_use():
    model = posezoo.create_model("uniformer_small")
    assert not model.training and model.pretrained_cfg.name == "uniformer_small.in1k"
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_saved_model_comes_back_equal_to_the_last_bit(saved):
    model, folder = saved
    again = posezoo.create_model(f"local-dir:{folder}")
    assert _equal(model, again) and not again.training
    assert not any(t.is_meta for t in [*again.parameters(), *again.buffers()])
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(image), again(image))
    assert again.pretrained_cfg == model.pretrained_cfg


def test_checkpoint_argument_loads_and_conflicts_are_refused(saved):
    model, folder = saved
    weights = folder / "model.safetensors"
    assert _equal(model, posezoo.create_model("uniformer_small", checkpoint=weights))
    with pytest.raises(ValueError, match="either"):
        posezoo.create_model("uniformer_small", pretrained=True, checkpoint=weights)
    with pytest.raises(ValueError, match="names weights already"):
        posezoo.create_model(f"local-dir:{folder}", checkpoint=weights)


def test_another_number_of_classes_keeps_the_body_and_says_so_in_config(saved, tmp_path):
    model, folder = saved
    small = posezoo.create_model(f"local-dir:{folder}", num_classes=7)
    assert small(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert torch.equal(small.backbone.stages[3].blocks[0].attn.qkv.weight,
                       model.backbone.stages[3].blocks[0].attn.qkv.weight)  # fmt: skip
    again = posezoo.create_model(f"local-dir:{posezoo.save_pretrained(small, tmp_path)}")
    assert _equal(small, again) and again.num_classes == 7


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
    ],
)
def test_damaged_config_is_refused(saved, tmp_path, change, words):
    _, folder = saved
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    text = json.dumps({**config, **change} if isinstance(change, dict) else change)
    (tmp_path / "config.json").write_text("not json" if change == "not json" else text)
    with pytest.raises(CheckpointError, match=words):
        posezoo.create_model(f"local-dir:{tmp_path}")


def test_official_tag_brings_its_epsilon():
    model = posezoo.create_model("uniformer_s_256x192.coco_official")
    assert model.backbone.stages[2].blocks[0].norm1.eps == 1e-6
    assert (
        posezoo.create_model("uniformer_s_256x192").backbone.stages[2].blocks[0].norm1.eps == 1e-5
    )


def test_loading_peaks_at_little_more_than_the_size_of_the_file(tmp_path):
    """Nothing is initialised only to be overwritten, and no second copy is held."""
    folder = posezoo.save_pretrained(posezoo.create_model("uniformer_base"), tmp_path)
    code = (
        "import posezoo, torch, huggingface_hub, safetensors.torch\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "base = peak()\n"
        f"model = posezoo.create_model('local-dir:{folder}')\n"
        "print((peak() - base) * 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.2 * (folder / "model.safetensors").stat().st_size + 30e6
