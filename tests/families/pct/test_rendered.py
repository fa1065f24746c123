"""The tokenizer in the package fills in hidden keypoints, and better than a mean pose does."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
from goldens.fill import make_tensor, manifests

import posezoo
from posezoo.errors import CheckpointError
from posezoo.evaluation import RunOptions, evaluate_model
from posezoo.models.pct.tokenizer import PCTTokenizer
from posezoo.synthetic import write_coco
from posezoo.weights.locate import find_weights
from posezoo.weights.tensors import read_checkpoint

ROOT = Path(__file__).parents[3]
NAME = "pct_tokenizer_swin_base_woimgguide.rendered"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """People that neither training nor the choice of the weights has seen."""
    folder = tmp_path_factory.mktemp("rendered")
    write_coco(folder, 60, seed=77, size=(128, 128))
    write_coco(folder, 40, seed=78, size=(128, 128), split="train2017")
    return folder


@pytest.fixture(scope="module")
def model() -> PCTTokenizer:
    return posezoo.create_model(NAME, pretrained=True)


@pytest.fixture(scope="module")
def distances(model, rendered) -> dict[str, dict[str, float]]:
    """The table of `benchmarks/completion.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("completion").measure(model, rendered)


def test_shipped_tokenizer_is_stored_in_half_precision(model):
    stored = read_checkpoint(find_weights(posezoo.get_pretrained_cfg(NAME)).path)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.decoder.codebook, stored["decoder.codebook"].float())


@pytest.mark.parametrize("what", ["1 of 17", "3 of 17", "5 of 17", "8 of 17"])
def test_hidden_keypoints_are_filled_in_better_than_by_a_mean_pose(distances, what):
    row = distances[what]
    assert row["tokens"] < 0.8 * min(row["mean pose"], row["mean pose, turned"])


@pytest.mark.parametrize("what", ["left arm", "right leg", "both legs"])
def test_hidden_limbs_are_filled_in_better_than_by_a_mean_pose(distances, what):
    row = distances[what]
    assert row["tokens"] < 0.95 * min(row["mean pose"], row["mean pose, turned"])


def test_poses_come_back_from_their_tokens(distances, model, rendered):
    assert distances["0 of 17"]["tokens"] < 7
    record = evaluate_model(model, rendered, run=RunOptions(device="cpu"))
    assert record is not None and record.statistics["AP"] > 0.6


def test_visible_keypoints_stay_as_given(model):
    keypoints = 60 + 140 * torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(0))
    visible = torch.ones(2, 17)
    visible[:, 9:] = 0
    completed = model.complete(keypoints, visible)
    assert torch.equal(completed[:, :9], keypoints[:, :9])
    assert not torch.equal(completed[:, 9:], keypoints[:, 9:])


@pytest.mark.slow
def test_example_of_the_page_that_needs_a_file_of_the_authors_runs(monkeypatch, tmp_path):
    """As it is written; the file is a stand-in, crops and poses are noise."""
    state = {
        key: make_tensor(key, tuple(spec["shape"]))
        for key, spec in manifests("pct")["pct_tokenizer_swin_base"].items()
        if spec["dtype"].startswith("float") and "derived" not in spec
    }
    torch.save({"state_dict": state}, tmp_path / "swin_base.pth")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/howto/tokens-and-masks.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    _, guided = (block for block in blocks if "pct_tokenizer" in block)
    names = {"posezoo": posezoo, "crops": torch.randn(1, 3, 256, 256),
             "keypoints": 256 * torch.rand(1, 17, 2), "visible": torch.ones(1, 17)}  # fmt: skip
    with torch.inference_mode():
        exec(guided, names)
        assert names["features"].shape == (1, 1024, 8, 8) and names["ids"].shape == (1, 34)


def test_file_without_running_sums_loads_and_one_without_half_of_them_does_not(model):
    state = model.state_dict()
    del state["ema_w"]
    with pytest.raises(CheckpointError, match="1 missing: ema_w"):
        posezoo.load_checkpoint(posezoo.create_model(NAME), state)
    del state["ema_cluster_size"]
    fresh = posezoo.create_model(NAME)
    posezoo.load_checkpoint(fresh, state)
    assert torch.equal(fresh.ema_w, model.decoder.codebook)
    assert (fresh.ema_cluster_size == 1).all()
