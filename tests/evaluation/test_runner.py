"""Shares, checkpoints, merging: the same numbers in any number of pieces."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from standins.processes import launch
from standins.signals import sent_when

import posezoo
from evaluation.made import ANNOTATIONS, DETECTIONS, Brightest, evaluate, make_coco
from posezoo import PosePredictor, get_pretrained_cfg
from posezoo.cli import main
from posezoo.errors import DataError, InputError
from posezoo.evaluation import EvaluationSettings, RunOptions, Share
from posezoo.evaluation.provenance import labels_of
from posezoo.evaluation.tasks import CocoTask, make_task
from posezoo.runs.lock import one_writer
from posezoo.runs.stopping import Stopped
from posezoo.zoo.config import SourceCfg

SCRIPT = ("-m", "evaluation.made")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Record and result file of the plain run."""
    out = tmp_path_factory.mktemp("whole")
    record = evaluate(Brightest(), data, out=out, batch_size=7)
    return record, (out / "results.json").read_bytes()


def _same(whole, out: Path) -> None:
    record, results = whole
    assert (out / "results.json").read_bytes() == results
    found = json.loads((out / "record.json").read_text())
    assert found["statistics"] == record.to_dict()["statistics"]
    assert not (out / "blocks").exists()


def test_record_says_what_was_measured(whole):
    record, results = whole
    assert record.box_source == "det56.4" and record.images == 40
    assert record.settings == {
        "dtype": "float32", "tf32": False, "compile": False, "engine": "torch",
        "input_size": [256, 192], "limit": None, "flip_test": True, "recipe_flip_test": True,
        "geometry": "mmpose1", "bbox_padding": 1.25,
    }  # fmt: skip
    assert set(record.statistics) >= {"AP", "AP50", "AP75", "AP_M", "AP_L", "AR"}
    assert record.results == len(json.loads(results)) > 40
    assert record.run == {"batch_size": 7, "workers": 4, "processes": 1}
    assert set(record.seconds) == {"predict", "wait for images", "merge", "score", "write"}


def test_table_row_has_the_protocol_beside_it(data, whole):
    protocol, names, values, *labels = whole[0].table().splitlines()
    heading = "uniformer_s_256x192.coco, not the published file  coco  bbox=det56.4  flip test  "
    assert protocol.startswith(heading + "float32  ")
    assert labels == whole[0].labels == [
        "not the published file (weights: random, or set by hand)",
        "other data, not comparable: 40 images (published: 5000), 60 people (published: 6352), "
        "122 boxes of det56.4 (published: 104125)",
    ]  # fmt: skip
    assert protocol.endswith(f"40 images, {whole[0].results} results")
    assert names.split()[:2] == ["AP", "AP50"] and "removed" not in names
    assert values.split()[4] == "-"  # nobody is large
    table = evaluate(Brightest(), data, limit=3, flip_test=False, dtype=torch.float64).table()
    for words in ("no flip test (not the recipe)  float64", "not comparable: the first 3 images"):
        assert words in table


def test_network_of_ones_own_needs_no_base_class_but_a_configuration(data, whole):
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Brightest()
            self.pretrained_cfg, self.num_keypoints = self.inner.pretrained_cfg, 17

        def forward(self, images):
            return self.inner(images)

    assert evaluate(Own(), data).statistics == whole[0].statistics
    with pytest.raises(InputError, match="Linear has no pretrained_cfg"):
        evaluate(torch.nn.Linear(1, 1), data)


def test_limit_leaves_out_the_annotations_of_other_images(data):
    task = CocoTask(PosePredictor(Brightest()), data / ANNOTATIONS, data, "gt", limit=3)
    assert [sample.image_id for sample in task.samples] == [1, 2, 3]
    assert set(task.people.image_ids) == set(task.people.all_image_ids) == {1, 2, 3}


def test_result_file_is_one_that_pycocotools_takes(data, whole, tmp_path):
    (tmp_path / "results.json").write_bytes(whole[1])
    truth = COCO(str(data / ANNOTATIONS))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    found = [whole[0].statistics[name] for name in ("AP", "AP50", "AP75")]
    np.testing.assert_allclose(found, evaluation.stats[:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_batch_size_changes_nothing(data, whole, tmp_path, batch_size):
    evaluate(Brightest(), data, out=tmp_path, batch_size=batch_size)
    _same(whole, tmp_path)


@pytest.mark.parametrize("order", [(0, 1), (1, 2, 0)])
def test_job_array_gives_the_result_of_one_run_and_the_last_share_scores(
    data, whole, tmp_path, order
):
    records = [
        evaluate(
            Brightest(), data, out=tmp_path, batch_size=5, share=Share(index=i, count=len(order))
        )
        for i in order
    ]
    assert [r is None for r in records] == [True] * (len(order) - 1) + [False]
    _same(whole, tmp_path)


def test_shares_without_a_block_leave_nothing_behind(data, whole, tmp_path):
    shares = [Share(index=i, count=40) for i in range(40)]
    records = [evaluate(Brightest(), data, out=tmp_path, share=share) for share in shares]
    assert sum(record is not None for record in records) == 1
    assert not (tmp_path / "blocks").exists()
    _same(whole, tmp_path)


def test_two_shares_that_finish_together_merge_once(data, whole, tmp_path):
    shares = [Share(index=i, count=2) for i in (0, 1)]
    assert evaluate(Brightest(), data, out=tmp_path, share=shares[0]) is None
    with one_writer(tmp_path, ".blocks.lock"):  # as if the other process had just begun to merge
        assert evaluate(Brightest(), data, out=tmp_path, share=shares[1]) is None
    (tmp_path / "results.json").mkdir()
    with pytest.raises(DataError, match="cannot write"):  # and died
        evaluate(Brightest(), data, out=tmp_path, share=shares[1])
    (tmp_path / "results.json").rmdir()
    assert evaluate(Brightest(), data, out=tmp_path, share=shares[0])
    _same(whole, tmp_path)


def test_order_of_the_files_changes_nothing_but_the_order_of_the_rows(whole, tmp_path):
    shuffled = make_coco(tmp_path / "data", shuffle=True)
    record = evaluate(Brightest(), shuffled, out=tmp_path / "out", batch_size=7)
    assert record.to_dict()["statistics"] == whole[0].to_dict()["statistics"]
    rows, others = (
        sorted(json.dumps(row, sort_keys=True) for row in json.loads(text))
        for text in ((tmp_path / "out/results.json").read_bytes(), whole[1])
    )
    assert rows == others and len(rows) == whole[0].results > 0


class _Dies(Brightest):
    """Breaks down after so many forwards."""

    def __init__(self, life: int) -> None:
        super().__init__()
        self.life = life

    def forward(self, images):
        self.life -= 1
        if self.life < 0:
            raise KeyboardInterrupt
        return super().forward(images)


def test_run_that_dies_again_and_again_ends_with_the_same_result(data, whole, tmp_path):
    rng = random.Random(0)
    for attempt in range(100):
        model = _Dies(rng.randrange(8, 11))
        try:
            evaluate(model, data, out=tmp_path, batch_size=7, resume=attempt > 0)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "results.json").exists()
    assert attempt >= 2
    _same(whole, tmp_path)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_torchrun_gives_the_result_of_one_process(data, whole, tmp_path, processes):
    output, _ = launch(processes, *SCRIPT, data, tmp_path).communicate(timeout=240)
    assert output.count("scored") == 1 and output.count("shared") == processes - 1, output
    _same(whole, tmp_path)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(data, whole, tmp_path):
    rng = random.Random(1)
    for _ in range(4):
        process = launch(1, *SCRIPT, data, tmp_path)
        time.sleep(rng.uniform(3, 9))
        process.kill()
        process.wait()
    output, _ = launch(1, *SCRIPT, data, tmp_path).communicate(timeout=240)
    assert "scored" in output, output
    _same(whole, tmp_path)


@pytest.fixture(scope="module")
def dead(data, tmp_path_factory) -> Path:
    """What a run has left that died after its first blocks."""
    out: Path = tmp_path_factory.mktemp("dead")
    with pytest.raises(KeyboardInterrupt):
        evaluate(_Dies(10), data, out=out, batch_size=7)
    return out


def test_folder_with_another_run_is_refused(data, dead, tmp_path):
    shutil.copytree(dead, tmp_path, dirs_exist_ok=True)
    with pytest.raises(DataError, match="give --resume"):
        evaluate(Brightest(), data, out=tmp_path)
    with pytest.raises(DataError, match="differs in flip_test"):
        evaluate(Brightest(), data, out=tmp_path, flip_test=False, resume=True)
    with pytest.raises(DataError, match="differs in box_source"):
        evaluate(Brightest(), data, boxes="gt", out=tmp_path, resume=True)


def _rewritten(file: Path) -> None:
    content = json.loads(file.read_text())
    for entry in content["entries"]:
        entry["rows"] = []
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda blocks: (blocks / "00000000.json").write_text('[{"sample": 0, "ro'),
        lambda blocks: (blocks / "00000000.json").write_text(""),
        lambda blocks: (blocks / "00000000.json").write_text("[" * 2000),
        lambda blocks: (blocks / "00000000.json").write_text("[1, 2]"),
        lambda blocks: _rewritten(blocks / "00000000.json"),
        lambda blocks: (blocks / "run.json").write_text('{"mod'),
        lambda blocks: (blocks / "00000016.json").write_bytes(
            (blocks / "00000000.json").read_bytes()
        ),
    ],
    ids=["cut", "empty", "deep", "other", "without rows", "run.json", "another block"],
)  # fmt: skip
def test_damaged_block_is_done_again(data, whole, dead, tmp_path, damage):
    shutil.copytree(dead, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "blocks")
    assert evaluate(Brightest(), data, out=tmp_path, batch_size=7, resume=True)
    _same(whole, tmp_path)


def test_folder_has_one_writer_and_a_dead_one_does_not_count(data, whole, tmp_path):
    share = Share(index=0, count=2)
    with one_writer(tmp_path / "blocks"):
        for options in ({"resume": True}, {"share": share}):
            with pytest.raises(DataError, match=f"written by another run .process {os.getpid()}"):
                evaluate(Brightest(), data, out=tmp_path, **options)
    with one_writer(tmp_path / "blocks", shared=True):
        with pytest.raises(DataError, match="another run"):
            evaluate(Brightest(), data, out=tmp_path)
        assert evaluate(Brightest(), data, out=tmp_path, share=share) is None
    (tmp_path / "blocks/writer.lock").write_text("process 1 on elsewhere")
    assert evaluate(Brightest(), data, out=tmp_path, resume=True, batch_size=7)
    _same(whole, tmp_path)


def test_run_that_is_asked_to_stop_keeps_its_blocks_and_says_how_to_go_on(data, whole, tmp_path):
    asked = iter([False] * 20)
    with pytest.raises(Stopped, match="after 16 of 40 images, which are in .*--resume goes on"):
        evaluate(Brightest(), data, out=tmp_path, stop=lambda: next(asked, True))
    assert evaluate(Brightest(), data, out=tmp_path, resume=True)
    _same(whole, tmp_path)
    with pytest.raises(Stopped, match="nothing is kept without --out"):
        evaluate(Brightest(), data, stop=lambda: True)


def test_signal_stops_the_command_cleanly(data, tmp_path):
    command = ["eval", "hrnet_xs_128x96.rendered", "--data", str(data), "--out", str(tmp_path),
               "--device", "cpu", "--batch-size", "1"]  # fmt: skip
    with sent_when(signal.SIGINT, (tmp_path / "blocks" / "run.json").is_file):
        result = CliRunner().invoke(main, command)
    assert result.exit_code == 130 and "--resume goes on" in result.output, result.output


def test_share_without_a_folder_wrong_share_and_share_under_torchrun(data, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="give --out"):
        evaluate(Brightest(), data, share=Share(index=0, count=2))
    with pytest.raises(InputError, match="share 2/2: the index runs from 0 to 1"):
        Share(index=2, count=2)
    with pytest.raises(InputError, match="at least one share"):
        Share(index=0, count=0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE=2 are .* torchrun did not start this process"):
        evaluate(Brightest(), data, out=tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(InputError, match="under torchrun, which hands out the shares itself"):
        evaluate(Brightest(), data, out=tmp_path, share=Share(index=0, count=2))


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (RunOptions, {"batch_size": 0}, "batch_size is 0; valid: an integer from 1"),
        (RunOptions, {"workers": 0}, "workers is 0; valid: an integer from 1"),
        (EvaluationSettings, {"limit": 0}, "limit is 0; valid: an integer from 1"),
        (EvaluationSettings, {"dtype": torch.int8}, "dtype is torch.int8; valid: a floating-point"),
    ],
)
def test_options_out_of_range_are_refused(record, change, message):
    with pytest.raises(InputError, match=message):
        record(**change)


def test_set_without_a_single_readable_image_is_refused(tmp_path):
    data = make_coco(tmp_path, images=2)
    for path in (data / "val2017").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 images could be used, first .*1.jpg"):
        evaluate(Brightest(), data)


def test_what_is_wrong_is_found_before_anything_runs(tmp_path):
    data = make_coco(tmp_path / "data", images=3)
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match="cannot write .*file/blocks/writer.lock: .*; write elsewhere"
    ):
        evaluate(_Dies(0), data, out=tmp_path / "file")
    rows = json.loads((data / DETECTIONS).read_text())
    for bbox in ([5.0, 5.0, 0.0, 0.0], [1e39, 5.0, 10.0, 10.0]):
        rows[2]["bbox"] = bbox
        (data / DETECTIONS).write_text(json.dumps(rows))
        with pytest.raises(DataError, match="AP_H_56_person.json: box 2 is .* leave them out"):
            evaluate(_Dies(0), data)
    (data / DETECTIONS).unlink()
    with pytest.raises(DataError, match=DETECTIONS):
        evaluate(_Dies(0), data)
    with pytest.raises(DataError, match="person_keypoints_val2017.json"):
        evaluate(_Dies(0), tmp_path)


def test_tf32_holds_for_the_run_only(data):
    class Looks(Brightest):
        def forward(self, images):
            seen.add(tuple(backend.allow_tf32 for backend in backends))
            return super().forward(images)

    backends, seen = (torch.backends.cuda.matmul, torch.backends.cudnn), set()
    before = [backend.allow_tf32 for backend in backends]
    for tf32 in (True, False):
        seen.clear()
        record = evaluate(Looks(), data, limit=2, tf32=tf32)
        assert seen == {(tf32, tf32)} and record.settings["tf32"] is tf32
        assert [backend.allow_tf32 for backend in backends] == before


@pytest.mark.parametrize("images", [20, pytest.param(5000, marks=pytest.mark.slow)])
def test_bad_images_are_counted_named_and_change_nobody_else(tmp_path, images):
    data = make_coco(tmp_path / "data", images=images)
    assert not evaluate(Brightest(), data, out=tmp_path / "whole").bad
    folder = data / "val2017"
    (folder / "000000000003.jpg").write_bytes(b"broken")
    (folder / "000000000005.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(folder / "000000000007.jpg")
    record = evaluate(Brightest(), data, out=tmp_path / "bad")
    reasons = {Path(p).name: reason for p, reason in record.bad.items()}
    assert set(reasons) == {f"00000000000{i}.jpg" for i in (3, 5, 7)}
    assert "another image" in reasons["000000000007.jpg"]
    assert record.table().endswith("images that could not be used and count as empty: 3")
    before, after = (
        [r for r in json.loads((tmp_path / n / "results.json").read_text())
         if r["image_id"] not in (3, 5, 7)]
        for n in ("whole", "bad")
    )  # fmt: skip
    assert before == after


def test_images_of_other_kinds_are_used(tmp_path):
    data = make_coco(tmp_path / "data", images=5)
    files = sorted((data / "val2017").iterdir())
    images = [Image.open(file).convert("RGB") for file in files]
    images[0].convert("CMYK").save(files[0])
    images[1].convert("L").save(files[1])
    images[2].save(files[2], "PNG")
    grey = np.asarray(images[3].convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(files[3], "PNG")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    images[4].save(files[4], exif=exif)
    record = evaluate(Brightest(), data)
    assert not record.bad and record.images == 5


def test_large_ids_are_kept(tmp_path):
    data = make_coco(tmp_path / "data", images=4)
    plain = evaluate(Brightest(), data).statistics
    truth, boxes = (json.loads((data / name).read_text()) for name in (ANNOTATIONS, DETECTIONS))
    for row in truth["images"]:
        row["id"] += 2**40
    for row in truth["annotations"] + boxes:
        row["image_id"] += 2**40
    (data / ANNOTATIONS).write_text(json.dumps(truth))
    (data / DETECTIONS).write_text(json.dumps(boxes))
    assert evaluate(Brightest(), data, out=tmp_path / "out").statistics == plain
    rows = json.loads((tmp_path / "out/results.json").read_text())
    assert {row["image_id"] for row in rows} == {2**40 + i for i in range(1, 5)}


def test_nan_predictions_never_become_a_number(data):
    class Nan(Brightest):
        def forward(self, images):
            return super().forward(images) * float("nan")

    with pytest.raises(DataError, match="NaN"):
        evaluate(Nan(), data, limit=2)


def test_part_of_the_images_and_the_boxes_of_all(data, tmp_path):
    (tmp_path / "val2017").mkdir()
    for i in (2, 5):
        name = f"val2017/{i:012d}.jpg"
        (tmp_path / name).write_bytes((data / name).read_bytes())
    for name in (ANNOTATIONS, DETECTIONS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((data / name).read_bytes())
    with pytest.raises(DataError, match="38 of 40 images are missing, .*--images-subset"):
        evaluate(Brightest(), tmp_path)
    record = evaluate(Brightest(), tmp_path, images_subset=True)
    part = "partial, not comparable: the images that were there, 2 images (published: 5000)"
    assert record.images == 2 and part in record.table()
    truth = json.loads((tmp_path / ANNOTATIONS).read_text())
    truth["images"] = [row for row in truth["images"] if row["id"] in (2, 5)]
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] in (2, 5)]
    (tmp_path / ANNOTATIONS).write_text(json.dumps(truth))
    assert evaluate(Brightest(), tmp_path).statistics == record.statistics


def test_published_row_needs_the_pinned_weights_and_the_whole_set():
    cfg = get_pretrained_cfg("uniformer_s_256x192.coco")
    counts = {"images": 5000, "people": 6352, "boxes of det56.4": 104125}
    pinned = {"origin_sha256": "0" * 64}
    cfg = dataclasses.replace(cfg, source=SourceCfg(original_sha256="0" * 8))
    full, part = {"limit": None}, {"limit": 3}
    assert labels_of(cfg, pinned, counts, full) == []
    assert "not the published file" in labels_of(cfg, {"origin_sha256": "1"}, counts, full)[0]
    assert labels_of(cfg, pinned, counts, part) == [
        "partial, not comparable: the first 3 images only"
    ]
    assert labels_of(cfg, pinned, counts | {"people": 4}, full) == [
        "other data, not comparable: 4 people (published: 6352)"
    ]
    own = dataclasses.replace(cfg, tag="")
    assert labels_of(own, pinned, counts, full) == [
        "weights of your own: there is no published row"
    ]


def test_other_number_of_the_category_changes_nothing(data, whole, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    for name in (ANNOTATIONS, DETECTIONS):
        text = (tmp_path / "data" / name).read_text()
        text = text.replace('"category_id": 1', '"category_id": 7')
        (tmp_path / "data" / name).write_text(
            text.replace('[{"id": 1, "name"', '[{"id": 7, "name"')
        )
    record = evaluate(Brightest(), tmp_path / "data", out=tmp_path / "out")
    assert record.statistics == whole[0].statistics
    assert json.loads((tmp_path / "out/results.json").read_text())[0]["category_id"] == 7


def test_random_weights_are_not_headed_by_the_name_of_published_ones(tmp_path):
    posezoo.save_pretrained(posezoo.create_model("hrnet_xs_128x96"), tmp_path / "model")
    data = make_coco(tmp_path / "data", images=2)
    record = evaluate(posezoo.create_model(f"local-dir:{tmp_path / 'model'}"), data)
    table = record.table()
    assert table.startswith("hrnet_xs_128x96.rendered, not the published file  coco")
    assert "not the published file (weights: model.safetensors)" in table
    assert len(record.weights["origin_sha256"]) == 64
    published = evaluate(posezoo.create_model("hrnet_xs_128x96", pretrained=True), data)
    assert [label.split(":")[0] for label in published.labels] == ["other data, not comparable"]


def test_own_keypoints_need_no_detections(tmp_path):
    data = make_coco(tmp_path, images=2)
    (data / DETECTIONS).unlink()
    model = Brightest()
    own = dataclasses.replace(model.pretrained_cfg.skeleton, name="mine")
    model.pretrained_cfg = dataclasses.replace(
        model.pretrained_cfg, dataset="mine", own_skeleton=own, tag=""
    )
    record = evaluate(model, data)
    assert record.box_source == "gt"
    assert record.labels == ["weights of your own: there is no published row"]


def test_areas_and_boxes_that_decide_little_are_counted_in_the_table(tmp_path):
    data = make_coco(tmp_path, images=2)
    truth = json.loads((data / ANNOTATIONS).read_text())
    first, second = truth["annotations"][:2]
    del first["area"]
    second["bbox"][2:] = [0.4, 0.4]
    (data / ANNOTATIONS).write_text(json.dumps(truth))
    record = evaluate(Brightest(), data, boxes="gt")
    assert record.table().splitlines()[-2:] == list(record.notes) == [
        "people without an area, for which that of their box counts: 1",
        "boxes of less than a pixel: 1",
    ]  # fmt: skip


def test_float32_runs_the_fast_copy_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = posezoo.create_model("hrnet_xs_128x96")
    data, settings = make_coco(tmp_path, images=2), EvaluationSettings()
    task = make_task(model, model.pretrained_cfg, data, settings, RunOptions(), torch.device("cpu"))
    for network, is_plain in ((model, True), (task.model, False)):
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert bool(norms) == is_plain
