"""A family that is added like CONTRIBUTING.md says keeps the promises of all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import example, on_meta
from promises import Promises, check_arguments, check_without_memory

import posezoo
from posezoo.evaluation import EvaluationSettings, evaluate_model
from posezoo.export import export_model
from posezoo.synthetic import write_coco

NAME = "example_pose_64x48"


@pytest.fixture(scope="module", autouse=True)
def model():
    """The family's variants, registered while the tests of this module run; its model."""
    with example() as name:
        assert name == NAME
        torch.manual_seed(0)
        yield posezoo.create_model(NAME)
    assert not posezoo.is_model(NAME)


class TestExampleFamily(Promises):
    """The promises of all models."""


def test_it_is_listed_and_described():
    assert NAME in posezoo.list_models("example*", task="pose")
    assert f"{NAME}.coco" in posezoo.list_models(tags=True)
    assert posezoo.get_pretrained_cfg(NAME).name == f"{NAME}.coco"


def test_it_has_the_common_interface_and_checks_its_arguments():
    check_without_memory(on_meta(NAME))
    check_arguments(NAME)


def test_it_finds_poses_and_is_evaluated_and_exported(model, tmp_path):
    """All of it without a line about this family outside its folder."""
    write_coco(tmp_path, 3, seed=1, size=(128, 128))
    photo = next((tmp_path / "val2017").iterdir())
    result = posezoo.PosePredictor(model, detector=None)(photo)
    assert result.keypoints.shape == (1, 17, 2) and np.isfinite(result.keypoints).all()
    record = evaluate_model(model, tmp_path, EvaluationSettings(boxes="gt"))
    assert record is not None and record.images == 3 and 0 <= record.statistics["AP"] < 0.5
    assert export_model(model, tmp_path / "example.pt2") < 1e-3
