"""torch.hub from a checkout, and timm with our classifiers in its registry."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import posezoo
from posezoo.errors import InputError

ROOT = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A classifier, and the files that hold it."""
    model = posezoo.create_model("uniformer_small")
    folder = posezoo.save_pretrained(model, tmp_path_factory.mktemp("saved"))
    return model, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def on_hub(hub, saved, monkeypatch):
    """The classifier, in the user's namespace on the stand-in Hub."""
    model, files = saved
    hub.add("mine/uniformer_small.in1k", files)
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mine")
    return model


def test_load_by_name_with_and_without_weights(on_hub):
    model = torch.hub.load(ROOT, "uniformer_small", source="local", pretrained=True)
    assert torch.equal(model.head.weight, on_hub.head.weight)
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


def test_missing_dependency_is_named_by_torch_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeError, match="Missing dependencies: PIL"):
        torch.hub.load(ROOT, "uniformer_small", source="local")


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
    assert torch.equal(tagged.head.weight, on_hub.head.weight)
    assert "uniformer_small" in timm.list_models("uniformer*")
    with pytest.raises(InputError, match="features_only.*forward_intermediates"):
        timm.create_model("uniformer_small", features_only=True)
