"""What the crop convention of a model decides about its results."""

from __future__ import annotations

import json

import numpy as np
import pytest

import posezoo
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_coco, evaluate_model
from posezoo.synthetic import write_coco


@pytest.mark.parametrize(
    ("name", "has_boxes"), [("hrnet_xs_128x96", True), ("hrnet_xs_192x144", False)]
)
def test_rows_carry_boxes_where_they_decide_the_size_of_a_detection(name, has_boxes, tmp_path):
    """mmpose 1.x: the scorer then takes the area of a detection from its box."""
    annotations = write_coco(tmp_path / "data", 12, seed=3, size=(160, 200))
    record = evaluate_model(
        posezoo.create_model(name, pretrained=True),
        tmp_path / "data",
        EvaluationSettings(boxes="gt"),
        RunOptions(out=tmp_path / "run"),
    )
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert rows and all(("bbox" in row) == has_boxes for row in rows)
    skeleton = posezoo.get_skeleton("coco")
    area = "bbox" if has_boxes else "keypoints"
    expected = evaluate_coco(annotations, rows, skeleton, detection_area=area).to_dict()
    assert record is not None
    assert {k: record.statistics[k] for k in expected} == pytest.approx(expected, abs=1e-12)
    if has_boxes:  # the other area gives other numbers here, so the choice is seen
        for row in rows:
            row["bbox"] = [0.0, 0.0, 1.0, 1.0]
        other = evaluate_coco(annotations, rows, skeleton, detection_area=area).to_dict()
        assert not np.allclose(list(other.values()), list(expected.values()))
