"""Annotations of every kind become people with crops; a run on each learns and is scored."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import posezoo
from posezoo.datasets import read_mpii, read_mpii_people, training_people
from posezoo.errors import DataError
from posezoo.skeletons import COCO_WHOLEBODY_133
from posezoo.synthetic import write_coco, write_mpii
from posezoo.training import Augmentation, get_recipe, loop
from posezoo.training.objectives import objective_of
from training.left import log_of


@pytest.fixture(scope="module")
def mpii(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mpii")
    write_mpii(folder, 5, seed=4, split="train")
    write_mpii(folder, 8, seed=3)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_coco(folder, 3, seed=4, split="train2017", skeleton=COCO_WHOLEBODY_133)
    write_coco(folder, 2, seed=3, skeleton=COCO_WHOLEBODY_133)
    return folder


def _small(dataset: str) -> torch.nn.Module:
    count = posezoo.get_skeleton(dataset).num_keypoints
    model = posezoo.create_model("hrnet_xs_128x96", num_keypoints=count)
    model.pretrained_cfg = dataclasses.replace(model.pretrained_cfg, dataset=dataset)
    return model


def _change(source, folder, **fields):
    rows = json.loads((source / "annot" / "train.json").read_text())
    for row in rows:
        row |= fields
    (folder / "annot").mkdir()
    (folder / "annot" / "train.json").write_text(json.dumps(rows))
    return folder


def test_people_of_mpii_have_the_crops_that_evaluation_uses(mpii):
    file = mpii / "annot" / "train.json"
    people = read_mpii_people(file, mpii / "images")
    samples = read_mpii(file, mpii)
    rows = np.concatenate([s.person_ids for s in samples])
    np.testing.assert_array_equal(
        people.centers[rows], np.concatenate([s.centers for s in samples])
    )
    np.testing.assert_array_equal(
        people.box_sizes[rows], np.concatenate([s.box_sizes for s in samples])
    )


def test_joints_of_mpii_count_from_0_and_missing_ones_are_not_labelled(mpii):
    people = read_mpii_people(mpii / "annot" / "train.json", mpii / "images")
    rows = json.loads((mpii / "annot" / "train.json").read_text())
    assert len(rows) == len(people.paths) > 5
    for row, points in zip(rows, people.keypoints):
        seen = np.array(row["joints_vis"]) > 0
        assert np.array_equal(points[:, 2] > 0, seen)
        np.testing.assert_allclose(points[seen, :2], np.array(row["joints"])[seen] - 1)
        assert not points[~seen].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"joints_vis": [0] * 16}, "nothing to learn from"),
     ({"joints_vis": [1] * 15}, "joints_vis"),
     ({"image": "gone.jpg"}, "first .*gone.jpg"),
     ({"scale": 0.0}, "nothing to learn from")],
)  # fmt: skip
def test_mpii_file_that_teaches_nothing_is_refused(mpii, tmp_path, fields, message):
    with pytest.raises(DataError, match=message):
        read_mpii_people(_change(mpii, tmp_path, **fields) / "annot" / "train.json", tmp_path)


def test_mpii_folder_without_its_file_says_where_it_looked(tmp_path):
    cfg = posezoo.get_pretrained_cfg("tokenpose_l_d6_256x256")
    with pytest.raises(DataError, match="train.json or mpii_train.json"):
        training_people(tmp_path, cfg)


@pytest.mark.parametrize(("kind", "metric"), [("mpii", "PCKh"), ("coco_wholebody", "AP")])
def test_run_on_another_data_set_is_scored_by_its_own_number(kind, metric, mpii, whole, tmp_path):
    recipe = dataclasses.replace(
        get_recipe("hrnet_xs_128x96"), epochs=1, batch_size=3, dtype="float32"
    )
    objective = objective_of(recipe, _small(kind))
    end = loop.fit(objective, mpii if kind == "mpii" else whole, tmp_path, device="cpu")
    assert end.metric == metric and end.best == end.value and 0 <= end.value < 0.6
    assert log_of(tmp_path)[-1][metric] == end.value
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_crops_of_mpii_recipes_are_square_and_not_of_half_a_body(mpii):
    recipe = get_recipe("tokenpose_l_d6_256x256")
    assert recipe.augmentation.half_body == 0 and recipe.model_args == {}
    with torch.device("meta"):
        model = posezoo.create_model(recipe.model)
    dataset = objective_of(recipe, model).dataset(mpii)
    plain = dataclasses.replace(recipe, augmentation=Augmentation(flip=0.0))
    image, points = objective_of(plain, model).dataset(mpii)[0, 0]
    assert image.shape == (3, 256, 256) and points.shape == (16, 3)
    inside = points[points[:, 2] > 0, :2]
    assert (inside > 5).all() and (inside < 250).all()
    assert "of 16 keypoints" in dataset.summary()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_labels_follow_the_frame_that_the_file_recorded(whole, tmp_path, orientation):
    """A camera's note of how it was held changes nothing where the stored size was annotated."""
    folder = Path(shutil.copytree(whole, tmp_path / "data"))
    recipe = get_recipe("hrnet_xs_128x96")
    plain = objective_of(recipe, _small("coco_wholebody")).dataset(folder)
    expected, file = plain[0, 0][0], plain.people.paths[0]
    image, exif = Image.open(file).convert("RGB"), Image.Exif()
    exif[0x0112] = orientation
    image.save(file.with_suffix(".png"), exif=exif)
    file.with_suffix(".png").replace(file)
    assert torch.equal(plain[0, 0][0], expected)
