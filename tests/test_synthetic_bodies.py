"""Rendered people with a real body: the baked file, poses, the z-buffer, crops, data sets."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from importlib import resources
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import posezoo
from posezoo.datasets import read_mpii_truth
from posezoo.datasets.coco import read_annotations
from posezoo.errors import InputError
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.evaluation.metrics.coco import evaluate_wholebody
from posezoo.evaluation.metrics.pckh import evaluate_pckh
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16
from posezoo.synthetic.bodies import Photographer, write_people
from posezoo.synthetic.bodies.album import as_annotated
from posezoo.synthetic.bodies.crowd import sample_people
from posezoo.synthetic.bodies.devices import computing_on
from posezoo.synthetic.bodies.human import BODY, load_human, rotation
from posezoo.synthetic.bodies.mesh import Mesher
from posezoo.synthetic.bodies.poses import CLUSTERS, is_possible, sample_poses
from posezoo.synthetic.bodies.raster import rasterise
from posezoo.synthetic.bodies.solids import Things
from posezoo.synthetic.bodies.wardrobe import SETTINGS, Outfits, dress, sample_outfits
from posezoo.training.rendered import second_views

SIZE = (96, 72)


@pytest.fixture(scope="module")
def shots():
    return Photographer(3, SIZE).shoot(0, 12)


def test_baked_bodies_are_those_of_the_source_to_a_few_millimetres():
    human = load_human()
    rotations = torch.from_numpy(human.reference["reference_rotations"])
    wanted = torch.from_numpy(human.reference["reference_points"].astype(np.float32)) * 1e-4
    posed = human.pose(human.people[:4], rotations).vertices
    found = posed[:, ::7] - posed[:, :1]
    error = (found - wanted).norm(dim=-1)
    assert error.max() < 0.004 and error.mean() < 0.001
    file = resources.files("posezoo") / "assets" / "body.npz"
    assert len(file.read_bytes()) < 10e6


def test_keypoints_alone_are_those_of_the_posed_body():
    human = load_human()
    poses = sample_poses(human, np.random.default_rng(0), 6)
    shapes = human.people[:6]
    alone = human.keypoints(shapes, poses.rotations)
    assert torch.allclose(alone, human.pose(shapes, poses.rotations).keypoints, atol=1e-5)


def test_left_is_left_and_knees_bend_to_the_back():
    human = load_human()
    still = torch.eye(3).expand(1, len(human.bone_names), 3, 3).clone()
    bent = still.clone()
    quarter = rotation(torch.tensor([1.0, 0, 0]), torch.tensor(np.pi / 2))
    bent[0, human.bone("lowerleg01.L")] = quarter
    names = human.keypoint_names
    at_rest, after = (human.keypoints(human.people[:1], r)[0] for r in (still, bent))
    assert at_rest[names.index("left_wrist"), 0] > 0.2 > at_rest[names.index("right_wrist"), 0]
    assert at_rest[names.index("nose"), 1] < at_rest[names.index("left_ear"), 1]
    moved = after[names.index("left_ankle")] - at_rest[names.index("left_ankle")]
    assert moved[1] > 0.3 and moved[2] > 0.2


def test_all_clusters_come_up_and_most_poses_are_possible():
    human = load_human()
    poses = sample_poses(human, np.random.default_rng(1), 400)
    assert set(poses.clusters) == set(CLUSTERS)
    possible = is_possible(human, human.keypoints(human.people[:400], poses.rotations))
    assert 0.75 < possible.float().mean() < 1
    assert torch.allclose(torch.linalg.det(poses.rotations), torch.ones(1), atol=1e-4)


def test_the_nearest_triangle_wins_and_shares_follow_perspective():
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [8.0, 8.0]])
    y = torch.tensor([[0.0, 0.0], [8.0, 8.0], [0.0, 0.0]])
    near = torch.tensor([[1.0, 2.0], [1.0, 0.5], [1.0, 0.5]])
    image, both = torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool)
    hits = rasterise(x, y, near, image, (1, 8, 8), both)
    face = torch.full((64,), -1)
    face[hits.pixel] = hits.face
    face = face.reshape(8, 8)
    assert (face >= 0).sum() == 43 and face[0, 0] == 1 and face[5, 5] == -1 and face[7, 0] == 0
    place = (hits.pixel == 2).nonzero()[0, 0]  # a quarter of the way, nearness 2 to 0.5
    assert torch.allclose(hits.shares[:, place], torch.tensor([1.5, 0.0, 0.125]) / 1.625)
    behind = rasterise(x, y, near.clamp(max=0.0), image, (1, 8, 8), both)
    assert len(behind.pixel) == 0
    turned = rasterise(x.flip(0), y.flip(0), near, image, (1, 8, 8), both)
    assert len(turned.pixel) == 0
    assert len(rasterise(x.flip(0), y.flip(0), near, image, (1, 8, 8), ~both).pixel) == 43


def test_the_same_arguments_give_the_same_bytes_and_others_do_not(shots):
    again = Photographer(3, SIZE).shoot(0, 12)
    assert torch.equal(again.images, shots.images) and torch.equal(again.keypoints, shots.keypoints)
    assert not torch.equal(Photographer(3, SIZE).shoot(1, 12).images, shots.images)
    assert not torch.equal(Photographer(4, SIZE).shoot(0, 12).images, shots.images)


def test_people_fill_their_crops_and_keypoints_lie_on_them(shots):
    assert shots.images.shape == (12, 3, *SIZE) and shots.images.dtype == torch.uint8
    labelled = shots.keypoints[..., 2] > 0
    assert labelled[:, :17].float().mean() > 0.6
    assert (shots.keypoints[~labelled] == 0).all()
    width, height = (shots.boxes[:, 2:] - shots.boxes[:, :2]).unbind(1)
    fills = torch.maximum(width / SIZE[1], height / SIZE[0])
    assert (fills > 0.35).float().mean() > 0.8 and (fills < 1.01).all()
    seen = shots.keypoints[..., 2] == 2
    x, y = shots.keypoints[..., 0], shots.keypoints[..., 1]
    low, high = shots.boxes[:, None, :2] - 2, shots.boxes[:, None, 2:] + 2
    inside = (x > low[..., 0]) & (x < high[..., 0]) & (y > low[..., 1]) & (y < high[..., 1])
    assert inside[seen].float().mean() > 0.97 and seen.float().mean() > 0.3


def test_second_views_mirror_people_with_their_keypoints():
    points = torch.zeros(8, 17, 3)
    images = torch.zeros(8, 3, 64, 48, dtype=torch.uint8)
    images[:, :, 28:34, 10:16] = 255
    points[:, COCO_17.keypoint_names.index("left_wrist")] = torch.tensor([12.5, 30.5, 2.0])
    found, moved = second_views(images, points, COCO_17, np.random.default_rng(0))
    wrist = moved[:, COCO_17.keypoint_names.index("right_wrist")]
    assert (wrist[:, 2] == 2).all() and (moved[..., 2] > 0).sum() == 8
    assert (wrist[:, 0] > 20).all()
    near = 0
    for picture, (x, y, _) in zip(found, wrist.tolist()):
        row, column = (picture.mean(0) > 0.4).nonzero().float().mean(0).tolist()
        near += abs(row - y) < 2 and abs(column - x) < 2
    assert near >= 5  # of the others a piece is covered


def test_some_second_views_are_filtered_and_black_stays_black():
    images = torch.zeros(24, 3, 64, 48, dtype=torch.uint8)
    images[:, 0, :, 12:20], images[:, 2, :, 20:36] = 200, 100
    found, _ = second_views(images, torch.zeros(24, 17, 3), COCO_17, np.random.default_rng(0))
    beside = found[:, :, 24:40, [0, 1, -2, -1]]
    assert (beside < 0.01).flatten(1).all(1).sum() >= 20  # a piece of another may be there
    red, blue = found[:, 0] > 0.1, found[:, 2] > 0.1
    are_mixed = (red & blue).flatten(1).float().mean(1) > 0.1
    assert 5 <= are_mixed.sum() <= 14
    one = second_views(images[:1], torch.zeros(1, 17, 3), COCO_17, np.random.default_rng(1))[0]
    assert one.shape == (1, 3, 64, 48)


def test_photos_of_a_folder_are_behind_half_of_the_people(tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (90, 60), (0, 255, 0)).save(tmp_path / "sub" / "lawn.png")
    photographer = Photographer(3, SIZE, backgrounds=tmp_path)
    images = photographer.shoot(0, 16).images
    red, green, blue = images.float().unbind(1)
    is_lawn = ((green > red + 60) & (green > blue + 60)).flatten(1).float().mean(1) > 0.2
    assert 4 <= is_lawn.sum() <= 12
    sent = pickle.loads(pickle.dumps(photographer))  # to another process
    assert torch.equal(sent.shoot(0, 16).images, images)


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(InputError, match="photos"):
        Photographer(0, SIZE, backgrounds=tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        Photographer(0, SIZE, backgrounds=tmp_path / "nowhere")


def test_what_a_mirror_shows_faces_the_right_way():
    human = load_human()
    with computing_on(torch.device("cpu")):
        rng = np.random.default_rng(0)
        people, _ = sample_people(human, rng, np.arange(120), 120, 64)
        mirrored = people.picture[people.is_reflection.numpy()]
        assert 1 <= len(mirrored) <= 14 and (people.picture[:120] == np.arange(120)).all()
        mesh = Mesher(human)(people.part(mirrored[0], mirrored[0] + 1), Things())
    a, b, c = mesh.positions[:, mesh.faces].unbind(1)  # (3, F) each
    across = torch.linalg.cross(b - a, c - a, dim=0)
    outwards = (across * mesh.normals[:, mesh.faces[0]]).sum(0) > 0
    for owner in (0, 1):  # a closed surface whose normals point outwards has a volume above 0
        own = mesh.owner == owner
        assert (a * across)[:, own].sum() / 6 > 0.02  # cubic metres
    twice = mesh.owner.bincount(minlength=2)
    assert twice[0] == twice[1] and outwards.float().mean() > 0.9
    ears = [human.keypoint_names.index(f"{side}_ear") for side in ("left", "right")]
    first, second = people.part(mirrored[0], mirrored[0] + 1).keypoints[:, ears].diff(dim=1)[:, 0]
    assert float(first.norm()) == pytest.approx(float(second.norm()), rel=1e-3)


def test_gloves_and_hoods_cover_hands_and_necks():
    human, rng = load_human(), np.random.default_rng(0)
    body = human.pose(human.people[:1], torch.eye(3).expand(1, len(human.bone_names), 3, 3))
    traits = dict(zip(human.trait_names, human.traits[:1].double().numpy().T))
    outfits = sample_outfits(rng, traits, 64)

    def dressed(**settings):
        changed = outfits.settings.clone()
        for name, value in settings.items():
            changed[:, SETTINGS.index(name)] = value
        worn = Outfits(settings=changed, colors=outfits.colors)
        return dress(human, body, worn, torch.full((1, 8), 0.5))[0]

    plain = dressed(glove=0.0, hat=9.0, hood=9.0, hairline=9.0)
    for name, settings in (("wrist", {"glove": 0.02}), ("ear", {"hat": 0.4, "hood": -0.25})):
        worn = dressed(**{"glove": 0.0, "hat": 9.0, "hood": 9.0, "hairline": 9.0, **settings})
        moved = (worn - plain).norm(dim=1) > 5e-3
        own = body.keypoints[0, human.keypoint_names.index(f"left_{name}")]
        assert moved.any() and (body.vertices[0][moved] - own).norm(dim=1).min() < 0.06


def test_some_who_lie_are_in_bed():
    human = load_human()
    lying = {name: replace(c, share=c.share * (name == "lying")) for name, c in CLUSTERS.items()}
    with patch.dict(CLUSTERS, lying), computing_on(torch.device("cpu")):
        rng = np.random.default_rng(0)
        people, things = sample_people(human, rng, np.arange(12), 12, 64)
    lowest = people.vertices[:12, : human.num_skin, 2].amin(1)
    undersides = people.vertices[:, human.seat, 2].amin(1)
    in_bed = (lowest > 0.05).nonzero()[:, 0].tolist()
    assert 2 <= len(in_bed) <= 10
    for i in in_bed:
        tops = [
            m[2, 3] + abs(m[2, :3]).sum() / 2
            for m, picture in zip(things.matrices, things.pictures) if picture == i
        ]  # fmt: skip
        assert any(0 < top - undersides[i] < 0.02 for top in tops)


def test_a_data_set_is_written_in_cocos_form(tmp_path):
    file = write_people(tmp_path, 5, 7, height=96)
    content = json.loads(file.read_text())
    assert len(content["images"]) == 5 and 1 <= len(content["annotations"]) <= 5
    assert sorted(p.name for p in (tmp_path / "val2017").iterdir())[0] == "000000000001.jpg"
    for row in content["annotations"]:
        assert row["num_keypoints"] == sum(v > 0 for v in row["keypoints"][2::3]) >= 3
        assert row["area"] <= row["bbox"][2] * row["bbox"][3]
    with pytest.raises(InputError, match="data set of 0 images"):
        write_people(tmp_path, 0)


def test_joints_of_mpii_are_where_they_belong(tmp_path):
    file = write_people(tmp_path, 12, 7, height=128, skeleton=MPII_16)
    truth = read_mpii_truth(tmp_path / "annot" / "gt_valid.mat")
    rows = json.loads(file.read_text())
    assert evaluate_pckh(np.array([row["joints"] for row in rows]) - 1, truth).mean == 1
    size = truth.head_sizes / 0.6  # a diagonal
    known = ~truth.is_missing
    names = MPII_16.keypoint_names
    for one, other, least, most in (
        ("head_top", "upper_neck", 0.3, 1.1), ("upper_neck", "thorax", 0.02, 0.7),
        ("pelvis", "thorax", 0.5, 2.5),
    ):  # fmt: skip
        i, j = names.index(one), names.index(other)
        both = known[:, i] & known[:, j]
        apart = np.linalg.norm(truth.keypoints[:, i] - truth.keypoints[:, j], axis=1) / size
        assert both.sum() >= 6 and least < np.median(apart[both]) < most


def test_faces_and_hands_are_where_they_belong():
    human = load_human()
    found = human.keypoints(human.people[:8], torch.eye(3).expand(8, len(human.bone_names), 3, 3))
    k = {name: found[:, i] for i, name in enumerate(human.keypoint_names)}
    assert set(k) == set(COCO_WHOLEBODY_133.keypoint_names)
    for a, b in COCO_WHOLEBODY_133.flip_pairs:  # left is left, at the same height
        one, other = (k[COCO_WHOLEBODY_133.keypoint_names[i]] for i in (a, b))
        assert ((one + other * torch.tensor([1.0, -1, -1])).abs() < 0.01).all()
    assert ((k["face-30"] - k["nose"]).norm(dim=1) < 0.02).all()
    for side, corners in (("left", (42, 45)), ("right", (36, 39))):
        middle = sum(k[f"face-{i}"] for i in corners) / 2
        assert ((middle - k[f"{side}_eye"]).norm(dim=1) < 0.015).all()
        assert ((k[f"{side}_hand_root"] - k[f"{side}_wrist"]).norm(dim=1) < 0.04).all()
        for finger in ("forefinger", "middle_finger", "ring_finger", "pinky_finger"):
            joints = torch.stack([k[f"{side}_{finger}{j}"] for j in (1, 2, 3, 4)])
            steps = (joints[1:] - joints[:-1]).norm(dim=-1)
            assert (steps > 0.004).all() and (steps < 0.06).all()


def test_faces_from_behind_and_small_hands_are_left_out():
    points = torch.zeros(3, 133, 3)
    points[..., 2] = 2
    points[:, 23:91, 0], points[:, 23:91, 1] = torch.arange(68.0), 10.0
    points[:, 23 + 8, 1] = 40.0  # the chin is below the eyes
    points[1, 23:91, 0] = -points[1, 23:91, 0]  # seen from behind
    points[2, 0, 2] = 1
    points[:, 91:112, 0] = torch.linspace(0, 20, 21)
    points[0, 112:, 0], points[1:, 112:, 0] = torch.linspace(0, 6, 21), torch.linspace(0, 20, 21)
    points[2, 112:, 2] = 1
    kept = as_annotated(points, COCO_WHOLEBODY_133)[..., 2] > 0
    assert kept[:, 23:91].all(1).tolist() == [True, False, False]
    assert kept[:, 91:112].all() and kept[:, 112:].any(1).tolist() == [False, True, False]
    assert kept[:, :23].all()


def test_whole_bodies_are_written_as_cocos_whole_bodies_and_evaluated(tmp_path):
    file = write_people(tmp_path, 6, 7, height=128, skeleton=COCO_WHOLEBODY_133)
    assert file.name == "coco_wholebody_val_v1.0.json"
    rows = json.loads(file.read_text())["annotations"]
    assert {row["face_valid"] for row in rows} == {True, False}
    for row in rows:
        for field, count in (("foot", 6), ("face", 68), ("lefthand", 21), ("righthand", 21)):
            assert len(row[f"{field}_kpts"]) == 3 * count
            assert row[f"{field}_valid"] == any(row[f"{field}_kpts"][2::3])
            assert field == "foot" or row[f"{field}_valid"] == any(row[f"{field}_box"])
    truth = read_annotations(file, COCO_WHOLEBODY_133)
    found = [
        {"image_id": row["image_id"], "category_id": 1, "score": 1.0,
         "keypoints": row["keypoints"], "foot_kpts": row["foot_kpts"],
         "face_kpts": row["face_kpts"], "lefthand_kpts": row["lefthand_kpts"],
         "righthand_kpts": row["righthand_kpts"]}
        for row in rows
    ]  # fmt: skip
    assert evaluate_wholebody(truth, found, COCO_WHOLEBODY_133).face.ap == 1


def test_bodies_have_whole_meshes():
    human = load_human()
    edges = human.faces[human.part_of_face == BODY][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(1)[0]
    _, counts = torch.unique(edges, dim=0, return_counts=True)
    assert (counts == 2).float().mean() > 0.97


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """People that no training has seen."""
    folder = tmp_path_factory.mktemp("album")
    write_people(folder, 32, seed=99)
    return folder


@pytest.mark.parametrize(
    "name", ["hrnet_s_128x96.bodies", "hrnet_s_192x144.bodies", "tmpose_s_192x144.bodies"]
)
def test_packaged_weights_find_rendered_bodies(name, album):
    model = posezoo.create_model(name, pretrained=True)
    settings = EvaluationSettings(boxes="gt")
    record = evaluate_model(model, album, settings, RunOptions(device="cpu"))
    assert record.statistics["AP50"] > 0.4
