"""Rendered people: same seed, same bytes; annotations that fit the picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import posezoo
from posezoo.errors import InputError
from posezoo.evaluation.datasets import read_coco
from posezoo.evaluation.synthetic import coco_annotations, render_scene, write_coco

SCENES = [render_scene((5, i), (160, 200)) for i in range(12)]


def test_same_seed_gives_the_same_bytes():
    first, again, other = render_scene(3), render_scene(3), render_scene(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.keypoints, again.keypoints)
    assert not np.array_equal(first.image, other.image)


def test_picture_has_the_size_asked_for():
    assert all(s.image.shape == (160, 200, 3) and s.image.dtype == np.uint8 for s in SCENES)


@pytest.mark.parametrize("scene", SCENES, ids=range(len(SCENES)))
def test_boxes_hold_the_labelled_points_and_lie_in_the_picture(scene):
    x1, y1, x2, y2 = scene.bboxes.T
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 200).all() and (y2 <= 160).all()
    for points, box, area in zip(scene.keypoints, scene.bboxes, scene.areas):
        x, y, v = points.T
        assert set(v) <= {0, 1, 2} and (v > 0).any()
        assert (x[v > 0] >= box[0] - 2).all() and (x[v > 0] <= box[2] + 2).all()
        assert (y[v > 0] >= box[1] - 2).all() and (y[v > 0] <= box[3] + 2).all()
        assert not points[v == 0].any()
        assert 0 < area <= (box[2] - box[0]) * (box[3] - box[1])


def test_hidden_points_are_marked_hidden():
    seen = np.concatenate([s.keypoints[..., 2].ravel() for s in SCENES])
    assert (seen == 2).mean() > 0.5 and (seen == 1).any() and (seen == 0).any()


def test_left_is_on_the_right_of_the_picture_when_facing_the_camera():
    """Both eyes are labelled only from the front."""
    names = posezoo.get_skeleton("coco").keypoint_names
    left, right = names.index("left_eye"), names.index("right_eye")
    people = np.concatenate([render_scene((6, i), (96, 96)).keypoints for i in range(60)])
    facing = (people[:, [left, right], 2] > 0).all(axis=1)
    assert facing.sum() > 20
    assert (people[facing, left, 0] > people[facing, right, 0]).mean() > 0.9


@pytest.mark.parametrize("name", ["coco", "mpii", "coco_wholebody"])
def test_every_skeleton_can_be_rendered(name):
    skeleton = posezoo.get_skeleton(name)
    scene = render_scene(1, (200, 200), people=1, skeleton=skeleton)
    assert scene.keypoints.shape == (1, skeleton.num_keypoints, 3)
    assert (scene.keypoints[..., 2] > 0).mean() > 0.4


def test_body_points_do_not_depend_on_the_skeleton():
    body = render_scene(1, people=1).keypoints
    whole = render_scene(1, people=1, skeleton=posezoo.get_skeleton("coco_wholebody")).keypoints
    assert np.array_equal(body, whole[:, :17])


@pytest.mark.parametrize(("size", "people"), [((16, 200), 1), ((100, 100), 0)])
def test_impossible_scene_is_refused(size, people):
    with pytest.raises(InputError, match="at least 1 person and 32 x 32"):
        render_scene(0, size, people)


def test_foreign_keypoint_is_named():
    skeleton = posezoo.Skeleton(
        name="dog", keypoint_names=("tail",), flip_pairs=(), sigmas=(0.1,), limbs=(), parts={}
    )
    with pytest.raises(InputError, match="no keypoint 'tail'"):
        render_scene(0, skeleton=skeleton)


def test_annotations_are_those_of_coco():
    rows = coco_annotations(SCENES[0], image_id=7, first_id=3)
    assert [row["id"] for row in rows] == list(range(3, 3 + len(SCENES[0].bboxes)))
    for row in rows:
        assert row["image_id"] == 7 and len(row["keypoints"]) == 51
        assert row["num_keypoints"] == sum(v > 0 for v in row["keypoints"][2::3])


def test_written_folder_is_read_by_the_harness(tmp_path):
    file = write_coco(tmp_path, 4, seed=9, size=(96, 96))
    skeleton = posezoo.get_skeleton("coco")
    samples = read_coco(file, tmp_path, boxes="gt", skeleton=skeleton, rule="mmpose1")
    truth = json.loads(file.read_text())
    assert sum(len(s.bboxes) for s in samples) == len(truth["annotations"])
    assert Image.open(samples[0].path).size == (96, 96)
