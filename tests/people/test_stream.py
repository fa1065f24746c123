"""`PosePredictor.stream`: frames in, people out, in order, with little memory."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from people import BOX, SIZE, make_film, make_photos, moving, one_box, picture, predictor
from posezoo.errors import InputError
from posezoo.media import Images, find_sources
from posezoo.results import PoseResult
from posezoo.streaming import PoseStream, StreamOptions, units_of
from posezoo.streaming.follow import boxes_around
from posezoo.streaming.stream import Position


def test_a_folder_gives_what_each_photo_gives_alone(tmp_path):
    folder = make_photos(tmp_path / "in", 20)
    (folder / "00007.png").write_bytes(b"broken")
    pose = predictor()
    found = list(pose.stream(folder))
    assert [f.source for f in found] == [str(path) for path in sorted(folder.iterdir())]
    assert "00007.png" in str(found[7].error) and found[7].result is None
    alone = pose(folder / "00012.png")
    np.testing.assert_allclose(found[12].result.keypoints, alone.keypoints, atol=1e-4)
    assert found[12].index is None and found[12].image.shape == (*SIZE, 3)


def test_films_images_and_photos_in_one_stream(tmp_path):
    make_photos(tmp_path / "in", 2)
    film = make_film(tmp_path / "clip.mp4", 20)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    inputs = [tmp_path / "in", film, tmp_path / "bad.mp4", tmp_path / "in" / "00000.png"]
    found = list(predictor().stream(inputs, every=5, max_frames=3))
    assert [f.index for f in found] == [None, None, 0, 5, 10, None, None]
    assert [f.error is None for f in found] == [True] * 5 + [False, True]
    in_memory = list(predictor().stream(picture(i) for i in range(18)))
    assert [f.index for f in in_memory] == list(range(18))
    assert all(len(f.result) == 1 for f in in_memory)


def test_a_bad_image_in_memory_costs_itself_and_one_image_is_one(tmp_path):
    path = make_photos(tmp_path, 1) / "00000.png"
    found = list(predictor().stream(iter([picture(0), tmp_path / "gone.png", path, None])))
    assert [f.index for f in found] == [0, 1, 2, 3]
    assert [f.error is None for f in found] == [True, False, True, False]
    for one in (picture(0), Image.fromarray(picture(0))):
        (only,) = predictor().stream(one)
        assert only.result.image_size == SIZE
    for wrong in (None, 2.5, b"clip.mp4"):
        with pytest.raises(InputError, match="source is a .*; give paths"):
            list(predictor().stream(wrong))


def test_images_are_read_as_they_are_needed():
    read = []

    def frames():
        for i in range(1000):
            read.append(i)
            yield picture(i)

    stream = predictor().stream(frames())
    next(stream)
    assert len(read) < 40
    stream.close()
    count = len(read)
    assert count < 80


def test_an_error_of_the_reader_reaches_the_caller():
    def frames():
        yield picture(0)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(predictor().stream(frames()))


def test_detector_is_asked_for_every_nth_frame_and_boxes_follow(tmp_path):
    asked = []

    def detector(image):
        asked.append(len(asked))
        return one_box(image)

    film = make_film(tmp_path / "clip.mp4", 25)
    found = list(predictor(detector).stream(film, detect_every=10))
    assert len(asked) == 3 and len(found) == 25
    assert all(len(f.result) == 1 for f in found)
    before, after = found[10].result, found[11].result
    np.testing.assert_allclose(after.bboxes, boxes_around(before)[0], atol=1e-3)
    assert not np.allclose(after.bboxes, BOX)


@pytest.mark.parametrize("second, always", [([15, 10, 50, 80], True), ([80, 10, 115, 80], False)])
def test_who_overlaps_is_detected_in_every_frame(tmp_path, second, always):
    asked = []

    def detector(image):
        asked.append(len(asked))
        return np.array([[5.0, 10, 40, 80], second]), np.ones(2)

    film = make_film(tmp_path / "clip.mp4", 12)
    found = list(predictor(detector).stream(film, detect_every=10))
    assert (len(asked) == 12) is always and all(len(f.result) == 2 for f in found)


def _person(points, scores, box):
    from posezoo import get_skeleton

    k = get_skeleton("coco").num_keypoints
    return PoseResult(
        keypoints=np.resize(points, (1, k, 2)), keypoint_scores=np.full((1, k), scores),
        bboxes=[box], bbox_scores=[0.7], skeleton=get_skeleton("coco"), image_size=(400, 400),
    )  # fmt: skip


def test_boxes_grow_at_once_shrink_slowly_and_wait_for_who_is_hidden():
    grown, scores = boxes_around(_person([[50, 60], [150, 260]], 0.9, [100, 100, 140, 200]))
    assert (grown[0, :2] < [50, 60]).all() and (grown[0, 2:] > [150, 260]).all()
    assert scores == pytest.approx([0.7])
    slow, _ = boxes_around(_person([[150, 150], [160, 160]], 0.9, [100, 100, 300, 300]))
    np.testing.assert_allclose(slow, [[110, 110, 290, 290]])
    unsure, _ = boxes_around(_person([[50, 60], [150, 260]], 0.1, [0, 0, 200, 300]))
    np.testing.assert_allclose(unsure, [[0, 0, 200, 300]])
    inside, _ = boxes_around(_person([[-50, -60], [500, 600]], 0.9, [0, 0, 200, 300]))
    np.testing.assert_allclose(inside, [[0, 0, 400, 400]])
    assert len(boxes_around(_person([[500, 60], [550, 260]], 0.9, [390, 50, 400, 270]))[0]) == 1
    assert len(boxes_around(_person([[-90, 60], [-50, 260]], 0.9, [0, 50, 1, 270]))[0]) == 0
    front = _person([[50, 60], [150, 260]], 0.9, [40, 50, 160, 270])
    behind = dataclasses.replace(
        front, keypoints=np.concatenate([front.keypoints, front.keypoints + 2]),
        keypoint_scores=np.concatenate([front.keypoint_scores, front.keypoint_scores * 0.9]),
        bboxes=[[40, 50, 160, 270], [90, 40, 210, 270]], bbox_scores=[0.7, 0.6],
    )  # fmt: skip
    boxes, _ = boxes_around(behind)
    np.testing.assert_allclose(boxes[1], [90, 40, 210, 270])  # the pose is that of the one in front
    assert not np.allclose(boxes[0], [40, 50, 160, 270])
    assert len(boxes_around(front[[]])[0]) == 0


@pytest.mark.parametrize("smooth", [None, "one-euro", "savgol"])
@pytest.mark.parametrize("at", [1, 3])
def test_a_stream_goes_on_from_any_position_with_the_same_results(tmp_path, smooth, at):
    film = make_film(tmp_path / "clip.mp4", 60)
    make_photos(tmp_path / "in", 3)
    units = units_of(find_sources([film, tmp_path / "in"]), track=True)
    options = StreamOptions(detect_every=4, track=True, smooth=smooth)

    def results(steps):
        return [json.dumps(f.result.to_dict()) for step in steps for f in step.found]

    whole = list(PoseStream(predictor(), options).run(units))
    assert len(results(whole)) == 63
    ends = [i for i, step in enumerate(whole, 1) if step.after is not None]
    kept = whole[: ends[at - 1]]
    told = json.loads(json.dumps(dataclasses.asdict(kept[-1].after)))
    rest = list(PoseStream(predictor(), options).run(units, Position(**told)))
    assert results(kept) + results(rest) == results(whole)
    shown = [f for step in kept + rest for f in step.found if f.index is not None]
    for f in shown:
        bright = np.nonzero(f.image[40, :, 0] > 150)[0].mean() - 9.5
        assert abs(bright - f.index) < 1  # held frames were read again


def test_units_depend_on_the_inputs_alone(tmp_path):
    sources = find_sources([make_photos(tmp_path / "a", 18), make_photos(tmp_path / "b", 3)])
    assert [len(unit.sources) for unit in units_of(sources, track=False)] == [16, 5]
    assert [len(unit.sources) for unit in units_of(sources, track=True)] == [18, 3]
    assert units_of([Images([])], track=False)[0].in_time


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detect_every": 0}, "detect_every is 0"),
        ({"smooth": "savgol"}, "ask for tracks"),
        ({"smooth": "kalman", "track": True}, "valid: one-euro, savgol"),
        ({"every": 0}, "every is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        list(predictor().stream(make_photos(tmp_path, 1), **options))


def test_a_failing_detector_costs_its_frame(tmp_path):
    def detector(image):
        if image[40, 0, 0] > 150:  # the first frame only
            raise ValueError("no memory")
        return one_box(image)

    found = list(predictor(detector).stream([moving(0), moving(30)]))
    assert "no memory" in str(found[0].error) and len(found[1].result) == 1
    Image.fromarray(moving(0)).save(tmp_path / "0.png")
    assert "no memory" in str(next(predictor(detector).stream(tmp_path)).error)
