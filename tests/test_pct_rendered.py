"""The tokenizer in the package fills in hidden keypoints, and better than a mean pose does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import posezoo
from posezoo import _checkpoints, _factory
from posezoo.errors import CheckpointError
from posezoo.evaluation.synthetic import write_coco
from posezoo.models.pct_tokenizer import PCTTokenizer
from posezoo.training.pct import reconstruction_ap

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
    """The table of `benchmarks/complete_pose.py --measure`."""
    path = Path(__file__).parents[1] / "benchmarks" / "complete_pose.py"
    spec = importlib.util.spec_from_file_location("complete_pose", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.measure(model, rendered)


def test_shipped_tokenizer_is_small_and_the_pinned_one(model):
    cfg = posezoo.get_pretrained_cfg(NAME)
    path = _factory.find_weights(cfg, None)
    assert path.stat().st_size < 10e6
    assert _checkpoints.sha256_of(path) == cfg.source.sha256
    stored = _checkpoints.read_checkpoint(path)
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
    assert reconstruction_ap(model, rendered) > 0.6


def test_visible_keypoints_stay_as_given(model):
    keypoints = 60 + 140 * torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(0))
    visible = torch.ones(2, 17)
    visible[:, 9:] = 0
    completed = model.complete(keypoints, visible)
    assert torch.equal(completed[:, :9], keypoints[:, :9])
    assert not torch.equal(completed[:, 9:], keypoints[:, 9:])


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
