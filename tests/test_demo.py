"""The weights in the package find poses, and the command that shows it works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import posezoo
from posezoo import _checkpoints, _factory
from posezoo._demo import MODEL
from posezoo.cli import main
from posezoo.evaluation.entry import evaluate_model
from posezoo.evaluation.synthetic import render_scene, write_coco

AP_FLOOR = 0.80  # 0.858 on the 400 images of the model card


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """People that neither training nor the choice of the weights has seen."""
    folder = tmp_path_factory.mktemp("rendered")
    write_coco(folder, 60, seed=77)
    return folder


@pytest.fixture(scope="module")
def model():
    return posezoo.create_model(MODEL, pretrained=True)


def _ap(model, folder: Path, **options) -> float:
    record = evaluate_model(model, folder, boxes="gt", device="cpu", **options)
    assert record is not None
    return record.statistics["AP"]


def test_shipped_weights_are_small_and_the_pinned_ones():
    cfg = posezoo.get_pretrained_cfg(MODEL)
    path = _factory.find_weights(cfg, None)
    assert path.stat().st_size < 8e6
    assert _checkpoints.sha256_of(path) == cfg.source.sha256


def test_shipped_model_finds_rendered_people_and_the_flip_test_helps(model, rendered):
    with_flip = _ap(model, rendered)
    assert with_flip > AP_FLOOR
    assert with_flip > _ap(model, rendered, flip_test=False)


def test_untrained_model_finds_nothing(rendered):
    assert _ap(posezoo.create_model(MODEL), rendered, limit=20) < 0.05


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


def test_demo_draws_and_prints_an_ap(tmp_path):
    picture = tmp_path / "demo.png"
    result = CliRunner().invoke(main, ["demo", "--out", str(picture), "--images", "6"])
    assert result.exit_code == 0, result.output
    assert "AP " in result.output and "no network" in result.output
    image = np.asarray(Image.open(picture))
    left, right = image[:, : image.shape[1] // 2], image[:, image.shape[1] // 2 :]
    assert 0.01 < (left != right).mean() < 0.3
