"""PoseResult: validation, selection, and what it becomes for other tools."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from posezoo.draw import draw_poses
from posezoo.errors import DataError, InputError
from posezoo.h36m import H36M_17
from posezoo.results import CSV_HEADER, PoseResult
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton


def _result(count: int = 3, skeleton: Skeleton = COCO_17) -> PoseResult:
    rng = np.random.default_rng(0)
    k = skeleton.num_keypoints
    corner = rng.uniform(0, 50, (count, 2))
    return PoseResult(
        keypoints=rng.uniform(0, 100, (count, k, 2)),
        keypoint_scores=rng.uniform(0, 1, (count, k)),
        bboxes=np.concatenate([corner, corner + 40], axis=1),
        bbox_scores=rng.uniform(0, 1, count),
        skeleton=skeleton,
        image_size=(100, 120),
    )


EDGES = [(a + 1, b + 1) for a, b in COCO_17.limbs]  # supervision counts from 1


def _tracked() -> PoseResult:
    return dataclasses.replace(_result(), ids=np.array([4, 7, 2**40]))


def test_arrays_become_float32() -> None:
    result = _result()
    for name in ("keypoints", "keypoint_scores", "bboxes", "bbox_scores"):
        assert getattr(result, name).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((3, 16, 2))}, r"has shape \(3, 16, 2\), expected \(3, 17, 2\)"),
        ({"keypoints": np.zeros((3, 17, 3))}, "keypoints has shape"),
        ({"keypoint_scores": np.zeros((2, 17))}, r"keypoint_scores has shape \(2, 17\)"),
        ({"bbox_scores": np.zeros((3, 1))}, r"bbox_scores has shape \(3, 1\), expected \(3,\)"),
        ({"bboxes": np.zeros((3, 5))}, r"bboxes has shape \(3, 5\), expected \(3, 4\)"),
        ({"skeleton": MPII_16}, "16 keypoints of 'mpii'"),
        ({"image_size": (0, 5)}, r"image_size is \(0, 5\)"),
        ({"image_size": (5, 5, 3)}, r"image_size is \(5, 5, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(_result(), **change)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (np.int64(0), [0]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([True, False, True], [0, 2]),
        (np.array([2, 0]), [2, 0]),
        ([2, 0], [2, 0]),
        ([], []),
    ],
    ids=str,
)
def test_selection_keeps_all_fields_together(index: Any, expected: list[int]) -> None:
    result = _result()
    selected = result[index]
    assert len(selected) == len(expected)
    assert selected.skeleton is COCO_17 and selected.image_size == (100, 120)
    for name in ("keypoints", "keypoint_scores", "bboxes", "bbox_scores"):
        assert (getattr(selected, name) == getattr(result, name)[expected]).all()


@pytest.mark.parametrize("index", [3, -4])
def test_a_person_out_of_range_raises(index: int) -> None:
    with pytest.raises(IndexError, match=f"person {index} of a result with 3 persons"):
        _result()[index]


def test_iteration_yields_every_person_once() -> None:
    result = _result()
    persons = list(result)
    assert [len(person) for person in persons] == [1, 1, 1]
    assert (np.concatenate([p.keypoints for p in persons]) == result.keypoints).all()
    assert list(_result(0)) == []


def test_coco_rows_hold_points_scores_and_xywh_boxes() -> None:
    result = _result()
    rows = result.to_coco(785)
    assert json.loads(json.dumps(rows)) == rows
    for i, row in enumerate(rows):
        assert (row["image_id"], row["category_id"]) == (785, 1)
        points = np.array(row["keypoints"]).reshape(17, 3)
        assert (points[:, :2] == result.keypoints[i]).all()
        assert (points[:, 2] == result.keypoint_scores[i]).all()
        x1, y1, x2, y2 = result.bboxes[i]
        np.testing.assert_allclose(row["bbox"], [x1, y1, x2 - x1, y2 - y1], rtol=1e-6)


def test_coco_score_is_box_score_times_mean_of_good_keypoints() -> None:
    scores = np.zeros((3, 17))
    scores[0, :3] = 0.5, 0.9, 0.125  # the last does not count
    scores[1] = 0.125
    scores[2] = 8.0  # PCT logits
    result = dataclasses.replace(
        _result(), keypoint_scores=scores, bbox_scores=np.array([0.5, 1.0, 0.25])
    )
    rescored = [row["score"] for row in result.to_coco(1)]
    assert rescored == pytest.approx([0.35, 0.0, 2.0])


def test_whole_body_rows_are_split_into_the_official_lists() -> None:
    result = _result(2, COCO_WHOLEBODY_133)
    row = result.to_coco(1)[1]
    keys = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    assert [len(row[key]) // 3 for key in keys] == [17, 6, 68, 21, 21]
    together = np.concatenate([row[key] for key in keys]).reshape(133, 3)
    assert (together[:, :2] == result.keypoints[1]).all()


def test_dict_is_strict_json_with_names() -> None:
    result = _result()
    result.keypoint_scores[1, 4] = np.nan
    data = result.to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert data["keypoint_names"][0] == "nose" and data["parts"] == {"body": [0, 17]}
    assert data["image_size"] == [100, 120] and data["skeleton"] == "coco"
    assert data["persons"][1]["keypoint_scores"][4] is None
    assert np.array(data["persons"][2]["keypoints"], np.float32).tolist() == (
        result.keypoints[2].tolist()
    )
    assert data["persons"][0]["bbox"] == result.bboxes[0].tolist()


def test_coco_rows_are_strict_json_and_of_finite_numbers() -> None:
    result = _result(3)
    expected = _result(3).to_coco(1)
    result.keypoints[0, 4], result.keypoint_scores[1, 2] = np.nan, np.inf
    result.bboxes[1, 0], result.bbox_scores[2] = np.inf, np.nan
    rows = result.to_coco(1)
    json.dumps(rows, allow_nan=False)
    assert rows[0]["keypoints"][12:15] == rows[1]["keypoints"][6:9] == [0, 0, 0]
    assert rows[0]["keypoints"][:12] == expected[0]["keypoints"][:12]
    assert rows[1]["bbox"] == [0] * 4 and rows[1]["score"] == rows[2]["score"] == 0


def test_supervision_gets_points_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class Old:
        xy: Any
        class_id: Any = None
        confidence: Any = None
        data: Any = None

    @dataclasses.dataclass
    class New:
        xy: Any
        class_id: Any = None
        keypoint_confidence: Any = None
        detection_confidence: Any = None
        visible: Any = None
        data: Any = None

    module = types.ModuleType("supervision")
    monkeypatch.setitem(sys.modules, "supervision", module)
    result = _tracked()
    for kind in (Old, New):
        module.KeyPoints = kind  # type: ignore[attr-defined]
        points = result.to_supervision()
        assert (points.xy == result.keypoints).all() and points.class_id is None
        assert (points.data["xyxy"] == result.bboxes).all()
        assert (points.data["tracker_id"] == result.ids).all()
        if kind is Old:
            assert (points.confidence == result.keypoint_scores).all()
            assert (points.data["detection_confidence"] == result.bbox_scores).all()
        else:
            assert (points.keypoint_confidence == result.keypoint_scores).all()
            assert (points.detection_confidence == result.bbox_scores).all()


def test_supervision_draws_from_a_result() -> None:
    supervision = pytest.importorskip("supervision")
    points = _tracked().to_supervision()
    assert (points[1].data["tracker_id"] == [7]).all()
    for annotator in (
        supervision.VertexAnnotator(radius=2),
        supervision.EdgeAnnotator(edges=EDGES),
    ):
        picture = annotator.annotate(np.zeros((100, 120, 3), np.uint8), points)
        assert picture.any()


def test_missing_supervision_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"posezoo\[supervision\]"):
        _result().to_supervision()


@pytest.mark.parametrize("index", [1, slice(1, None), [2, 0], np.array([True, False, True])])
def test_selection_keeps_the_ids(index: Any) -> None:
    ids = _tracked()[index].ids
    assert ids is not None and ids.dtype == np.int64
    assert ids.tolist() == np.atleast_1d(np.array([4, 7, 2**40])[index]).tolist()


@pytest.mark.parametrize("ids", [[1, 2], [1.0, 2.0, 3.0], [[1, 2, 3]], ["a", "b", "c"]], ids=str)
def test_ids_that_are_not_one_integer_per_person_are_refused(ids: Any) -> None:
    with pytest.raises(InputError, match="expected 3 integers"):
        dataclasses.replace(_result(), ids=ids)


def test_keypoints_go_by_name() -> None:
    result = _result()
    x, y, score = result[1]["left_wrist"]
    k = COCO_17.keypoint_names.index("left_wrist")
    assert [x, y] == result.keypoints[1, k].tolist() and score == result.keypoint_scores[1, k]
    assert result[1]["left_wrist"].score == score
    with pytest.raises(InputError, match="no keypoint 'left_wirst'; did you mean 'left_wrist'"):
        result[0]["left_wirst"]
    with pytest.raises(InputError, match=r"of a result with 3 persons; .*result\[0\]\['nose'\]"):
        result["nose"]


def test_repr_is_short_and_says_what_was_found() -> None:
    lines = repr(_result(300, COCO_WHOLEBODY_133)).splitlines()
    assert len(lines) == 7 and max(map(len, lines)) < 110
    assert lines[0].startswith("PoseResult: 300 people, 133 keypoints of 'coco_wholebody'")
    assert lines[-1] == "  and 295 more"
    result = _tracked()
    found = int((result.keypoint_scores[1] > 0.3).sum())
    assert repr(result).splitlines()[2].startswith("  1: id 7, box (")
    assert f"score {result.bbox_scores[1]:.2f}, {found} keypoints above 0.3" in repr(result)
    assert repr(_result(0)) == (
        "PoseResult: 0 people, 17 keypoints of 'coco', image of 100 x 120 pixels (H x W)"
    )


def test_pictures_with_and_without_the_image() -> None:
    result = dataclasses.replace(_result(), keypoint_scores=np.ones((3, 17)))
    image = np.full((100, 120, 3), 9, np.uint8)
    assert (np.asarray(result.draw(image)) == np.asarray(draw_poses(image, result))).all()
    assert result.draw().size == (120, 100)
    with pytest.raises(InputError, match="the image has 5 x 5 pixels"):
        result.draw(image[:5, :5])


def test_a_notebook_gets_a_small_picture() -> None:
    result = dataclasses.replace(_result(), keypoint_scores=np.ones((3, 17)))
    large = dataclasses.replace(
        result,
        keypoints=result.keypoints * 100,
        bboxes=result.bboxes * 100,
        image_size=(9000, 12000),
    )
    picture = Image.open(io.BytesIO(large._repr_png_()))
    assert picture.size == (640, 480)
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10


def test_show_says_when_nothing_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("PIL.ImageShow._viewers", [])
    with pytest.raises(InputError, match="no program here shows pictures"):
        _result().show()
    viewer = types.SimpleNamespace(show=lambda image, **options: shown.append(image) or 1)
    monkeypatch.setattr("PIL.ImageShow._viewers", [viewer])
    _result().show(np.zeros((100, 120, 3), np.uint8))
    assert shown[0].size == (120, 100)


OWN = Skeleton(
    name="dog",
    keypoint_names=("nose", "left_paw", "right_paw", "tail"),
    flip_pairs=((1, 2),),
    sigmas=(0.1, 0.2, 1 / 3, 0.05),
    limbs=((0, 3),),
    parts={"front": (0, 3), "back": (3, 4)},
)
CHANGED = dataclasses.replace(COCO_17, limbs=())


@pytest.mark.parametrize(
    "skeleton", [COCO_17, COCO_WHOLEBODY_133, MPII_16, OWN, CHANGED, H36M_17], ids=lambda s: s.name
)
@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("tracked", [False, True])
def test_a_dict_goes_both_ways_exactly(skeleton: Skeleton, count: int, tracked: bool) -> None:
    result = _result(count, skeleton)
    if tracked:
        result = dataclasses.replace(result, ids=np.arange(count) + 2**40)
    if count:
        result.keypoints[0, 1] = np.nan, -0.0
        result.keypoint_scores[2, 3] = np.nan
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert data == result.to_dict()
    back = PoseResult.from_dict(data)
    for name in ("keypoints", "keypoint_scores", "bboxes", "bbox_scores"):
        assert getattr(back, name).tobytes() == getattr(result, name).tobytes(), name
    assert back.skeleton == skeleton and back.image_size == result.image_size
    assert (back.ids is None) == (not tracked)
    assert back.ids is None or back.ids.tolist() == [i + 2**40 for i in range(count)]
    assert back.to_dict() == data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"persons": [{"bbox": [1, 2, 3, 4]}]}, "no 'bbox_score'"),
        ({"persons": 5}, "not iterable"),
        ({"skeleton": "coca"}, "no skeleton named 'coca'"),
        ({"keypoint_names": ["nose"]}, "keypoint names are not those of 'coco'"),
        ({"image_size": [4]}, "not enough values"),
        ({"tracked": True}, "no 'id'"),
    ],
    ids=str,
)
def test_other_dicts_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match="not a result as PoseResult.to_dict") as caught:
        PoseResult.from_dict(_result().to_dict() | change)
    assert words in str(caught.value)


def test_coco_rows_of_tracked_people_have_the_track() -> None:
    assert _result(0).to_coco(1) == []
    assert [row["track_id"] for row in _tracked().to_coco(1)] == [4, 7, 2**40]
    assert "track_id" not in _result().to_coco(1)[0]


def test_csv_is_read_back_to_the_same_numbers() -> None:
    result = _tracked()
    result.keypoints[1, 2] = np.nan
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert tuple(rows[0]) == CSV_HEADER and len(rows) == 3 * 17
    points = np.array([[row["x"] or "nan", row["y"] or "nan"] for row in rows], np.float32)
    np.testing.assert_array_equal(points.reshape(3, 17, 2), result.keypoints)
    scores = np.array([row["score"] for row in rows], np.float32).reshape(3, 17)
    assert (scores == result.keypoint_scores).all()
    assert [row["keypoint"] for row in rows[17:34]] == list(COCO_17.keypoint_names)
    assert {(row["person"], row["id"]) for row in rows[17:34]} == {("1", "7")}
    box = np.array(
        [[row[f"bbox_{c}"] for c in ("x1", "y1", "x2", "y2")] for row in rows], np.float32
    )
    assert (box[::17] == result.bboxes).all()
    assert rows[17 + 2]["x"] == ""
    assert next(_result().csv_rows())[:2] == (0, "")
    assert _result(0).to_csv() == ",".join(CSV_HEADER) + "\n"


def test_csv_is_read_by_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(io.StringIO(_tracked().to_csv()))
    assert table.groupby("id").size().tolist() == [17, 17, 17]
    assert table.dtypes["x"].kind == "f" and table.dtypes["id"].kind == "i"


@pytest.mark.parametrize("skeleton", [COCO_17, COCO_WHOLEBODY_133], ids=lambda s: s.name)
def test_h36m_joints_are_means_of_coco_keypoints(skeleton: Skeleton) -> None:
    result = dataclasses.replace(_result(3, skeleton), ids=np.arange(3))
    joints = result.to_h36m17()
    assert joints.skeleton is H36M_17 and joints.ids is not None
    named, lifted = result[1], joints[1]

    def mean(*names: str) -> Any:
        return pytest.approx(np.mean([named[name][:2] for name in names], axis=0), rel=1e-6)

    assert lifted["pelvis"][:2] == mean("left_hip", "right_hip")
    assert lifted["thorax"][:2] == mean("left_shoulder", "right_shoulder")
    assert lifted["spine"][:2] == mean("left_hip", "right_hip", "left_shoulder", "right_shoulder")
    assert lifted["head"][:2] == mean("left_eye", "right_eye")
    assert lifted["pelvis"].score == min(named["left_hip"].score, named["right_hip"].score)
    for name in ("nose", "right_knee", "left_wrist", "right_ankle", "left_shoulder"):
        assert lifted[name] == named[name]
    order = "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax "
    order += "nose head left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"
    assert " ".join(H36M_17.keypoint_names) == order
    assert H36M_17.flip_indices == (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)


def test_h36m_needs_the_keypoints_of_coco() -> None:
    with pytest.raises(InputError, match="skeleton 'mpii' has no left_eye, nose, right_eye"):
        _result(1, MPII_16).to_h36m17()
    assert len(_result(0).to_h36m17()) == 0
