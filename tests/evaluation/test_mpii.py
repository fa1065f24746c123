"""PCKh and its file; MPII from files to the table: centres and scales, crops, heatmaps, DARK."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat
from torch import Tensor, nn

import posezoo
from evaluation.cases import GOLDENS, load_case
from evaluation.made import evaluate
from posezoo.errors import DataError
from posezoo.evaluation import MpiiTruth, evaluate_pckh, read_mpii_truth
from posezoo.geometry import crop_matrices, mpii_center_size
from posezoo.zoo.model import PoseModel

PER_IMAGE = 3
NAME = "tmpose_l_d6_256x256"
MAT = GOLDENS / "gt_valid_synthetic.mat"


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return load_case("mpii_pckh")


def _table(case: dict[str, Any]) -> dict[str, float]:
    """What both lineages compute, under our names."""
    lineage, mmpose = case["pckh_hrnet_lineage"], case["pckh_mmpose"]
    expected = {k.lower(): v / 100 for k, v in lineage.items() if k != "Mean@0.1"}
    tight = {"mean_at_0_11": lineage["Mean@0.1"] / 100, "mean_at_0_10": mmpose["PCKh@0.1"] / 100}
    return expected | tight


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
    assert stats == pytest.approx(_table(case), abs=1e-6)
    assert stats["mean"] == pytest.approx(case["pckh_mmpose"]["PCKh"] / 100, abs=1e-6)


def test_perfect_predictions_score_one_whatever_missing_joints_and_the_trunk_are(truth):
    assert set(evaluate_pckh(truth.keypoints, truth).to_dict().values()) == {1.0}
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[1:], r"shape \(47, 16, 2\), the truth \(48, 16, 2\)"),
        (lambda p: np.where(np.arange(48)[:, None, None] == 5, np.nan, p), "person 5 holds NaN"),
        (lambda p: "abc", "predictions: the type is .*, expected real numbers"),
        (lambda p: None, "predictions: the type is .*, expected real numbers"),
        (lambda p: p * 1j, "predictions: the type is .*, expected real numbers"),
    ],
)
def test_bad_predictions_are_refused(change: Any, message: str, truth: MpiiTruth) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_pckh(change(truth.keypoints), truth)


def test_truth_made_by_hand_is_checked(truth: MpiiTruth) -> None:
    is_missing = truth.is_missing.copy()
    is_missing[:, 10] = True
    with pytest.raises(DataError, match="nobody has 'right_wrist' annotated"):
        evaluate_pckh(truth.keypoints, replace(truth, is_missing=is_missing))
    with pytest.raises(DataError, match="head size of person 0 is 0.0"):
        replace(truth, head_sizes=truth.head_sizes * 0)
    with pytest.raises(DataError, match=r"is_missing of 48 people has shape \(5, 16\)"):
        replace(truth, is_missing=truth.is_missing[:5])


def damaged(tmp_path: Path, **changes: Any) -> Path:
    content = {k: v for k, v in loadmat(MAT).items() if not k.startswith("__")} | changes
    file = tmp_path / "gt_valid.mat"
    savemat(file, {k: v for k, v in content.items() if v is not None})
    return file


def test_head_box_without_size_is_refused(tmp_path: Path) -> None:
    boxes = loadmat(MAT)["headboxes_src"]
    for corner in (boxes[0, :, 3], np.nan, np.inf):
        boxes[1, :, 3] = corner
        with pytest.raises(DataError, match="head size of person 3 is .* headboxes_src"):
            read_mpii_truth(damaged(tmp_path, headboxes_src=boxes))


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
def test_truth_of_another_form_is_refused(changes, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_mpii_truth(damaged(tmp_path, **changes))


@pytest.mark.parametrize(("byte", "bit"), [(144, 2), (208, 0), (236, 6), (241, 5)])
def test_file_on_which_scipy_crashes_is_refused(tmp_path: Path, byte: int, bit: int) -> None:
    file = damaged(tmp_path)
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << bit
    file.write_bytes(content)
    with pytest.raises(DataError, match="gt_valid.mat"):
        read_mpii_truth(file)


def test_file_that_is_not_matlab_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gt_valid.mat").write_text("<html>")
    for name in ("gt_valid.mat", "none.mat"):
        with pytest.raises(DataError, match=f"cannot read .*{name} as a MATLAB file"):
            read_mpii_truth(tmp_path / name)


def _person(image: str, points: np.ndarray) -> dict[str, Any]:
    """An entry of `valid.json` whose crop holds `points` (16, 2), counted from 0, with room."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((high - low).max()) / 0.8 / 250
    center = (low + high) / 2 + 1 - [0, 15 * scale]
    joints, visible = (points + 1).tolist(), [1] * 16
    return {"image": image, "center": center.tolist(), "scale": scale, "joints": joints,
            "joints_vis": visible}  # fmt: skip


@pytest.fixture(scope="module")
def people(case) -> list[np.ndarray]:
    return list(np.array(case["pred_0based"]))


@pytest.fixture
def data(people, tmp_path) -> Path:
    """The files of MPII, several people per image, the people of one image not in a row."""
    folder, count = tmp_path / "data", -(-len(people) // PER_IMAGE)
    (folder / "images").mkdir(parents=True)
    (folder / "annot").mkdir()
    for i in range(count):
        Image.new("RGB", (64, 48), (i, 80, 120)).save(folder / "images" / f"{i}.jpg")
    rows = [_person(f"{i % count}.jpg", points) for i, points in enumerate(people)]
    (folder / "annot/valid.json").write_text(json.dumps(rows))
    shutil.copy(MAT, folder / "annot/gt_valid.mat")
    return folder


class Peaks(PoseModel):
    """Heatmaps whose peaks are on the given joints, in the order in which people are asked for."""

    def __init__(self, people: list[np.ndarray]) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = posezoo.get_pretrained_cfg(NAME)
        self.num_keypoints = 16
        count = -(-len(people) // PER_IMAGE)
        asked = [i for image in range(count) for i in range(image, len(people), count)]
        self.maps = [self._heatmaps(people[i]) for i in asked]
        self.flip = list(posezoo.get_skeleton("mpii").flip_indices)
        self.next = 0

    def _heatmaps(self, points: np.ndarray) -> Tensor:
        row = _person("", points)
        center, size = mpii_center_size([row["center"]], [row["scale"]])
        matrix = crop_matrices(center, size, (256, 256), "tokenpose")[0]
        cells = torch.from_numpy(points @ matrix[:, :2].T + matrix[:, 2]) * 63 / 255
        grid = torch.arange(64)
        x, y = ((grid - cells[:, i : i + 1]) ** 2 for i in range(2))  # (16, 64) each
        return torch.exp(-(y[:, :, None] + x[:, None]) / 8).float()

    def forward(self, images: Tensor) -> Tensor:
        count = len(images) // 2
        plain = torch.stack(self.maps[self.next : self.next + count])
        self.next += count
        return torch.cat([plain, plain[:, self.flip].flip(-1)])


def test_whole_path_gives_the_published_scorers_table(case, people, data, tmp_path):
    record = evaluate(Peaks(people), data, out=tmp_path, batch_size=5)
    # joints may cross a threshold by the hundredths of a pixel that heatmaps cost
    assert record.statistics == pytest.approx(_table(case), abs=2e-3)
    assert (record.images, record.results, record.box_source) == (16, 48, "mpii")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["person_id"] for row in rows] == list(range(48))
    found = np.array([row["keypoints"] for row in rows])
    assert np.abs(found - np.array(people)).max() < 0.5
    table = record.table()
    for word in ("shoulder", "ankle", "mean_at_0_10", "mean_at_0_11", "  flip test  ",
                 "prints as Mean@0.1", "tmpose_l_d6_256x256.mpii", "48 results"):  # fmt: skip
        assert word in table


def test_mmposes_file_names_give_the_same_and_people_without_an_image_count_as_missed(people, data):
    expected = evaluate(Peaks(people), data, batch_size=5).statistics
    (data / "annot/valid.json").rename(data / "annot/mpii_val.json")
    (data / "annot/gt_valid.mat").rename(data / "annot/mpii_gt_val.mat")
    assert evaluate(Peaks(people), data, batch_size=5).statistics == expected
    (data / "images/15.jpg").write_bytes(b"broken")
    record = evaluate(Peaks(people), data, batch_size=5)
    assert [Path(path).name for path in record.bad] == ["15.jpg"]
    assert record.results == 45
    assert 0.85 < record.statistics["mean"] < expected["mean"]


def test_annotations_of_another_set_are_refused(people, data):
    rows = json.loads((data / "annot/valid.json").read_text())
    for wrong, count in (([*rows, rows[0]], 49), (rows[:-1], 47)):
        (data / "annot/valid.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=f"has {count} people, .* 48; they belong to different"):
            evaluate(Peaks(people), data)
    (data / "annot/gt_valid.mat").unlink()
    with pytest.raises(DataError, match="no gt_valid.mat or mpii_gt_val.mat"):
        evaluate(Peaks(people), data)
