"""torch.hub from a checkout, and timm with our classifiers in its registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from goldens.fill import make_state, manifests

import posezoo
from posezoo.errors import InputError
from posezoo.weights.convert import convert_file

ROOT = str(Path(__file__).parents[1])


def _upload(hub, family, name, folder):
    """Put a model with stand-in weights on the stand-in Hub; return its authors' state."""
    state = make_state(manifests(family)[name.split(".")[0]])
    torch.save(state, folder / "w.pth")
    convert_file(folder / "w.pth", posezoo.get_pretrained_cfg(name), folder / "out")
    files = {p.name: p.read_bytes() for p in (folder / "out").iterdir()}
    hub.add(f"mine/{name}", files)
    return state


@pytest.fixture(autouse=True)
def _namespace(monkeypatch):
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mine")


@pytest.fixture
def on_hub(hub, tmp_path):
    """uniformer_small with stand-in weights on the stand-in Hub."""
    _upload(hub, "uniformer", "uniformer_small.in1k", tmp_path)


def test_whole_body_model_arrives_with_its_weights(hub, tmp_path):
    state = _upload(hub, "tcformer", "tcformer_mta_256x192.coco_wholebody", tmp_path)
    model = torch.hub.load(ROOT, "tcformer_mta_256x192", source="local", pretrained=True)
    for key in ("keypoint_head.final_layer.weight", "keypoint_head.final_layer.bias"):
        assert torch.equal(dict(model.named_parameters())[key.replace("keypoint_", "")], state[key])


def test_load_by_name_with_and_without_weights(on_hub):
    model = torch.hub.load(ROOT, "uniformer_small", source="local", pretrained=True)
    expected = make_state(manifests("uniformer")["uniformer_small"])
    assert torch.equal(model.head.weight, expected["head.weight"])
    model = torch.hub.load(ROOT, "uniformer_small", source="local", num_classes=3)
    assert model.num_classes == 3
    model = torch.hub.load(ROOT, "uniformer_s_256x192", source="local", tag="coco_official")
    assert model.pretrained_cfg.tag == "coco_official"
    assert (
        torch.hub.load(ROOT, "create_model", "uniformer_small", source="local").num_classes == 1000
    )


def test_entry_points_are_the_architectures_and_nothing_else(monkeypatch):
    """`list` and `help` take no `source`: GitHub is replaced by this checkout."""
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *args, **kwargs: ROOT)
    entry_points = set(torch.hub.list("org/posezoo"))
    assert entry_points == {*posezoo.list_models(), "create_model"}
    text = torch.hub.help("org/posezoo", "uniformer_s_256x192")
    assert text.startswith("uniformer_s_256x192: top-down heatmap pose")


def test_missing_dependency_is_named_by_torch_hub(tmp_path):
    code = (
        "import sys, torch; sys.modules['PIL'] = None\n"
        f"torch.hub.load({ROOT!r}, 'uniformer_small', source='local')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Missing dependencies: PIL" in done.stderr


def test_timm_knows_the_classifiers_on_request(on_hub):
    import timm

    from posezoo.timm_bridge import register_with_timm

    names = register_with_timm()
    assert set(posezoo.list_models(task="classification")) == set(names)
    assert register_with_timm() == []
    model = timm.create_model("uniformer_small", pretrained=True, num_classes=5)
    assert model(torch.randn(1, 3, 224, 224)).shape == (1, 5)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224) and config["crop_pct"] == 0.875
    tagged = timm.create_model("uniformer_small.in1k", pretrained=True)
    assert torch.equal(
        tagged.head.weight, make_state(manifests("uniformer")["uniformer_small"])["head.weight"]
    )
    assert "uniformer_small" in timm.list_models("uniformer*")
    with pytest.raises(InputError, match="features_only.*forward_intermediates"):
        timm.create_model("uniformer_small", features_only=True)
