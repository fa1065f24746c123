"""The whole pipeline, boxes to statistics, through the code that `posezoo eval` runs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.oracle import GOLDENS, OracleNetwork, blank_images, cfg_of, load_run, people_of
from posezoo import PosePredictor, get_skeleton
from posezoo.datasets.samples import read_coco
from posezoo.evaluation.entry import evaluate_model

NAMES = ["AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L"]
BODY = ("keypoints",)
WHOLE = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
COCO_RUNS = [
    "mmpose1_256x192_det", "uniformer_256x192_det", "uniformer_256x192_gt",
    "uniformer_448x320_det", "unbiased_256x192_det", "pct_256x256_det",
    "tmpose_256x192_gt", "tmpose_256x192_det",
]  # fmt: skip


def _unpack(name: str, folder: Path) -> Path:
    path = folder / name
    with gzip.open(GOLDENS / f"{name}.gz", "rb") as file:
        path.write_bytes(file.read())
    return path


def _check(name: str, annotations: Path, detections: Path, images: Path, keys, batch_size=7):
    run, expected = load_run(name)
    boxes = detections if run["boxes"] == "detections" else "gt"
    cfg = cfg_of(run)
    skeleton = get_skeleton(cfg.dataset)
    truth = json.loads(annotations.read_text())
    samples = read_coco(
        annotations, images, boxes=boxes, skeleton=skeleton, rule=cfg.input.geometry
    )
    if boxes == "gt":  # the runs number annotated people one after the other
        count = 0
        for i, sample in enumerate(samples):
            ids = np.arange(count, count + len(sample.box_ids))
            samples[i] = type(sample)(**{**vars(sample), "box_ids": ids})
            count += len(ids)
    network = OracleNetwork(name, run, people_of(truth, keys), samples)
    predictor = PosePredictor(network, batch_size=batch_size)

    requests = [predictor.request(np.zeros((*s.size, 3), np.uint8), s.bboxes) for s in samples]
    found = np.zeros_like(expected)
    for sample, (points, scores) in zip(samples, predictor.predict_crops(requests)):
        found[sample.box_ids] = np.concatenate([points, scores[..., None]], axis=-1)
    far = np.abs(found[..., :2] - expected[..., :2]).max(axis=-1) > 1e-2
    assert far.mean() <= 0.005, f"{far.sum()} of {far.size} keypoints are off"
    np.testing.assert_allclose(found[..., 2], expected[..., 2], atol=1e-4)

    assert found.shape[0] == run["num_boxes"]
    network.next = 0
    record = evaluate_model(
        network, images, annotations=annotations, boxes=str(boxes), batch_size=batch_size
    )
    assert record.results == run["num_results_after_nms"]
    return record, run


@pytest.mark.parametrize("name", COCO_RUNS)
def test_coco_run_gives_the_published_codes_keypoints_and_statistics(name, tmp_path):
    annotations = _unpack("oracle_coco.json", tmp_path)
    detections = _unpack("oracle_det_AP_H_56.json", tmp_path)
    images = blank_images(json.loads(annotations.read_text()), tmp_path)
    record, run = _check(name, annotations, detections, images, BODY)
    found = [record.statistics[n] for n in NAMES]
    np.testing.assert_allclose(found, run["stats"], atol=1e-3)
    assert record.box_source == ("det56.4" if run["boxes"] == "detections" else "gt")


@pytest.mark.parametrize("size", ["256x192", "384x288"])
def test_whole_body_run_gives_the_published_codes_statistics(size, photos):
    """Needs the whole-body annotations, which may not be passed on."""
    folder = photos / "coco"
    record, run = _check(
        f"tcformer_wholebody_{size}_det", folder / "test_coco_wholebody.json",
        folder / "test_coco_det_AP_H_56.json", folder, WHOLE,
    )  # fmt: skip
    names = {"foot": "feet", "lefthand": "left_hand", "righthand": "right_hand"}
    for part, stats in run["parts"].items():
        ours = record.statistics["parts"][names.get(part, part.replace("wholebody", "whole"))]
        np.testing.assert_allclose([ours[n] for n in NAMES], stats, atol=5e-3)
    hands = [run["parts"][h][0] for h in ("lefthand", "righthand")]
    assert record.statistics["Hand AP"] == pytest.approx(sum(hands) / 2, abs=5e-3)


def test_batch_size_does_not_change_the_result(tmp_path):
    annotations = _unpack("oracle_coco.json", tmp_path)
    detections = _unpack("oracle_det_AP_H_56.json", tmp_path)
    images = blank_images(json.loads(annotations.read_text()), tmp_path)
    rows = [
        _check("mmpose1_256x192_det", annotations, detections, images, BODY, batch_size)[0]
        for batch_size in (1, 64, 200)
    ]
    assert rows[0].statistics == rows[1].statistics == rows[2].statistics
