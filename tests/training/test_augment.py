"""Keypoints stay where the image shows them, whatever is done to both."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import posezoo
from posezoo.datasets.people import read_coco_people
from posezoo.geometry import crop_matrices
from posezoo.training import Augmentation
from posezoo.training.augment import mirror_keypoints, rotate_matrix, sample_crop
from posezoo.training.data import PersonDataset
from posezoo.training.pixels import drop_grid, jitter_colors

SKELETON = posezoo.get_skeleton("coco")


@pytest.fixture(scope="module")
def dotted(tmp_path_factory):
    """One picture, black but for a bright dot at each of five keypoints; the rest unlabelled."""
    folder = tmp_path_factory.mktemp("dotted")
    image = np.zeros((200, 160, 3), np.uint8)
    points = np.zeros((17, 3))
    for k, (x, y) in zip((0, 5, 6, 15, 16), ((80, 40), (100, 80), (60, 84), (95, 150), (70, 140))):
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
        points[k] = x, y, 2
    Image.fromarray(image).save(folder / "1.png")
    person = {
        "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 5000.0,
        "bbox": [40, 20, 80, 150], "num_keypoints": 5, "keypoints": points.ravel().tolist(),
    }  # fmt: skip
    picture = {"id": 1, "file_name": "1.png", "width": 160, "height": 200}
    (folder / "train.json").write_text(
        json.dumps({"images": [picture], "annotations": [person], "categories": []})
    )
    return folder


def _dataset(folder, name="uniformer_s_256x192", **augmentation):
    cfg = posezoo.get_pretrained_cfg(name)
    people = read_coco_people(folder / "train.json", folder, cfg, SKELETON)
    return PersonDataset(people, cfg, SKELETON, Augmentation(**augmentation), seed=3)


@pytest.mark.parametrize("name", ["uniformer_s_256x192", "tokenpose_t_256x192", "hrnet_xs_128x96"])
@pytest.mark.parametrize("epoch", range(6))
def test_dots_stay_under_their_keypoints(dotted, name, epoch):
    people = _dataset(dotted, name, flip=0.5, shift=0.1, scale=0.2, rotation=40.0,
                      rotation_probability=0.8)  # fmt: skip
    image, points = people[epoch, 0]
    labelled = points[:, 2] > 0
    assert labelled.sum() == 5
    height, width = image.shape[1:]
    inside = 0
    for x, y, _ in points[labelled].tolist():
        if 6 < x < width - 7 and 6 < y < height - 7:
            inside += 1
            patch = image[0, round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7]
            bright = (patch - image.min()).clamp(min=0)
            rows, columns = torch.meshgrid(torch.arange(13.0), torch.arange(13.0), indexing="ij")
            at_y = float((bright * rows).sum() / bright.sum()) + round(y) - 6
            at_x = float((bright * columns).sum() / bright.sum()) + round(x) - 6
            assert abs(at_x - x) < 0.6 and abs(at_y - y) < 0.6
    assert inside >= 2


def test_black_is_what_the_network_takes_for_it(dotted):
    people = _dataset(dotted, flip=0.0)
    mean, std = (torch.tensor(v) for v in (people.cfg.input.mean, people.cfg.input.std))
    torch.testing.assert_close(people[0, 0][0].amin((1, 2)), -mean / std)


def test_flip_swaps_left_and_right():
    points = np.zeros((17, 3))
    points[5], points[6] = (10, 20, 2), (40, 22, 1)
    mirrored = mirror_keypoints(points, 64, SKELETON)
    assert mirrored[5].tolist() == [23, 22, 1] and mirrored[6].tolist() == [53, 20, 2]
    assert np.array_equal(mirror_keypoints(mirrored, 64, SKELETON), points)


def test_rotation_keeps_the_centre_and_the_lengths():
    center = np.array([70.0, 90.0])
    matrix = crop_matrices(center[None], np.array([[60.0, 80.0]]), (128, 96), "mmpose1")[0]
    turned = rotate_matrix(matrix, center, 90.0)
    move = [m[:, :2] @ (center + [10, 0]) + m[:, 2] for m in (matrix, turned)]
    middle = matrix[:, :2] @ center + matrix[:, 2]
    np.testing.assert_allclose(turned[:, :2] @ center + turned[:, 2], middle, atol=1e-9)
    np.testing.assert_allclose(move[1] - middle, [0, (move[0] - middle)[0]], atol=1e-9)


def test_chance_depends_on_epoch_and_person_only(dotted):
    people = _dataset(dotted, rotation=40.0, scale=0.3)
    first, again, other = people[1, 0], people[1, 0], people[2, 0]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_half_body_holds_one_half():
    rng = np.random.default_rng(0)
    points = np.zeros((17, 3))
    points[:, 0], points[:, 1], points[:, 2] = 50 + np.arange(17) % 2 * 30, np.arange(17) * 10, 2
    augmentation = Augmentation(half_body=1.0, flip=0.0)
    whole = np.array([65.0, 80.0]), np.array([150.0, 200.0])
    centers = [
        sample_crop(augmentation, rng, *whole, points, SKELETON, 0.75)[0][1] for _ in range(60)
    ]  # fmt: skip
    assert len(set(np.round(centers))) == 2
    assert (np.array(centers) < 80).mean() > 0.5  # the upper half more often


def test_face_and_hands_of_a_whole_body_count_as_lower():
    """Body points above are at y = 10, all else at 200: a crop is around one or the other."""
    skeleton = posezoo.get_skeleton("coco_wholebody")
    points = np.full((133, 3), 200.0)
    points[:11, 1], points[:, 2] = 10.0, 2
    augmentation = Augmentation(half_body=1.0, flip=0.0)
    whole = np.array([50.0, 100.0]), np.array([150.0, 200.0])
    rows = {
        sample_crop(augmentation, np.random.default_rng(i), *whole, points, skeleton, 0.75)[0][1]
        for i in range(20)
    }
    assert rows == {10.0, 200.0}


def test_half_body_needs_enough_keypoints():
    points = np.zeros((17, 3))
    points[:8, 2] = 2
    center = np.array([5.0, 6.0])
    drawn = sample_crop(
        Augmentation(half_body=1.0, flip=0.0),
        np.random.default_rng(0),
        center,
        np.array([9.0, 12.0]),
        points,
        SKELETON,
        0.75,
    )
    assert np.array_equal(drawn[0], center)


def test_extent_of_scale_and_rotation_is_clipped():
    rng = np.random.default_rng(1)
    augmentation = Augmentation(scale=0.5, rotation=40.0, rotation_probability=1.0)
    points = np.zeros((17, 3))
    drawn = [
        sample_crop(augmentation, rng, np.zeros(2), np.ones(2), points, SKELETON, 1.0)
        for _ in range(300)
    ]
    factors, angles = np.array([d[1][0] for d in drawn]), np.array([d[2] for d in drawn])
    assert factors.min() == 0.5 and factors.max() == 1.5 and np.abs(angles).max() == 80
    assert 0.4 < np.mean([d[3] for d in drawn]) < 0.6


def test_grid_blackens_about_a_quarter():
    image = torch.full((3, 256, 256), 9, dtype=torch.uint8)
    shares = [
        float((drop_grid(image, np.random.default_rng(i)) == 0).float().mean()) for i in range(20)
    ]
    assert 0.15 < np.mean(shares) < 0.3


def test_colors_change_and_the_shape_does_not():
    image = torch.randint(0, 255, (3, 32, 24), dtype=torch.uint8)
    changed = jitter_colors(image, np.random.default_rng(0))
    assert changed.shape == image.shape and changed.dtype == torch.uint8
    assert not torch.equal(changed, image)


def test_file_without_labels_is_refused(dotted, tmp_path):
    content = json.loads((dotted / "train.json").read_text())
    content["annotations"][0] |= {"keypoints": [0] * 51, "num_keypoints": 0}
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(posezoo.errors.DataError, match="nothing to learn from"):
        _dataset(tmp_path)
