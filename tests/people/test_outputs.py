"""Outputs: read back by others, complete at any moment, the same bytes after any interruption."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("av")

from standins.disk import full_disk

from people import make_film, make_photos, moving, predictor
from posezoo import get_skeleton
from posezoo.cli import main
from posezoo.errors import DataError
from posezoo.media import Film, find_sources
from posezoo.media.video import read_video
from posezoo.outputs.formats import Coco, Csv, JsonLines
from posezoo.outputs.openpose import OpenPoseFolder
from posezoo.outputs.overlays import Overlays
from posezoo.outputs.run import RunPlan, run
from posezoo.outputs.textfile import FilePerInput, TextFile
from posezoo.results import PoseResult
from posezoo.runs.lock import one_writer
from posezoo.runs.shares import Share
from posezoo.streaming import FrameResult, PoseStream, StreamOptions, units_of

MODEL = "hrnet_xs_128x96"
PHOTOS, FRAMES = 18, 80  # two units, and a film with a checkpoint in its middle
TOTAL = PHOTOS + FRAMES


def predict(*arguments):
    return CliRunner().invoke(
        main, ["predict", "--model", MODEL, "--whole-image", *map(str, arguments)]
    )


@pytest.fixture
def inputs(tmp_path):
    make_photos(tmp_path / "in", PHOTOS)
    (tmp_path / "in" / "00003.png").write_bytes(b"broken")
    make_film(tmp_path / "in" / "clip.mp4", FRAMES)
    return find_sources([tmp_path / "in"])


def plan(out, sources, share=None, resume=False, form=JsonLines):
    """All kinds of output at once, beside `out`."""
    below = out.parent / f"{out.stem}-others"
    names = {str(s): below / Path(str(s)).stem for s in sources}
    pictures = {
        key: path.with_suffix(".mp4" if key.endswith("mp4") else ".png")
        for key, path in names.items()
    }
    texts = {key: path.with_suffix(".jsonl") for key, path in names.items()}
    sinks = [
        Overlays(pictures, 0.3), FilePerInput(texts, JsonLines()),
        OpenPoseFolder(names, get_skeleton("coco")),
    ]  # fmt: skip
    form = Coco(sources) if form is Coco else form()
    return RunPlan(out=out, form=form, sinks=sinks, identity={"a": 1}, share=share, resume=resume)


def go(out, sources, tell=lambda found: None, stop=lambda: False, **options):
    units = units_of(sources, track=False)
    stream = PoseStream(predictor(), StreamOptions(detect_every=3))
    return run(stream, units, plan(out, sources, **options), tell, stop)


def everything(folder):
    """The bytes of all files below a folder but its inputs."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        re.sub("^[a-z]+", "", str(path.relative_to(folder))): path.read_bytes()
        for path in files
        if path.relative_to(folder).parts[0] != "in"
    }


class Killed(BaseException):
    """What ends a process at once."""


@pytest.mark.parametrize("form", [JsonLines, Coco])
def test_killed_runs_go_on_to_the_same_bytes(tmp_path, inputs, form):
    counts = go(tmp_path / "whole.txt", inputs, form=form)
    assert (counts.frames, counts.failed, counts.people) == (TOTAL, 1, TOTAL - 1)
    whole = everything(tmp_path)
    assert len(whole) == 1 + PHOTOS + (PHOTOS + 1) + (PHOTOS - 1 + FRAMES)
    for path in tmp_path.glob("whole*"):
        os.rename(path, tmp_path.parent / f"{tmp_path.name}-{path.name}")
    rng = np.random.default_rng(0)
    for _ in range(5):
        left = int(rng.integers(1, 60))

        def tell(found):
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        try:
            counts = go(tmp_path / "again.txt", inputs, tell, resume=True, form=form)
            break
        except Killed:
            text = (tmp_path / "again.txt").read_text()
            if form is Coco:
                json.loads(text)  # complete at any moment
            else:
                assert text.endswith("\n")
    else:
        counts = go(tmp_path / "again.txt", inputs, resume=True, form=form)
    assert (counts.frames, counts.failed, counts.people) == (TOTAL, 1, TOTAL - 1)
    assert everything(tmp_path) == whole


@pytest.mark.parametrize("form", [JsonLines, Coco])
def test_shares_give_the_file_of_one_process(tmp_path, inputs, form):
    go(tmp_path / "whole.txt", inputs, form=form)
    whole = (tmp_path / "whole.txt").read_bytes()
    out = tmp_path / "shared.txt"
    with pytest.raises(Killed):
        go(out, inputs, _killer(2), share=Share(index=1, count=2), form=form)
    assert go(out, inputs, share=Share(index=0, count=2), form=form).frames < TOTAL
    assert not out.exists()
    counts = go(out, inputs, share=Share(index=1, count=2), form=form)
    assert (counts.frames, counts.failed, counts.people) == (TOTAL, 1, TOTAL - 1)
    assert out.read_bytes() == whole and not (tmp_path / "shared.txt.parts").exists()


def test_shares_of_other_runs_are_not_mixed_and_a_killed_merge_is_made_up_for(tmp_path, inputs):
    out = tmp_path / "out.jsonl"
    units = units_of(inputs[:4], track=False)

    def share(index, count=2, **identity):
        plan = RunPlan(
            out=out, form=JsonLines(), sinks=[], share=Share(index=index, count=count),
            identity={"model": "a", "device": "cpu", **identity},
        )  # fmt: skip
        return run(PoseStream(predictor(), StreamOptions()), units, plan, lambda found: None)

    done = share(0).frames
    mine = out.with_name(f"{out.name}.parts") / "share-1-of-2.progress"
    mine.write_text("{")
    assert share(0).frames == done  # the damage of others is none of its business
    with pytest.raises(DataError, match="share-1-of-2.progress is damaged; delete it"):
        share(1)
    mine.unlink()
    with pytest.raises(DataError, match="parts is of an unfinished run that differs in model;"):
        share(1, model="b")
    with pytest.raises(DataError, match="differs in shares;"):
        share(1, count=3)
    with one_writer(tmp_path, ".out.jsonl.lock"):  # a whole run writes the same file
        with pytest.raises(DataError, match="written by another run"):
            share(1, device="cuda:1")
    out.mkdir()
    with pytest.raises(DataError, match="cannot write"):  # the merge fails
        share(1, device="cuda:1")
    out.rmdir()
    assert share(1, device="cuda:1").frames == 4 and len(out.read_text().splitlines()) == 4


def _killer(left):
    def tell(found):
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    return tell


def test_a_stopped_run_leaves_complete_files_and_says_what_it_did(tmp_path, inputs):
    seen = []
    counts = go(tmp_path / "out.json", inputs, seen.append, lambda: len(seen) > 40, form=Coco)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == counts.people and counts.frames == len(seen) < TOTAL
    film = tmp_path / "out-others" / "clip.mp4"
    assert len(list(read_video(Film(film)))) == sum(f.index is not None for f in seen)
    whole = go(tmp_path / "out.json", inputs, resume=True, form=Coco)
    assert whole.frames == TOTAL and len(list(read_video(Film(film)))) == FRAMES
    assert not list(tmp_path.glob("**/*.parts")) and not list(tmp_path.glob("*.progress"))


def test_an_unfinished_run_is_neither_lost_nor_mixed_with_another(tmp_path, inputs):
    out = tmp_path / "out.jsonl"
    with pytest.raises(Killed):
        go(out, inputs, _killer(30))
    before = out.read_bytes()
    with pytest.raises(DataError, match="unfinished run; give --resume"):
        go(out, inputs)
    units = units_of(inputs, track=False)
    other = RunPlan(out=out, form=JsonLines(), sinks=[], identity={"a": 2}, resume=True)
    with pytest.raises(DataError, match="differs in a;"):
        run(PoseStream(predictor(), StreamOptions()), units, other, lambda found: None)
    assert out.read_bytes() == before
    (tmp_path / "out.jsonl.progress").write_text("[]")
    with pytest.raises(DataError, match="progress is damaged; delete it"):
        go(out, inputs, resume=True)
    (tmp_path / "out.jsonl.progress").unlink()
    out.write_text("short")
    assert go(out, inputs, resume=True).frames == TOTAL  # nothing to go on with: from the start


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(tmp_path, inputs):
    units, photos = units_of(inputs, track=False), StreamOptions(detect_every=3)

    def write(name, resume=False):
        texts = RunPlan(
            out=tmp_path / name, form=JsonLines(), sinks=[], identity={"a": 1}, resume=resume
        )
        return run(PoseStream(predictor(), photos), units, texts, lambda found: None)

    write("whole.jsonl")
    with full_disk(20_000), pytest.raises(DataError, match="cannot write .*again.jsonl.*make room"):
        write("again.jsonl")
    write("again.jsonl", resume=True)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_file_that_became_shorter_is_not_gone_on_with(tmp_path):
    TextFile(tmp_path / "a", "head", length=0).close()
    with pytest.raises(DataError, match="fewer than the 100 bytes"):
        TextFile(tmp_path / "a", "head", length=100)


def found(result, **where):
    return FrameResult(result=result, **{"source": "street.jpg", **where})


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    skeleton = get_skeleton("coco_wholebody")
    return PoseResult(
        keypoints=rng.uniform(0, 90, (2, 133, 2)), keypoint_scores=rng.uniform(0, 1, (2, 133)),
        bboxes=[[0, 0, 50, 90], [20, 10, 80, 90]], bbox_scores=[0.9, 0.8], skeleton=skeleton,
        image_size=(100, 120), ids=np.array([4, 7]),
    )  # fmt: skip


def test_json_lines_give_the_results_back(result):
    row = json.loads(JsonLines().text(found(result, source="clip.mp4", index=3, time=0.12)))
    assert (row["file"], row["frame"], row["time"]) == ("clip.mp4", 3, 0.12)
    back = PoseResult.from_dict(row)
    np.testing.assert_allclose(back.keypoints, result.keypoints, atol=6e-4)
    assert back.ids.tolist() == [4, 7] and back.skeleton is result.skeleton
    bad = FrameResult(source="b.jpg", error=ValueError("no image"))
    assert json.loads(JsonLines().text(bad)) == {"file": "b.jpg", "error": "no image"}


def test_coco_rows_are_read_by_pycocotools(tmp_path, result):
    pycocotools = pytest.importorskip("pycocotools.coco")
    for count, names in enumerate((["000000000139.jpg", "7.jpg"], ["a.jpg", "7.jpg"])):
        sources = find_sources([str(tmp_path / name) for name in names if _touch(tmp_path / name)])
        form = Coco(sources)
        rows = json.loads(f"[{','.join(form.text(found(result, source=str(s))) for s in sources)}]")
        ids = [[139, 7], [1, 2]][count]
        truth = pycocotools.COCO()
        truth.dataset = {"images": [{"id": i} for i in ids], "annotations": [],
                         "categories": [{"id": 1}]}  # fmt: skip
        truth.createIndex()
        loaded = truth.loadRes(rows)
        assert [len(loaded.getAnnIds(i)) for i in ids] == [2, 2]
        assert len(rows[0]["face_kpts"]) == 68 * 3 and rows[0]["track_id"] == 4
        assert rows[0]["file_name"].endswith(names[0])
    film = Coco(find_sources([_touch(tmp_path / "x.jpg"), _touch(tmp_path / "c.mp4")]))
    rows = json.loads("[" + film.text(found(result, source=str(tmp_path / "c.mp4"), index=5)) + "]")
    assert rows[0]["image_id"] == 2_000_005 and rows[0]["frame"] == 5


def _touch(path):
    path.write_bytes(b"x")
    return path


def test_a_table_has_a_row_per_person_and_keypoint(result):
    strange = found(result, source='a "b", c.jpg', index=2, time=0.08)
    rows = list(csv.DictReader((Csv.head + Csv().text(strange)).splitlines()))
    assert len(rows) == 2 * 133
    row = rows[133 + 9]
    assert (row["file"], row["frame"], row["person"], row["id"]) == ('a "b", c.jpg', "2", "1", "7")
    assert row["keypoint"] == "left_wrist"
    assert float(row["x"]) == pytest.approx(result.keypoints[1, 9, 0], abs=6e-4)


def test_openpose_folder_is_what_pose2sim_reads(tmp_path, result):
    sink = OpenPoseFolder({"clip.mp4": tmp_path / "cam1"}, result.skeleton)
    sink.write([found(result, source="clip.mp4", index=i, time=i / 25) for i in (3, 11)])
    files = sorted((tmp_path / "cam1_json").iterdir())
    # Pose2Sim takes the last number of a name for the frame, and people's flat lists of x, y, c
    assert [int(re.split(r"(\d+)", file.name)[-2]) for file in files] == [3, 11]
    people = json.loads(files[0].read_text())["people"]
    assert [person["person_id"] for person in people] == [[4], [7]]
    body = np.reshape(people[0]["pose_keypoints_2d"], (25, 3))
    named = result[0]
    np.testing.assert_allclose(body[7], named["left_wrist"], atol=1e-3)
    shoulders = np.mean([named["left_shoulder"], named["right_shoulder"]], axis=0)
    np.testing.assert_allclose(body[1, :2], shoulders[:2], atol=1e-3)
    np.testing.assert_allclose(body[19], named["left_big_toe"], atol=1e-3)
    sizes = {key: len(value) for key, value in people[0].items() if key.endswith("2d")}
    assert sizes == {
        "pose_keypoints_2d": 75, "face_keypoints_2d": 210,
        "hand_left_keypoints_2d": 63, "hand_right_keypoints_2d": 63,
    }  # fmt: skip


def test_command_takes_folders_films_and_writes_what_the_ending_says(tmp_path):
    make_photos(tmp_path / "in", 3)
    make_film(tmp_path / "in" / "clip.mp4", 10)
    told = predict(tmp_path / "in", "--out", tmp_path / "o.jsonl", "--draw", tmp_path / "drawn")
    assert told.exit_code == 0, told.output
    assert "clip.mp4: 10 frames, 10 people -> " in told.output
    assert "00000.png: 1 person -> " in told.output and "13 images, 13 people; " in told.output
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(lines) == 13 and lines[-1]["frame"] == 9
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "clip.mp4"]
    photos = f"{tmp_path}/in/*.png"
    assert predict(photos, "--out", tmp_path / "o.json", "--quiet").output.startswith("3 photos")
    assert len(json.loads((tmp_path / "o.json").read_text())) == 3
    assert predict(photos, "--out", tmp_path / "each").exit_code == 0
    each = json.loads((tmp_path / "each" / "00001.json").read_text())
    assert each["file"].endswith("00001.png") and len(each["persons"]) == 1
    pose = predict(tmp_path / "in", "--format", "openpose", "--out", tmp_path / "op", "--every", 5)
    assert pose.exit_code == 0 and len(list((tmp_path / "op" / "clip_json").iterdir())) == 2
    printed = predict(tmp_path / "in" / "00000.png")
    assert json.loads(printed.stdout.splitlines()[0])["persons"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_that_are_no_unicode_and_inputs_named_twice(tmp_path):
    photo = make_photos(tmp_path / "in", 1) / "00000.png"
    odd = os.fsdecode(os.fsencode(tmp_path / "in") + b"/x\xff.png")
    shutil.copy(photo, odd)
    for ending in ("jsonl", "csv", "json"):
        out = tmp_path / f"o.{ending}"
        told = predict(tmp_path / "in", photo, "--out", out)
        assert told.exit_code == 0 and "2 photos, 2 people" in told.output
        assert "udcff.png" in out.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "o.jsonl").read_text().splitlines()[1])["file"] == odd
    assert (
        predict(tmp_path / "in", "--out", tmp_path / "o", "--draw", tmp_path / "d").exit_code == 0
    )
    assert len(list((tmp_path / "d").iterdir())) == len(list((tmp_path / "o").iterdir())) == 2


def test_names_may_be_as_long_as_names_can_be(tmp_path):
    photo = make_photos(tmp_path / "in", 1) / "00000.png"
    photo.rename(photo.with_name("n" * 250 + ".png"))
    told = predict(tmp_path / "in", "--out", tmp_path / "o", "--draw", tmp_path / "d")
    assert told.exit_code == 0, told.output
    assert len(list((tmp_path / "d").iterdir())) == len(list((tmp_path / "o").iterdir())) == 1


@pytest.mark.parametrize(
    ("stem", "ending", "arguments"),
    [
        (240, ".png", ["--format", "openpose", "--out", "o"]),
        (227, ".mp4", ["--format", "openpose", "--out", "o"]),
        (249, ".mp4", ["--out", "o"]),
        (245, ".mp4", ["--out", "o.csv", "--draw", "o"]),  # parts of the film, on the way
    ],
)
def test_outputs_work_up_to_255_bytes_and_longer_names_are_refused_at_once(
    tmp_path, monkeypatch, stem, ending, arguments
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / f"{'n' * stem}{ending}"
    if ending == ".mp4":
        make_film(tmp_path / "film.mp4", 2).rename(file)
    else:
        (make_photos(tmp_path / "made", 1) / "00000.png").rename(file)
    told = predict("in", *arguments)
    assert told.exit_code == 0, told.output
    assert max(len(path.name) for path in (tmp_path / "o").rglob("*")) >= 249
    shutil.rmtree(tmp_path / "o")
    file.rename(file.with_stem("n" * (stem + 1)))
    told = predict("in", *arguments)
    assert told.exit_code == 2 and "has 256 bytes, and a file's name has at most 255" in told.output
    assert not (tmp_path / "o").exists()


def test_pictures_are_not_drawn_into_a_folder_of_inputs(tmp_path):
    photo = make_photos(tmp_path / "in", 1) / "00000.png"
    Image.open(photo).save(photo.with_suffix(".jpg"))
    photo.unlink()
    told = predict(tmp_path / "in", "--draw", tmp_path / "in")
    assert told.exit_code == 2 and "would be written over the input" in told.output
    assert [path.suffix for path in (tmp_path / "in").iterdir()] == [".jpg"]


def test_what_is_finished_is_not_done_again(tmp_path):
    folder, out = make_photos(tmp_path / "in", 3), tmp_path / "o.jsonl"
    assert "3 photos" in predict(folder, "--out", out, "--shard", "0/1", "--resume").output
    for more in (["--shard", "0/1"], []):
        told = predict(folder, "--out", out, "--resume", *more)
        assert told.exit_code == 0 and "o.jsonl is finished" in told.output


def test_a_run_does_not_go_on_with_another_film_of_that_name(tmp_path):
    film = make_film(tmp_path / "clip.mp4", 3)
    (tmp_path / "file").write_text("")
    arguments = (film, "--out", tmp_path / "o.jsonl", "--draw", tmp_path / "file" / "drawn.mp4")
    assert "cannot write" in predict(*arguments).output
    assert "cannot write" in predict(*arguments, "--resume").output
    make_film(film, 5)
    assert "that differs in inputs" in predict(*arguments, "--resume").output


def test_command_tracks_and_calms(tmp_path):
    film = make_film(tmp_path / "clip.mp4", 12)
    told = predict(film, "--track", "--smooth", "savgol", "--out", tmp_path / "o.csv")
    assert told.exit_code == 0, told.output
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert len(rows) == 12 * 17 and len({row["id"] for row in rows}) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.xml"], "valid endings: .jsonl"),
        (["--format", "openpose"], "--format openpose writes a folder"),
        (["--draw", "over.avi"], "over.avi is neither PNG nor JPEG, nor a film in .mp4, "),
        (["--out", "-"], "leave it out for standard output"),
        (["--out", "/dev/null"], "--out is /dev/null, no file"),
        (["--resume"], "give --out"),
        (["--shard", "0/2"], "give --out"),
        (["--shard", "2/2", "--out", "a.jsonl"], "runs from 0 to 1"),
        (["--smooth", "savgol"], "ask for tracks"),
        (["--start", "5", "--stop", "4"], "stop is 4.0"),
        (["--draw", "over.mp4"], "valid: PNG or JPEG"),
        (["--draw", "over.png", "../in/00001.png"], "one picture for 2 photos"),
        (["../clip.mp4", "--draw-tokens", "t"], "--draw-tokens is for photos"),
        (["--out", "../in/00000.png", "--format", "csv"], "written over the input"),
    ],
)
def test_contradictions_are_told(tmp_path, monkeypatch, arguments, words):
    photo = make_photos(tmp_path / "in", 2) / "00000.png"
    make_film(tmp_path / "clip.mp4", 2)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    told = predict(photo, *arguments)
    assert told.exit_code == 2 and words in told.output, told.output
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.slow  # two processes import torch
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_that_is_full_or_closed(tmp_path):
    photo = make_photos(tmp_path / "in", 1) / "00000.png"
    for end, words in ((">/dev/full", "cannot write standard output: No space"), (">&-", "closed")):
        command = f'"$0" -m posezoo predict "$1" --model {MODEL} --whole-image {end}'
        told = subprocess.run(
            ["sh", "-c", command, sys.executable, photo], capture_output=True, text=True
        )
        assert told.returncode in (1, 2) and words in told.stderr, told.stderr


def test_nobody_many_and_tiny_people(tmp_path):
    many = np.array([[x, y, x + 30, y + 40] for x in range(0, 90, 5) for y in range(0, 48)])
    for boxes in (np.zeros((0, 4)), many[:300], np.array([[5.0, 5, 6, 6]])):
        pose = predictor(lambda image, b=boxes: (b, np.ones(len(b))))
        (only,) = pose.stream([moving(3)])
        assert only.error is not None or len(only.result) == len(boxes)
    path = make_photos(tmp_path / "in", 1) / "00000.png"
    (tmp_path / "none.json").write_text(json.dumps({"00000.png": []}))
    told = CliRunner().invoke(
        main, ["predict", str(path), "--model", MODEL, "--boxes", str(tmp_path / "none.json"),
               "--draw", str(tmp_path / "d.png"), "--out", str(tmp_path / "o.json")],
    )  # fmt: skip
    assert told.exit_code == 0 and "1 photo, 0 people" in told.output
    assert json.loads((tmp_path / "o.json").read_text()) == []
    assert np.array_equal(Image.open(tmp_path / "d.png"), Image.open(path))
