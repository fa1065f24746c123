from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from evaluation.cases import GOLDENS, load_case
from posezoo.errors import DataError
from posezoo.evaluation import MpiiTruth, evaluate_pckh, read_mpii_truth

MAT = GOLDENS / "gt_valid_synthetic.mat"


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return load_case("mpii_pckh")


@pytest.fixture(scope="module")
def truth() -> MpiiTruth:
    return read_mpii_truth(MAT)


def test_truth_counts_pixels_from_zero(case: dict[str, Any], truth: MpiiTruth) -> None:
    present = ~truth.is_missing
    np.testing.assert_array_equal(truth.is_missing, np.array(case["joint_missing"]) != 0)
    expected = np.array(case["gt_1based"]) - 1
    np.testing.assert_allclose(truth.keypoints[present], expected[present], atol=1e-9)
    low, high = np.moveaxis(np.array(case["headboxes_1based"]), 1, 0)
    np.testing.assert_allclose(truth.head_sizes, 0.6 * np.hypot(*(high - low).T), atol=1e-9)


def test_stored_case_matches_both_lineages(case: dict[str, Any], truth: MpiiTruth) -> None:
    stats = evaluate_pckh(np.array(case["pred_0based"]), truth).to_dict()
    lineage, mmpose = case["pckh_hrnet_lineage"], case["pckh_mmpose"]
    expected = {k.lower(): v / 100 for k, v in lineage.items() if not k.startswith("Mean@")}
    expected["mean_at_0_11"] = lineage["Mean@0.1"] / 100
    expected["mean_at_0_10"] = mmpose["PCKh@0.1"] / 100
    assert stats == pytest.approx(expected, abs=1e-6)
    assert stats["mean"] == pytest.approx(mmpose["PCKh"] / 100, abs=1e-6)


def test_perfect_predictions_score_one(truth: MpiiTruth) -> None:
    assert set(evaluate_pckh(truth.keypoints, truth).to_dict().values()) == {1.0}


def test_missing_joints_and_trunk_do_not_enter_the_mean(truth: MpiiTruth) -> None:
    predictions = truth.keypoints.copy()
    predictions[truth.is_missing] += 1e4
    predictions[:, 6:8] += 1e4
    assert evaluate_pckh(predictions, truth).mean == 1.0


def test_threshold_is_a_share_of_the_head_size(truth: MpiiTruth) -> None:
    offset = np.stack([truth.head_sizes, np.zeros_like(truth.head_sizes)], axis=1)[:, None]
    just_in = evaluate_pckh(truth.keypoints + 0.499 * offset, truth)
    just_out = evaluate_pckh(truth.keypoints + 0.501 * offset, truth)
    assert (just_in.mean, just_out.mean) == (1.0, 0.0)
    between = evaluate_pckh(truth.keypoints + 0.105 * offset, truth)
    assert (between.mean_at_0_10, between.mean_at_0_11) == (0.0, 1.0)


def test_wrong_number_of_rows_is_refused(truth: MpiiTruth) -> None:
    with pytest.raises(DataError, match=r"shape \(47, 16, 2\), the truth \(48, 16, 2\)"):
        evaluate_pckh(truth.keypoints[1:], truth)


def test_predictions_that_are_not_finite_are_refused(truth: MpiiTruth) -> None:
    predictions = truth.keypoints.copy()
    predictions[5, 3, 1] = np.nan
    with pytest.raises(DataError, match="person 5 holds NaN"):
        evaluate_pckh(predictions, truth)


def test_joint_that_nobody_has_is_refused(truth: MpiiTruth) -> None:
    is_missing = truth.is_missing.copy()
    is_missing[:, 10] = True
    with pytest.raises(DataError, match="nobody has 'right_wrist' annotated"):
        evaluate_pckh(truth.keypoints, replace(truth, is_missing=is_missing))


def damaged(tmp_path: Path, **changes: Any) -> Path:
    content = {k: v for k, v in loadmat(MAT).items() if not k.startswith("__")} | changes
    file = tmp_path / "gt_valid.mat"
    savemat(file, {k: v for k, v in content.items() if v is not None})
    return file


def test_head_box_without_size_is_refused(tmp_path: Path) -> None:
    boxes = loadmat(MAT)["headboxes_src"]
    for corner in (boxes[0, :, 3], np.nan, np.inf):
        boxes[1, :, 3] = corner
        with pytest.raises(DataError, match="headboxes_src of person 3 has the corners"):
            read_mpii_truth(damaged(tmp_path, headboxes_src=boxes))


def test_truth_made_by_hand_is_checked(truth: MpiiTruth) -> None:
    with pytest.raises(DataError, match="head size of person 0 is 0.0"):
        replace(truth, head_sizes=truth.head_sizes * 0)
    with pytest.raises(DataError, match=r"is_missing of 48 people has shape \(5, 16\)"):
        replace(truth, is_missing=truth.is_missing[:5])


@pytest.mark.parametrize("predictions", ["abc", None, np.full((48, 16, 2), 1j)])
def test_predictions_that_are_no_numbers_are_refused(predictions: Any, truth: MpiiTruth) -> None:
    with pytest.raises(DataError, match="predictions: the type is .*, expected real numbers"):
        evaluate_pckh(predictions, truth)


def test_nan_counts_only_where_a_joint_is_annotated(tmp_path: Path) -> None:
    content = loadmat(MAT)
    joint, person = np.argwhere(content["jnt_missing"])[0]
    positions = content["pos_gt_src"]
    positions[joint, :, person] = np.nan
    assert np.isfinite(read_mpii_truth(damaged(tmp_path, pos_gt_src=positions)).keypoints).all()
    positions[~content["jnt_missing"].astype(bool)[:, None].repeat(2, 1)] = np.nan
    with pytest.raises(DataError, match="NaN for a joint that is not missing"):
        read_mpii_truth(damaged(tmp_path, pos_gt_src=positions))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jnt_missing": None}, "has no variable jnt_missing"),
        ({"jnt_missing": np.zeros((16, 5))}, r"jnt_missing has shape \(16, 5\)"),
        ({"pos_gt_src": np.zeros((15, 2, 48))}, r"pos_gt_src has shape \(15, 2, 48\)"),
        ({"headboxes_src": np.zeros((2, 2, 5))}, r"headboxes_src has shape \(2, 2, 5\)"),
        ({"pos_gt_src": "abc"}, "pos_gt_src: the type is .*, expected real numbers"),
        ({"jnt_missing": np.full((16, 48), np.nan)}, "jnt_missing holds other values than 0 and 1"),
        ({"dataset_joints": np.array([["head"] * 16], dtype=object)}, "dataset_joints is"),
    ],
)
def test_truth_of_another_form_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_mpii_truth(damaged(tmp_path, **changes))


def test_file_that_is_not_matlab_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gt_valid.mat"
    file.write_text("<html>")
    with pytest.raises(DataError, match="as a MATLAB file"):
        read_mpii_truth(file)
    with pytest.raises(DataError, match="as a MATLAB file"):
        read_mpii_truth(tmp_path / "none.mat")
