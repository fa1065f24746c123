"""Names, tags, configurations."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import posezoo
from posezoo.errors import InputError, UnknownModelError
from posezoo.zoo import catalog as _registry
from posezoo.zoo import registry
from posezoo.zoo.arguments import Argument
from posezoo.zoo.config import InputCfg, PretrainedCfg, SourceCfg
from posezoo.zoo.registry import register

ALL = posezoo.list_models(tags=True)


def test_names_obey_the_pattern_and_are_in_natural_order():
    assert all(registry.NAME_PATTERN.fullmatch(name) for name in ALL)
    names = posezoo.list_models("uniformer_s_*")
    assert names == ["uniformer_s_256x192", "uniformer_s_384x288", "uniformer_s_448x320"]


def test_natural_order_puts_6_before_24():
    assert sorted(["l_d24", "l_d6"], key=_registry._natural) == ["l_d6", "l_d24"]


def test_unknown_name_suggests_close_ones():
    with pytest.raises(UnknownModelError, match="uniformer_s_256x192"):
        posezoo.get_pretrained_cfg("uniformer_s_256x129")
    with pytest.raises(KeyError):
        posezoo.create_model("uniformer_s_256x129")


def test_unknown_tag_lists_available_tags():
    with pytest.raises(UnknownModelError, match="'mpii'.*available: coco, coco_official"):
        posezoo.get_pretrained_cfg("uniformer_s_256x192.mpii")


def test_is_model_demands_the_tag_too():
    assert posezoo.is_model("uniformer_s_256x192")
    assert posezoo.is_model("uniformer_s_256x192.coco")
    assert not posezoo.is_model("uniformer_s_256x192.imaginary")
    assert not posezoo.is_model("")


def test_first_tag_is_the_default():
    assert posezoo.get_pretrained_cfg("uniformer_s_256x192").tag == "coco"


def test_filters_combine():
    assert posezoo.list_models(["uniformer_s_2*", "uniformer_base"]) == [
        "uniformer_base", "uniformer_s_256x192",
    ]  # fmt: skip
    assert set(posezoo.list_models(task="classification")) >= {"uniformer_small"}
    assert not set(posezoo.list_models(task="pose")) & {"uniformer_small"}
    assert "uniformer_s_256x192.coco_official" in posezoo.list_models("*official*", tags=True)


def test_models_without_weights_are_left_out_where_weights_are_asked(monkeypatch):
    cfg = posezoo.get_pretrained_cfg("uniformer_small")
    lost = dataclasses.replace(cfg, source=SourceCfg(unavailable="nobody published any"))
    monkeypatch.setitem(registry.ARCHITECTURES["uniformer_small"].cfgs, "in1k", lost)
    assert "uniformer_small" in posezoo.list_models()
    assert "uniformer_small" not in posezoo.list_models(pretrained=True)
    with pytest.raises(posezoo.errors.WeightsUnavailableError, match="nobody published any"):
        posezoo.create_model("uniformer_small", pretrained=True)


@pytest.mark.parametrize(
    ("name", "words"), [("uniformer_small", "twice"), ("Uniformer", "does not match")]
)
def test_taken_and_malformed_names_are_refused(name, words):
    cfg = PretrainedCfg(task="pose", dataset="coco", input=InputCfg(size=(8, 8)))
    with pytest.raises(ValueError, match=words):
        register(name, summary="", build="x:y", fixed={}, args={}, cfgs={"x": cfg})


SHARE = Argument(default=1.0, above=0.0, high=1.0, help="a share")
COUNT = Argument(default=17, low=1, help="a count")
WORD = Argument(default="all", choices=("none", "all"), help="a word")
FLAG = Argument(default=True, help="a flag")


@pytest.mark.parametrize(
    ("argument", "given", "found"),
    [
        (SHARE, 1, 1.0), (SHARE, np.float32(0.5), 0.5), (COUNT, np.int64(3), 3),
        (WORD, None, "none"), (WORD, "all", "all"), (FLAG, False, False),
    ],
)  # fmt: skip
def test_valid_arguments_become_the_type_of_the_default(argument, given, found):
    value = argument.check("x", given)
    assert value == found and type(value) is type(argument.default)


@pytest.mark.parametrize(
    ("argument", "given", "valid"),
    [
        (SHARE, 0, "a number above 0, at most 1 .a share."), (SHARE, float("nan"), "a number"),
        (SHARE, True, "a number"), (SHARE, "1", "a number"), (COUNT, 0, "an integer from 1"),
        (COUNT, 1.0, "an integer"), (COUNT, None, "an integer"), (WORD, "no", "one of none, all"),
        (WORD, False, "one of none, all"), (FLAG, 1, "True or False"),
    ],
)  # fmt: skip
def test_other_arguments_are_refused_with_what_is_valid(argument, given, valid):
    with pytest.raises(InputError, match=f"^x is {given!r}, expected {valid}"):
        argument.check("x", given)


@pytest.mark.parametrize("name", ALL)
def test_configuration_survives_json_and_obeys_the_schema_of_its_task(name):
    cfg = posezoo.get_pretrained_cfg(name)
    again = PretrainedCfg.from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert again.to_dict() == cfg.to_dict()
    assert again == cfg
    assert cfg.description and cfg.source.paper and cfg.macs
    assert cfg.has_weights == (cfg.source.unavailable is None)
    if cfg.has_weights:
        assert cfg.source.license and cfg.source.dataset_license
        source = cfg.source
        assert source.addresses or source.original_page or source.packaged
    if cfg.task == "pose":
        assert cfg.decode and cfg.input.geometry and cfg.input.bbox_padding
        assert posezoo.get_skeleton(cfg.dataset)
        if cfg.decode.codec == "heatmap":
            assert cfg.decode.heatmap_size == tuple(s // 4 for s in cfg.input.size)
    elif cfg.task == "classification":
        assert cfg.input.crop_pct and cfg.decode is None
    else:
        assert cfg.task == "tokenizer" and cfg.decode is None
        assert cfg.input.geometry and cfg.input.bbox_padding
        assert posezoo.get_skeleton(cfg.dataset)
    if cfg.metrics:
        assert cfg.metrics.protocol and cfg.metrics.url.startswith("https://")
        losses = {"loss"}
        assert all(0 < v <= 1 for k, v in cfg.metrics.values.items() if k not in losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown config field 'colour'"),
        ({"input": {"size": [8, 8], "stretch": 1}}, "unknown config field 'input.stretch'"),
        ({"input": {"size": [8]}}, "'input.size' is"),
        ({"input": {"size": ["a", "b"]}}, "'input.size' is"),
        ({"input": {}}, "'input.size' is missing"),
        ({"input": 3}, "must be an object"),
        ({"task": "cooking"}, "'task' is 'cooking'"),
        ({"params": 1.5}, "'params' is 1.5"),
        ({"params": True}, "'params' is True"),
    ],
)
def test_wrong_configuration_is_named(change, message):
    data = {"task": "pose", "dataset": "coco", "input": {"size": [8, 8]}}
    with pytest.raises(ValueError, match=message):
        PretrainedCfg.from_dict({**data, **change})
