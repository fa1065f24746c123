"""Rendered people: same seed, same bytes; annotations that fit the picture."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import posezoo
from posezoo.datasets.samples import read_coco, read_mpii
from posezoo.errors import InputError
from posezoo.evaluation.entry import evaluate_model
from posezoo.evaluation.metrics.coco import coco_results, evaluate_coco, evaluate_wholebody
from posezoo.evaluation.metrics.pckh import evaluate_pckh, read_mpii_truth
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16
from posezoo.synthetic.render import coco_annotations, main, render_scene, write_coco, write_mpii

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


def _rows(file, skeleton, shift=0.0):
    """The annotations of a file as results, moved by a share of the box."""
    truth = json.loads(file.read_text())
    fields = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    results = []
    for row in truth["annotations"]:
        points = np.concatenate([np.reshape(row[f], (-1, 3)) for f in fields if f in row])
        move = shift * np.array(row["bbox"][2:])
        results += coco_results(
            image_id=row["image_id"], box_ids=np.array([row["id"]]),
            keypoints=points[None, :, :2] + move, keypoint_scores=np.ones((1, len(points))),
            bbox_scores=np.ones(1), areas=np.array([row["area"]]), skeleton=skeleton,
        )  # fmt: skip
    return truth, results


def test_right_answers_score_one_on_coco_and_wrong_ones_do_not(tmp_path):
    file = write_coco(tmp_path, 8, seed=9, size=(160, 160))
    assert evaluate_coco(*_rows(file, COCO_17), COCO_17).ap == pytest.approx(1)
    assert evaluate_coco(*_rows(file, COCO_17, 0.3), COCO_17).ap < 0.1


def test_right_answers_score_one_on_every_part_of_the_whole_body(tmp_path):
    file = write_coco(tmp_path, 8, seed=9, size=(256, 256), skeleton=COCO_WHOLEBODY_133)
    assert file.name == "coco_wholebody_val_v1.0.json"
    stats = evaluate_wholebody(*_rows(file, COCO_WHOLEBODY_133), COCO_WHOLEBODY_133).table()
    right = {k: v for k, v in stats.items() if k.endswith("AP")}
    assert len(right) == 5 and all(v == pytest.approx(1) for v in right.values())


def test_whole_body_annotations_say_which_parts_are_there(tmp_path):
    file = write_coco(tmp_path, 6, seed=3, size=(128, 128), skeleton=COCO_WHOLEBODY_133)
    seen = set()
    for row in json.loads(file.read_text())["annotations"]:
        for stem in ("face", "lefthand", "righthand", "foot"):
            points = np.reshape(row[f"{stem}_kpts"], (-1, 3))
            points = points[points[:, 2] > 0]
            assert row[f"{stem}_valid"] == bool(len(points))
            seen.add(row[f"{stem}_valid"])
            if stem != "foot":
                x, y, w, h = row[f"{stem}_box"]
                if len(points):
                    np.testing.assert_allclose(points[:, :2].min(0), [x, y])
                    np.testing.assert_allclose(points[:, :2].max(0), [x + w, y + h])
                else:
                    assert row[f"{stem}_box"] == [0, 0, 0, 0]
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


def test_mpii_files_count_from_1_what_scenes_count_from_0(tmp_path):
    write_mpii(tmp_path, 4, seed=9)
    truth = read_mpii_truth(tmp_path / "annot" / "gt_valid.mat")
    scenes = [render_scene((9, i), skeleton=MPII_16) for i in range(1, 5)]
    points = np.concatenate([scene.keypoints for scene in scenes])
    np.testing.assert_allclose(truth.keypoints, points[..., :2], atol=0.006)
    assert np.array_equal(truth.is_missing, points[..., 2] == 0)


def test_head_boxes_go_around_the_head():
    scenes = [render_scene((5, i), skeleton=COCO_WHOLEBODY_133) for i in range(6)]
    face = slice(*COCO_WHOLEBODY_133.parts["face"])
    for scene in scenes:
        for points, (x1, y1, x2, y2) in zip(scene.keypoints, scene.head_bboxes):
            seen = points[face][points[face, 2] > 0]
            margin = 0.1 * (y2 - y1)  # the nose sticks out
            assert (seen[:, 0] > x1 - margin).all() and (seen[:, 0] < x2 + margin).all()
            assert (seen[:, 1] > y1 - margin).all() and (seen[:, 1] < y2 + margin).all()


def test_crops_of_mpii_hold_the_person(tmp_path):
    file = write_mpii(tmp_path, 8, seed=5, split="train")
    rows = json.loads(file.read_text())
    for sample in read_mpii(file, tmp_path):
        for i, center, size in zip(sample.person_ids, sample.centers, sample.box_sizes):
            joints = np.array(rows[i]["joints"])[np.array(rows[i]["joints_vis"]) > 0] - 1
            assert (np.abs(joints - center) <= size / 2).all()


@pytest.mark.parametrize("kind", ["coco", "wholebody", "mpii"])
def test_folder_of_every_kind_is_evaluated(tmp_path, kind):
    options = ["--kind", kind, "--train", "1", "--val", "8", "--seed", "3"]
    result = CliRunner().invoke(main, [str(tmp_path), *options], catch_exceptions=False)
    assert result.exit_code == 0 and len(result.output.split()) == 2
    dataset = {"coco": "coco", "wholebody": "coco_wholebody", "mpii": "mpii"}[kind]
    count = posezoo.get_skeleton(dataset).num_keypoints
    model = posezoo.create_model("hrnet_xs_128x96", num_keypoints=count)
    model.pretrained_cfg = dataclasses.replace(model.pretrained_cfg, dataset=dataset)
    record = evaluate_model(model, tmp_path, boxes="gt", device="cpu", flip_test=False, workers=1)
    assert record is not None and record.dataset == dataset and record.bad == {}
    values = [v for v in record.statistics.values() if isinstance(v, float)]
    assert len(values) >= 8 and all(-1 <= v < 0.6 for v in values)


@pytest.mark.parametrize("write", [write_coco, write_mpii])
def test_data_set_without_images_is_refused(tmp_path, write):
    with pytest.raises(InputError, match="of 0 images; give at least 1"):
        write(tmp_path / "data", 0)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("options", [["--train", "-5"], ["--val", "0"], ["--seed", "-1"]])
def test_command_refuses_numbers_that_make_no_data_set(tmp_path, options):
    result = CliRunner().invoke(main, [str(tmp_path / "data"), *options])
    assert result.exit_code == 2 and options[0] in result.output
    assert not (tmp_path / "data").exists()
