"""Drawing: what is shown, where, in which colour and how thick."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from posezoo.draw import _PALETTE, draw_poses, draw_tokens
from posezoo.errors import InputError
from posezoo.results import PoseResult
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton

GREY = np.full((200, 160, 3), 128, np.uint8)
INDEX = {name: i for i, name in enumerate(COCO_17.keypoint_names)}


def _result(
    points: dict[str, tuple[float, float]], box: tuple[float, ...] = (20, 20, 140, 180)
) -> PoseResult:
    """One person of whom only the named keypoints have a score."""
    keypoints, scores = np.zeros((1, 17, 2)), np.zeros((1, 17))
    for name, point in points.items():
        keypoints[0, INDEX[name]], scores[0, INDEX[name]] = point, 1.0
    return PoseResult(
        keypoints=keypoints,
        keypoint_scores=scores,
        bboxes=np.array([box]),
        bbox_scores=np.ones(1),
        skeleton=COCO_17,
        image_size=GREY.shape[:2],
    )


def _both(*results: PoseResult) -> PoseResult:
    fields = ("keypoints", "keypoint_scores", "bboxes", "bbox_scores")
    return dataclasses.replace(
        results[0], **{f: np.concatenate([getattr(r, f) for r in results]) for f in fields}
    )


def _changed(result: PoseResult, image: np.ndarray = GREY, **options: float) -> np.ndarray:
    return (np.asarray(draw_poses(image, result, **options)) != image).any(axis=2)


def _random(skeleton: Skeleton, count: int = 2) -> PoseResult:
    rng = np.random.default_rng(0)
    k = skeleton.num_keypoints
    return PoseResult(
        keypoints=rng.uniform(10, 150, (count, k, 2)),
        keypoint_scores=np.ones((count, k)),
        bboxes=np.tile([10.0, 10, 150, 190], (count, 1)),
        bbox_scores=np.ones(count),
        skeleton=skeleton,
        image_size=GREY.shape[:2],
    )


@pytest.mark.parametrize("skeleton", [COCO_17, COCO_WHOLEBODY_133, MPII_16], ids=lambda s: s.name)
def test_every_keypoint_is_drawn_on_a_copy(skeleton: Skeleton) -> None:
    image, result = GREY.copy(), _random(skeleton)
    drawn = draw_poses(image, result)
    assert drawn.mode == "RGB" and drawn.size == (160, 200)
    assert (image == GREY).all()
    changed = (np.asarray(drawn) != GREY).any(axis=2)
    x, y = result.keypoints.reshape(-1, 2).round().astype(int).T
    assert changed[y, x].all()


def test_nobody_leaves_the_image_as_it_is() -> None:
    result = _random(COCO_17)[[]]
    assert not _changed(result).any()
    assert not _changed(result, boxes=True).any()


def test_path_pillow_and_array_give_the_same_picture(tmp_path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    result = _random(COCO_17)
    pictures = [np.asarray(draw_poses(source, result))
                for source in (GREY, Image.fromarray(GREY), tmp_path / "grey.png")]  # fmt: skip
    assert (pictures[0] == pictures[1]).all() and (pictures[0] == pictures[2]).all()


@pytest.mark.parametrize(
    ("names", "side"),
    [
        (("left_elbow", "left_wrist"), "left"),
        (("right_elbow", "right_wrist"), "right"),
        (("left_hip", "right_hip"), "middle"),
        (("nose", "left_eye"), "left"),
    ],
)
def test_limbs_have_the_colour_of_their_side(names: tuple[str, str], side: str) -> None:
    drawn = np.asarray(draw_poses(GREY, _result(dict(zip(names, [(40, 60), (100, 60)])))))
    assert tuple(drawn[60, 70]) == _PALETTE[0][side]


def test_disc_is_centred_on_its_keypoint() -> None:
    changed = _changed(_result({"left_knee": (80, 100)}, box=(0, 0, 160, 200)))
    y, x = np.nonzero(changed)
    assert (x.mean(), y.mean()) == pytest.approx((80, 100), abs=0.1)
    assert 3 <= x.max() - x.min() <= 12


def test_keypoints_below_the_threshold_and_their_limbs_are_left_out() -> None:
    result = _result({"left_elbow": (40, 60), "left_wrist": (100, 60)})
    result.keypoint_scores[0, INDEX["left_wrist"]] = 0.25
    assert not _changed(result)[:, 55:].any()
    assert _changed(result, threshold=0.2)[60, 40:100].all()


@pytest.mark.parametrize("point", [(np.nan, 60.0), (np.inf, 60.0), (1e30, 60.0), (-5000.0, 60.0)])
def test_stray_points_are_left_out(point: tuple[float, float]) -> None:
    result = _result({"left_elbow": (40, 60), "left_wrist": point})
    changed = _changed(result)
    assert changed[60, 40] and not changed[:, 55:].any()


def test_nan_scores_are_left_out() -> None:
    result = _result({"nose": (80, 100)})
    result.keypoint_scores[0, INDEX["nose"]] = np.nan
    assert not _changed(result).any()


def test_persons_outside_the_image_are_left_out() -> None:
    result = _result({"left_elbow": (-60, -60), "left_wrist": (-20, -20)}, box=(-80, -80, 1, 1))
    assert not _changed(result).any()


def test_limbs_that_leave_the_image_are_cut_off() -> None:
    changed = _changed(_result({"left_elbow": (80, 60), "left_wrist": (250, 60)}))
    assert changed[60, 80:].all()


def test_persons_get_different_colours() -> None:
    drawn = np.asarray(draw_poses(GREY, _both(
        _result({"left_elbow": (40, 60), "left_wrist": (100, 60)}),
        _result({"left_elbow": (40, 140), "left_wrist": (100, 140)}),
    )))  # fmt: skip
    assert tuple(drawn[60, 70]) == _PALETTE[0]["left"]
    assert tuple(drawn[140, 70]) == _PALETTE[1]["left"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_smaller_persons_lie_on_top(order: tuple[int, int]) -> None:
    points = {"left_elbow": (40.0, 60.0), "left_wrist": (100.0, 60.0)}
    large, small = _result(points), _result(points, box=(30, 40, 110, 80))
    result = _both(large, small)[list(order)]
    drawn = np.asarray(draw_poses(GREY, result))
    assert tuple(drawn[60, 70]) == _PALETTE[order.index(1)]["left"]


def test_thickness_grows_with_the_person() -> None:
    def thickness(scale: float) -> int:
        image = np.full((int(200 * scale), int(160 * scale), 3), 128, np.uint8)
        result = _result({"left_elbow": (40 * scale, 60 * scale),
                          "left_wrist": (100 * scale, 60 * scale)},
                         box=(20 * scale, 20 * scale, 140 * scale, 180 * scale))  # fmt: skip
        result = dataclasses.replace(result, image_size=image.shape[:2])
        return int(_changed(result, image)[:, int(70 * scale)].sum())

    small, middle, large = thickness(0.5), thickness(4), thickness(16)
    assert 1 <= small <= 4
    assert 2.5 * small < middle and 3 < large / middle < 4.5


def test_hands_are_thinner_than_arms() -> None:
    names = COCO_WHOLEBODY_133.keypoint_names
    keypoints, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
    for name, point in {
        "left_elbow": (40, 60), "left_wrist": (100, 60),
        "left_hand_root": (40, 100), "left_thumb1": (60, 100),
    }.items():  # fmt: skip
        keypoints[0, names.index(name)], scores[0, names.index(name)] = point, 1.0
    result = dataclasses.replace(
        _random(COCO_WHOLEBODY_133, 1), keypoints=keypoints, keypoint_scores=scores
    )
    changed = _changed(result)
    assert 1 <= changed[85:115, 50].sum() < changed[45:75, 70].sum()


def test_boxes_are_drawn_on_request() -> None:
    result = _result({"nose": (80, 100)})
    assert not _changed(result)[20, 20:140].any()
    changed = _changed(result, boxes=True)
    assert changed[20, 20:140].all() and changed[20:180, 140].all()


def test_another_images_result_is_refused() -> None:
    with pytest.raises(InputError, match="200 x 160 pixels .* one of 100 x 160"):
        draw_poses(GREY, dataclasses.replace(_random(COCO_17), image_size=(100, 160)))


def test_regions_are_painted_in_their_mean_colour_up_to_the_borders() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 30:] = (200, 100, 50)
    cells = np.array([[0, 0, 0, 7, 7, 7], [0, 0, 0, 7, 7, 7]])
    plain = np.asarray(draw_tokens(picture, cells, outline=False))
    np.testing.assert_array_equal(plain, picture)
    lined = np.asarray(draw_tokens(picture, cells))
    assert (lined != picture).any(axis=-1)[:, 30].all()
    assert (lined == picture).all(axis=-1)[:, :30].all()


def test_what_is_no_map_of_tokens_is_refused() -> None:
    for cells in (np.zeros((2, 2)), np.zeros(4, int), np.full((2, 2), -1), np.zeros((0, 2), int)):
        with pytest.raises(InputError, match="cell_token must be"):
            draw_tokens(np.zeros((8, 8, 3), np.uint8), cells)


def test_a_tracked_person_keeps_its_colours() -> None:
    left = _result({"left_wrist": (40, 100)}, box=(20, 20, 60, 180))
    right = _result({"left_wrist": (120, 100)}, box=(100, 20, 140, 180))
    pair = dataclasses.replace(_both(left, right), ids=np.array([6, 9]))
    before, after = (np.asarray(draw_poses(GREY, result)) for result in (pair, pair[::-1]))
    assert (before == after).all()
    alone = np.asarray(draw_poses(GREY, pair[1:]))
    assert (alone[100, 120] == before[100, 120]).all()
    assert (alone[100, 120] == _PALETTE[9 % len(_PALETTE)]["left"]).all()
