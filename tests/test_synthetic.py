"""Rendered people: same seed, same bytes; annotations that fit the picture."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import posezoo
from posezoo.datasets import read_coco, read_mpii, read_mpii_truth
from posezoo.errors import InputError
from posezoo.evaluation import (
    EvaluationSettings,
    RunOptions,
    coco_results,
    evaluate_coco,
    evaluate_model,
    evaluate_pckh,
    evaluate_wholebody,
)
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16
from posezoo.synthetic import coco_annotations, render_scene, write_coco, write_mpii
from posezoo.synthetic.__main__ import main

SCENES = [render_scene((5, i), (160, 200)) for i in range(12)]


def test_same_seed_gives_the_same_bytes():
    first, again, other = render_scene(3), render_scene(3), render_scene(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.keypoints, again.keypoints)
    assert not np.array_equal(first.image, other.image)


def test_boxes_hold_the_labelled_points_inside_a_picture_of_the_size_asked_for():
    for scene in SCENES:
        assert scene.image.shape == (160, 200, 3) and scene.image.dtype == np.uint8
        x1, y1, x2, y2 = scene.bboxes.T
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 200).all() and (y2 <= 160).all()
        for points, box, area in zip(scene.keypoints, scene.bboxes, scene.areas):
            seen = points[points[:, 2] > 0, :2]
            assert set(points[:, 2]) <= {0, 1, 2} and len(seen)
            assert (seen >= box[:2] - 2).all() and (seen <= box[2:] + 2).all()
            assert not points[points[:, 2] == 0].any()
            assert 0 < area <= (box[2] - box[0]) * (box[3] - box[1])


def test_hidden_points_are_marked_hidden():
    seen = np.concatenate([s.keypoints[..., 2].ravel() for s in SCENES])
    assert (seen == 2).mean() > 0.5 and (seen == 1).any() and (seen == 0).any()


def test_left_is_on_the_right_of_the_picture_when_facing_the_camera():
    """Both eyes are labelled only from the front."""
    left, right = map(COCO_17.keypoint_names.index, ("left_eye", "right_eye"))
    people = np.concatenate([render_scene((6, i), (64, 64)).keypoints for i in range(40)])
    facing = (people[:, [left, right], 2] > 0).all(axis=1)
    assert facing.sum() > 15
    assert (people[facing, left, 0] > people[facing, right, 0]).mean() > 0.9


@pytest.mark.parametrize("skeleton", [COCO_17, MPII_16, COCO_WHOLEBODY_133], ids=lambda s: s.name)
def test_every_skeleton_can_be_rendered_and_the_picture_does_not_depend_on_it(skeleton):
    scene, body = (render_scene(1, people=1, skeleton=s) for s in (skeleton, COCO_17))
    assert scene.keypoints.shape == (1, skeleton.num_keypoints, 3)
    assert (scene.keypoints[..., 2] > 0).mean() > 0.4
    assert np.array_equal(scene.image, body.image)
    if skeleton.num_keypoints == 133:
        assert np.array_equal(scene.keypoints[:, :17], body.keypoints)


def test_impossible_scenes_and_data_sets_are_refused(tmp_path):
    for size, people in (((16, 200), 1), ((100, 100), 0)):
        with pytest.raises(InputError, match="at least 1 person and 32 x 32"):
            render_scene(0, size, people)
    dog = posezoo.Skeleton(
        name="dog", keypoint_names=("tail",), flip_pairs=(), sigmas=(0.1,), limbs=(), parts={}
    )
    with pytest.raises(InputError, match="no keypoint 'tail'"):
        render_scene(0, skeleton=dog)
    for write in (write_coco, write_mpii):
        with pytest.raises(InputError, match="of 0 images; give at least 1"):
            write(tmp_path / "data", 0)
        with pytest.raises(InputError, match="has no split 'test'"):
            write(tmp_path / "data", 1, split="test")
    for options in (["--train", "-5"], ["--val", "0"], ["--seed", "-1"]):
        result = CliRunner().invoke(main, [str(tmp_path / "data"), *options])
        assert result.exit_code == 2 and options[0] in result.output
    assert not (tmp_path / "data").exists()


def test_annotations_are_those_of_coco_and_read_by_the_harness(tmp_path):
    rows = coco_annotations(SCENES[0], image_id=7, first_id=3)
    assert [row["id"] for row in rows] == list(range(3, 3 + len(SCENES[0].bboxes)))
    for row in rows:
        assert row["image_id"] == 7 and len(row["keypoints"]) == 51
        assert row["num_keypoints"] == sum(v > 0 for v in row["keypoints"][2::3])
    file = write_coco(tmp_path, 4, seed=9, size=(96, 96))
    samples = read_coco(file, tmp_path, boxes="gt", skeleton=COCO_17, rule="mmpose1")
    assert sum(s.count for s in samples) == len(json.loads(file.read_text())["annotations"])
    assert Image.open(samples[0].path).size == (96, 96)


def _rows(file, skeleton, shift=0.0):
    """The annotations of a file as results, moved by a share of the box."""
    truth = json.loads(file.read_text())
    results = []
    for row in truth["annotations"]:
        points = np.concatenate([np.reshape(row[f], (-1, 3)) for f in skeleton.coco_fields])
        move = shift * np.array(row["bbox"][2:])
        results += coco_results(
            image_id=row["image_id"], box_ids=np.array([row["id"]]),
            keypoints=points[None, :, :2] + move, keypoint_scores=np.ones((1, len(points))),
            bbox_scores=np.ones(1), areas=np.array([row["area"]]), skeleton=skeleton,
        )  # fmt: skip
    return truth, results


def test_right_answers_score_one_on_coco_and_on_every_part_of_the_whole_body(tmp_path):
    file = write_coco(tmp_path, 8, seed=9, size=(160, 160))
    assert evaluate_coco(*_rows(file, COCO_17), COCO_17).ap == pytest.approx(1)
    assert evaluate_coco(*_rows(file, COCO_17, 0.3), COCO_17).ap < 0.1
    file = write_coco(tmp_path, 8, seed=9, skeleton=COCO_WHOLEBODY_133)
    assert file.name == "coco_wholebody_val_v1.0.json"
    stats = evaluate_wholebody(*_rows(file, COCO_WHOLEBODY_133), COCO_WHOLEBODY_133).table()
    right = [value for name, value in stats.items() if name.endswith("AP")]
    assert right == pytest.approx([1] * 5)


def test_whole_body_annotations_say_which_parts_are_there(tmp_path):
    file = write_coco(tmp_path, 6, seed=3, size=(128, 128), skeleton=COCO_WHOLEBODY_133)
    seen = set()
    for row in json.loads(file.read_text())["annotations"]:
        for stem in ("face", "lefthand", "righthand", "foot"):
            points = np.reshape(row[f"{stem}_kpts"], (-1, 3))
            points = points[points[:, 2] > 0, :2]
            assert row[f"{stem}_valid"] == bool(len(points))
            seen.add(row[f"{stem}_valid"])
            if stem != "foot":
                x, y, w, h = row[f"{stem}_box"]
                corners = points if len(points) else np.zeros((1, 2))
                np.testing.assert_allclose(corners.min(0), [x, y])
                np.testing.assert_allclose(corners.max(0), [x + w, y + h])
    assert seen == {True, False}


def test_right_answers_score_one_on_mpii_and_wrong_ones_do_not(tmp_path):
    file = write_mpii(tmp_path, 12, seed=9)
    truth = read_mpii_truth(tmp_path / "annot" / "gt_valid.mat")
    joints = np.array([row["joints"] for row in json.loads(file.read_text())])
    assert evaluate_pckh(joints - 1, truth).mean == 1
    wrong = joints - 1 + 0.75 * truth.head_sizes[:, None, None]
    assert evaluate_pckh(wrong, truth).mean == 0
    # a head is about an eighth of a body
    heights = np.array([row["scale"] * 200 for row in json.loads(file.read_text())])
    assert 0.06 < np.median(truth.head_sizes / heights) < 0.25


def test_mpii_files_count_from_1_what_scenes_count_from_0_and_crops_hold_the_person(tmp_path):
    file = write_mpii(tmp_path, 6, seed=9)
    truth = read_mpii_truth(tmp_path / "annot" / "gt_valid.mat")
    scenes = [render_scene((9, i), skeleton=MPII_16) for i in range(1, 7)]
    points = np.concatenate([scene.keypoints for scene in scenes])
    boxes = np.concatenate([scene.bboxes for scene in scenes])
    np.testing.assert_allclose(truth.keypoints, points[..., :2], atol=0.006)
    assert np.array_equal(truth.is_missing, points[..., 2] == 0)
    for sample in read_mpii(file, tmp_path):
        for i, center, size in zip(sample.person_ids, sample.centers, sample.box_sizes):
            joints = points[i, points[i, :, 2] > 0, :2]
            assert (np.abs(joints - center) <= size / 2).all()
            np.testing.assert_allclose(center, (boxes[i, :2] + boxes[i, 2:]) / 2)


def test_head_boxes_go_around_the_head():
    scenes = [render_scene((5, i), skeleton=COCO_WHOLEBODY_133) for i in range(6)]
    face = slice(*COCO_WHOLEBODY_133.parts["face"])
    for scene in scenes:
        for points, (x1, y1, x2, y2) in zip(scene.keypoints, scene.head_bboxes):
            seen = points[face][points[face, 2] > 0]
            margin = 0.1 * (y2 - y1)  # the nose sticks out
            assert (seen[:, 0] > x1 - margin).all() and (seen[:, 0] < x2 + margin).all()
            assert (seen[:, 1] > y1 - margin).all() and (seen[:, 1] < y2 + margin).all()


@pytest.mark.parametrize("people", [[], ["--bodies"]], ids=["drawn", "bodies"])
@pytest.mark.parametrize("kind", ["coco", "wholebody", "mpii"])
def test_folder_of_every_kind_is_evaluated(tmp_path, kind, people):
    options = ["--kind", kind, *people, "--train", "1", "--val", "8", "--seed", "3"]
    result = CliRunner().invoke(main, [str(tmp_path), *options], catch_exceptions=False)
    assert result.exit_code == 0 and len(result.output.split()) == 2
    dataset = {"coco": "coco", "wholebody": "coco_wholebody", "mpii": "mpii"}[kind]
    count = posezoo.get_skeleton(dataset).num_keypoints
    model = posezoo.create_model("hrnet_xs_128x96", num_keypoints=count)
    model.pretrained_cfg = dataclasses.replace(model.pretrained_cfg, dataset=dataset)
    settings = EvaluationSettings(boxes="gt", flip_test=False)
    record = evaluate_model(model, tmp_path, settings, RunOptions(device="cpu", workers=1))
    assert record is not None and record.dataset == dataset and record.bad == {}
    values = [v for v in record.statistics.values() if isinstance(v, float)]
    assert len(values) >= 8 and all(-1 <= v < 0.6 for v in values)
