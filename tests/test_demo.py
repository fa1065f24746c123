"""The weights in the package find poses, tokens can be left out, and the demo works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import posezoo
from posezoo.cli import main
from posezoo.cli.rendered import load_photo
from posezoo.cli.rendered import render_scene as render_demo
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.files import sha256_of
from posezoo.synthetic import render_scene, write_coco
from posezoo.weights.locate import find_weights
from posezoo.zoo.catalog import OFFLINE_MODEL

MODEL, TOKENS = "hrnet_xs_192x144.rendered", "tokenpose_xs_128x96.rendered"
ALL = posezoo.list_models(tags=True)
PACKAGED = [name for name in ALL if posezoo.get_pretrained_cfg(name).source.packaged]
# the model cards state the AP on 400 images; these are 30 others
AP_FLOORS = {"hrnet_xs_128x96.rendered": 0.80, MODEL: 0.85, TOKENS: 0.80}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """People that neither training nor the choice of the weights has seen."""
    folder = tmp_path_factory.mktemp("rendered")
    write_coco(folder, 30, seed=77)
    return folder


@pytest.fixture(scope="module")
def model():
    return posezoo.create_model(MODEL, pretrained=True)


def _ap(model, folder: Path, **options) -> float:
    settings = EvaluationSettings(boxes="gt", **options)
    record = evaluate_model(model, folder, settings, RunOptions(device="cpu"))
    assert record is not None
    return record.statistics["AP"]


@pytest.mark.parametrize("name", PACKAGED)
def test_shipped_weights_are_small_and_the_pinned_ones(name):
    cfg = posezoo.get_pretrained_cfg(name)
    path = find_weights(cfg).path
    assert path.stat().st_size < (10e6 if cfg.task == "tokenizer" else 8e6)
    assert sha256_of(path) == cfg.source.sha256


def test_shipped_models_find_rendered_people_and_flip_test_and_size_help(model, rendered):
    best = _ap(model, rendered)
    assert best > AP_FLOORS[MODEL]
    assert best > _ap(model, rendered, flip_test=False)
    smaller = posezoo.create_model("hrnet_xs_128x96", pretrained=True)
    assert AP_FLOORS["hrnet_xs_128x96.rendered"] < _ap(smaller, rendered) < best


def test_mask_trades_accuracy_for_work(rendered):
    model = posezoo.create_model(TOKENS, pretrained=True)
    image = torch.zeros(1, 3, *model.input_size)
    aps, costs = [], []
    for ratio in (1, 0.7, 0.4):
        model.set_mask("uniform", ratio)
        aps.append(_ap(model, rendered))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(image)
        costs.append(counter.get_total_flops())
    assert aps[0] > AP_FLOORS[TOKENS]
    assert aps == sorted(aps, reverse=True) and aps[0] - aps[2] > 0.1
    assert costs == sorted(costs, reverse=True) and costs[2] < 0.9 * costs[0]


def test_mirrored_picture_gives_mirrored_poses(model):
    scene = render_scene((77, 0), people=1)
    predictor = posezoo.PosePredictor(model, device="cpu")
    x1, y1, x2, y2 = scene.bboxes.T
    straight = predictor(scene.image, scene.bboxes)
    flipped = predictor(
        np.ascontiguousarray(scene.image[:, ::-1]), np.stack([256 - x2, y1, 256 - x1, y2], 1)
    )
    order = list(posezoo.get_skeleton("coco").flip_indices)
    back = flipped.keypoints[:, order] * [-1, 1] + [256, 0]
    sure = straight.keypoint_scores > 0.5
    assert sure.sum() > 5
    assert np.median(np.abs(back - straight.keypoints)[sure]) < 3


def test_packaged_detector_and_model_are_right_on_the_photo_in_the_package():
    result = posezoo.PosePredictor(OFFLINE_MODEL, device="cpu")(load_photo())
    assert len(result) == 1
    seen = {"nose": (226, 106), "right_ear": (178, 80), "right_shoulder": (104, 118)}
    for name, (x, y) in seen.items():
        point = result[0][name]
        assert np.hypot(point[0] - x, point[1] - y) < 15 and point[2] > 0.3, (name, point)


def test_packaged_detector_finds_both_people_of_the_scene_in_the_demo():
    result = posezoo.PosePredictor(OFFLINE_MODEL, device="cpu")(render_demo())
    assert len(result) == 2 and (result.keypoint_scores > 0.3).sum() >= 20


def test_demo_draws_and_prints_an_ap(tmp_path):
    picture = tmp_path / "demo.png"
    result = CliRunner().invoke(main, ["demo", "--out", str(picture), "--images", "6"])
    assert result.exit_code == 0, result.output
    assert "AP " in result.output and "no network" in result.output
    image = np.asarray(Image.open(picture))
    left, right = image[:, : image.shape[1] // 2], image[:, image.shape[1] // 2 :]
    assert 0.01 < (left != right).mean() < 0.3
