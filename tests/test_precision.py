"""bfloat16: how far keypoints move, and where `dtype="auto"` chooses it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import posezoo
from posezoo import PosePredictor, device, predictor
from posezoo.cli import main
from posezoo.device import has_fast_bfloat16
from posezoo.errors import InputError
from posezoo.synthetic.scene import render_scene

TRAINED = ["hrnet_xs_128x96", "hrnet_xs_192x144", "tokenpose_xs_128x96"]


@pytest.mark.parametrize("name", TRAINED)
def test_keypoints_of_trained_models_stay_within_a_fraction_of_a_pixel(name):
    """In pixels of the network's input, on rendered people."""
    model = posezoo.create_model(name, pretrained=True)
    exact, half = PosePredictor(model), PosePredictor(model, dtype="bfloat16")
    height = model.pretrained_cfg.input.size[0]
    moves = []
    for seed in range(4):
        scene = render_scene(seed, (256, 256))
        sides = scene.bboxes[:, 2:] - scene.bboxes[:, :2]
        pixel = 1.25 * np.maximum(sides[:, 1], sides[:, 0] * 4 / 3)[:, None] / height
        expected, found = (p(scene.image, scene.bboxes) for p in (exact, half))
        moves.append(np.linalg.norm(found.keypoints - expected.keypoints, axis=-1) / pixel)
    moves = np.concatenate(moves)
    assert 0 < moves.mean() < 0.06 and np.percentile(moves, 95) < 0.15 and moves.max() < 1


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_it_is_fast_and_says_so(fast, monkeypatch, caplog):
    monkeypatch.setattr(predictor, "has_fast_bfloat16", lambda device: fast)
    caplog.set_level(logging.INFO, logger="posezoo.predictor")
    found = PosePredictor("hrnet_xs_128x96", dtype="auto", device="cpu")
    expected = torch.bfloat16 if fast else torch.float32
    assert found.dtype == expected
    name = str(expected).removeprefix("torch.")
    assert caplog.messages == [f"dtype auto is {name} on cpu"]
    model = posezoo.create_model("hrnet_xs_128x96")
    assert PosePredictor(model, dtype="auto").dtype == expected
    assert PosePredictor(model).dtype == torch.float32


def test_auto_is_what_the_engine_computes(monkeypatch):
    monkeypatch.setattr(predictor, "has_fast_bfloat16", lambda device: True)
    chosen = predictor._chosen_dtype
    assert chosen("auto", "x.pt2", None, None) == torch.float32
    pytest.importorskip("onnxruntime")
    assert chosen("auto", "hrnet_xs_128x96", None, "onnxruntime") == torch.float32
    assert chosen("auto", "x.onnx", None, None) == torch.float32
    pytest.importorskip("openvino")
    assert chosen("auto", "x.onnx", None, "openvino") == torch.bfloat16


def test_processors_that_compute_bfloat16_are_known_by_their_flags(monkeypatch, tmp_path):
    real, about = device.Path, tmp_path / "cpuinfo"
    monkeypatch.setattr(
        device, "Path", lambda name: about if name == "/proc/cpuinfo" else real(name)
    )
    for text, fast in (
        ("flags\t: fpu avx512_bf16 sse2", True), ("Features\t: fp asimd bf16", True),
        ("flags\t: fpu avx2 avx512f", False),
    ):  # fmt: skip
        about.write_text(text)
        assert has_fast_bfloat16(torch.device("cpu")) == fast
    about.unlink()
    assert not has_fast_bfloat16(torch.device("cpu"))


def test_command_says_what_auto_is_and_evaluation_does_not_know_it(tmp_path):
    Image.fromarray(render_scene(0, (256, 256)).image).save(tmp_path / "a.png")
    options = ["--model", "hrnet_xs_128x96", "--whole-image", "--device", "cpu"]
    result = CliRunner().invoke(
        main, ["predict", str(tmp_path / "a.png"), *options, "--dtype", "auto"]
    )
    assert result.exit_code == 0, result.output
    assert "posezoo: --dtype auto is " in result.stderr and " on cpu" in result.stderr
    with pytest.raises(InputError, match="dtype is 'auto'"):
        posezoo.optimize(posezoo.create_model("hrnet_xs_128x96"), dtype="auto")
    result = CliRunner().invoke(main, ["eval", "x", "--data", str(tmp_path), "--dtype", "auto"])
    assert result.exit_code == 2 and "'auto' is not one of" in result.output


def test_regions_of_tokens_are_shown_in_bfloat16_too():
    from families import registered, smaller
    from families.tcformer import SMALL

    from posezoo.tokenview import token_rows

    name = "tcformer_mta_256x192"
    with registered(smaller(name, **SMALL[name])):
        model = posezoo.create_model(f"small_{name}")
    image = render_scene(0, (256, 256)).image
    boxes = np.array([[20, 20, 200, 240]], np.float32)
    size = token_rows(PosePredictor(model), image, boxes).size
    assert token_rows(PosePredictor(model, dtype="bfloat16"), image, boxes).size == size
