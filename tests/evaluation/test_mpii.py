"""MPII from files to PCKh: annotated centres and scales, crops, heatmaps, DARK, the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from goldens.fill import make_state, manifests
from PIL import Image
from scipy.io import savemat
from torch import Tensor, nn

import posezoo
from evaluation.cases import GOLDENS, load_case
from posezoo.cli.commands import main
from posezoo.errors import DataError
from posezoo.evaluation.entry import evaluate_model
from posezoo.geometry import crop_matrices, mpii_center_size

PER_IMAGE = 3
NAME = "tmpose_l_d6_256x256"


def _person(image: str, points: np.ndarray) -> dict[str, Any]:
    """An entry of `valid.json` whose crop holds `points` (16, 2), counted from 0, with room."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((high - low).max()) / 0.8 / 250
    center = (low + high) / 2 + 1 - [0, 15 * scale]
    joints, visible = (points + 1).tolist(), [1] * 16
    return {"image": image, "center": center.tolist(), "scale": scale, "joints": joints,
            "joints_vis": visible}  # fmt: skip


def _write(folder: Path, people: list[np.ndarray], truth: Path) -> Path:
    """The files of MPII, several people per image, the people of one image not in a row."""
    count = -(-len(people) // PER_IMAGE)
    (folder / "images").mkdir(parents=True)
    (folder / "annot").mkdir()
    for i in range(count):
        Image.new("RGB", (64, 48), (i, 80, 120)).save(folder / "images" / f"{i}.jpg")
    rows = [_person(f"{i % count}.jpg", points) for i, points in enumerate(people)]
    (folder / "annot/valid.json").write_text(json.dumps(rows))
    shutil.copy(truth, folder / "annot/gt_valid.mat")
    return folder


class Peaks(nn.Module):
    """Heatmaps whose peaks lie on the given joints, in the order in which people are asked for."""

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


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return load_case("mpii_pckh")


@pytest.fixture(scope="module")
def people(case) -> list[np.ndarray]:
    return list(np.array(case["pred_0based"]))


@pytest.fixture(scope="module")
def data(people, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mpii") / "data"
    return _write(folder, people, GOLDENS / "gt_valid_synthetic.mat")


def _run(model: nn.Module, data: Path, **options: Any) -> Any:
    return evaluate_model(model, data, device="cpu", batch_size=5, **options)


def test_whole_path_gives_the_published_scorers_table(case, people, data, tmp_path):
    record = _run(Peaks(people), data, out=tmp_path)
    lineage, mmpose = case["pckh_hrnet_lineage"], case["pckh_mmpose"]
    expected = {k.lower(): v / 100 for k, v in lineage.items() if k != "Mean@0.1"}
    expected |= {
        "mean_at_0_11": lineage["Mean@0.1"] / 100,
        "mean_at_0_10": mmpose["PCKh@0.1"] / 100,
    }
    # joints may cross a threshold by the hundredths of a pixel that heatmaps cost
    assert record.statistics == pytest.approx(expected, abs=2e-3)
    assert (record.images, record.results, record.box_source) == (16, 48, "mpii")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["person_id"] for row in rows] == list(range(48))
    found = np.array([row["keypoints"] for row in rows])
    assert np.abs(found - np.array(people)).max() < 0.5


def test_mmposes_file_names_give_the_same(people, data, tmp_path):
    folder = tmp_path / "mmpose"
    shutil.copytree(data, folder)
    (folder / "annot/valid.json").rename(folder / "annot/mpii_val.json")
    (folder / "annot/gt_valid.mat").rename(folder / "annot/mpii_gt_val.mat")
    expected = _run(Peaks(people), data).statistics
    assert _run(Peaks(people), folder).statistics == expected


def test_people_without_an_image_count_as_missed(people, data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    (folder / "images/15.jpg").write_bytes(b"broken")
    record = _run(Peaks(people), folder)
    assert [Path(path).name for path in record.bad] == ["15.jpg"]
    assert record.results == 45
    assert 0.85 < record.statistics["mean"] < _run(Peaks(people), data).statistics["mean"]


def test_annotations_of_another_set_are_refused(people, data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rows = json.loads((folder / "annot/valid.json").read_text())
    for wrong, count in (([*rows, rows[0]], 49), (rows[:-1], 47)):
        (folder / "annot/valid.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=f"has {count} people, .* 48; they belong to different"):
            _run(Peaks(people), folder)
    (folder / "annot/gt_valid.mat").unlink()
    with pytest.raises(DataError, match="no gt_valid.mat or mpii_gt_val.mat"):
        _run(Peaks(people), folder)


def test_command_line_prints_the_groups_and_both_tight_means(people, tmp_path):
    points = np.stack(people[:3])
    heads = np.stack([points[:, 9], points[:, 8]]).transpose(0, 2, 1) + 1  # (2, 2, N)
    truth = tmp_path / "truth.mat"
    names = ["rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor",
             "neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri"]  # fmt: skip
    savemat(truth, {
        "dataset_joints": np.array([names], dtype=object), "jnt_missing": np.zeros((16, 3)),
        "pos_gt_src": points.transpose(1, 2, 0) + 1, "headboxes_src": heads,
    })  # fmt: skip
    data = _write(tmp_path / "data", list(points), truth)
    weights = tmp_path / "model_best.pth"
    torch.save(make_state(manifests("tokenpose")["tmpose_l_d6_mpii_256x256"]), weights)
    result = CliRunner().invoke(
        main,
        ["eval", NAME, "--checkpoint", str(weights), "--data", str(data), "--device", "cpu"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    for word in ("shoulder", "ankle", "mean_at_0_10", "mean_at_0_11", "flip test", "Mean@0.1",
                 "tmpose_l_d6_256x256.mpii", "3 results"):  # fmt: skip
        assert word in result.output
