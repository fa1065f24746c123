"""Exported programs: they run without the model's code and give its numbers."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from families import example

import posezoo
from posezoo import export
from posezoo.cli import main
from posezoo.errors import ExportError, InputError
from posezoo.export import export_model

SMALL = "hrnet_xs_128x96"


@pytest.fixture(scope="module")
def small():
    with example() as name:
        yield posezoo.create_model(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["tokenpose_t_256x192", "uniformer_small", "tcformer_light", "tmpose_b_256x192",
     "pct_swin_base"],
)  # fmt: skip
def test_program_gives_the_numbers_of_the_model_at_another_batch_size(name, tmp_path):
    model = posezoo.create_model(name)
    assert export_model(model, tmp_path / "m.pt2") < 1e-4
    _is_program_of(model, tmp_path / "m.pt2")


def test_command_line_writes_the_program_and_says_how_close_it_is(tmp_path):
    out = tmp_path / "m.pt2"
    result = CliRunner().invoke(main, ["export", f"{SMALL}.rendered", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "differs from the model by" in result.output
    _is_program_of(posezoo.create_model(SMALL, pretrained=True), out)


def _is_program_of(model, path):
    """At a batch size that it was not traced with."""
    with path.open("rb") as file:
        program = torch.export.load(file).module()
    images = torch.randn(1, 3, *model.pretrained_cfg.input.size)
    with torch.no_grad():
        expected, found = model(images), program(images)
    for left, right in zip(export._tensors(expected), export._tensors(found), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * float(left.std()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [SMALL, "uniformer_s_256x192", "tcformer_light"])
def test_onnx_gives_the_numbers_of_the_model(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = posezoo.create_model(name)
    assert export_model(model, tmp_path / "m.onnx") < 1e-4
    images = torch.randn(1, 3, *model.pretrained_cfg.input.size)
    (found,) = runtime.InferenceSession(str(tmp_path / "m.onnx")).run(
        None, {"images": images.numpy()}
    )
    with torch.no_grad():
        expected = model(images)
    assert (expected - torch.from_numpy(found)).abs().max() < 1e-3 * expected.std()


@pytest.mark.slow
def test_operator_that_onnx_lacks_is_named(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export, "translations", dict)  # without ours, the stable sort is lacking
    with pytest.raises(InputError, match=r"aten\.sort.*\.pt2 works"):
        export_model(posezoo.create_model("tcformer_light"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_program_with_other_numbers_is_not_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_TOLERANCE", 0.0)
    with pytest.raises(ExportError, match="was not written"):
        export_model(small, tmp_path / "m.pt2")
    weights = posezoo.save_pretrained(small, tmp_path / "saved") / "model.safetensors"
    arguments = ["export", small.pretrained_cfg.name, "--checkpoint", str(weights)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "m.pt2")])
    assert result.exit_code == 1 and "was not written" in result.output
    assert {path.name for path in tmp_path.iterdir()} <= {"posezoo-cache", "saved"}


@pytest.mark.parametrize(
    "wrap", [lambda m: torch.compile(m, backend="eager"), torch.nn.DataParallel]
)
def test_wrapped_model_is_exported_whatever_torch_is_set_to(small, tmp_path, wrap):
    """In evaluation mode, and left in the mode that it was in."""
    small.train()
    torch.set_default_dtype(torch.float64)
    try:
        assert export_model(wrap(small), tmp_path / "m.pt2") < 1e-4
    finally:
        torch.set_default_dtype(torch.float32)
    assert small.training
    with pytest.raises(TypeError, match="Linear has no pretrained_cfg"):
        export_model(torch.nn.Linear(2, 2), tmp_path / "n.pt2")


def test_what_cannot_be_exported_is_said(small, tmp_path):
    with pytest.raises(InputError, match=r"\.pt2 or \.onnx, got 'm.pth'"):
        export_model(small, tmp_path / "m.pth")
    with pytest.raises(InputError, match="takes poses"):
        export_model(posezoo.create_model("pct_tokenizer_swin_base_woimgguide"), tmp_path / "m.pt2")


def test_model_that_is_too_large_for_one_file_of_onnx_is_refused_at_once(tmp_path):
    pytest.importorskip("onnxscript")
    with torch.device("meta"):
        large = posezoo.zoo.catalog.build_model("vitpose_plus_h_256x192")
    assert sum(p.nbytes for p in large.parameters()) > 2**31
    large.pretrained_cfg = posezoo.get_pretrained_cfg("vitpose_plus_h_256x192")
    with pytest.raises(InputError, match=r"has 3\.4 GiB of weights.*less than 2 GiB; .pt2 works"):
        export_model(large, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
