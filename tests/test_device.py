"""The device is one that is there, or an error says which are."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

import posezoo
from posezoo.cli import main
from posezoo.device import choose_device, choose_dtype
from posezoo.errors import InputError
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model


def test_default_is_cuda_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(None).type == expected
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


def test_type_is_torchs_or_its_name():
    for dtype in (torch.float16, "float16", "torch.float16"):
        assert choose_dtype(dtype) == torch.float16
        assert EvaluationSettings(dtype=dtype).dtype == torch.float16
    for dtype in ("float8", "half", torch.int8, torch.float8_e4m3fn, None, 16):
        with pytest.raises(InputError, match="valid: a floating-point type, float32"):
            choose_dtype(dtype)


def test_cuda_without_a_number_is_the_one_of_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("cuda") == torch.device("cuda", 3)
    assert choose_device("cuda:1") == choose_device(1) == torch.device("cuda", 1)
    with pytest.raises(InputError, match="device 4 of CUDA was asked for, and there are 4"):
        choose_device("cuda:4")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "vulkan"])
def test_unknown_device_is_refused_everywhere(device, tmp_path):
    message = f"device is '{device}', which this machine lacks; valid: cpu, cuda"
    with pytest.raises(InputError, match=message):
        choose_device(device)
    model = posezoo.create_model("hrnet_xs_128x96")
    with pytest.raises(InputError, match=message):
        posezoo.PosePredictor(model, device=device)
    with pytest.raises(InputError, match=message):
        evaluate_model(model, tmp_path, run=RunOptions(device=device))
    command = ["train", "hrnet_xs_128x96", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*command, "--device", device])
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "run").exists()
