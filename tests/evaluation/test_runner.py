"""Shares, checkpoints, merging: the same numbers in any number of pieces."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.made import Brightest, make_coco
from posezoo.errors import DataError, InputError
from posezoo.evaluation import runner
from posezoo.evaluation.entry import evaluate_model
from posezoo.evaluation.runner import Share

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Record and result file of the plain run."""
    out = tmp_path_factory.mktemp("whole")
    record = evaluate_model(Brightest(), data, out=out, batch_size=7, device="cpu")
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
    assert record.settings["flip_test"] and record.settings["geometry"] == "mmpose1"
    assert set(record.statistics) >= {"AP", "AP50", "AP75", "AP_M", "AP_L", "AR"}
    assert record.results == len(json.loads(results)) > 40
    assert record.settings["tf32"] is False and record.settings["dtype"] == "float32"
    assert record.run == {"batch_size": 7, "workers": 4, "processes": 1}
    assert set(record.seconds) == {"predict", "wait for images", "merge", "score", "write"}


def test_result_file_is_one_that_pycocotools_takes(data, whole, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (tmp_path / "results.json").write_bytes(whole[1])
    truth = COCO(str(data / "annotations/person_keypoints_val2017.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    found = whole[0].statistics
    for name, value in zip(("AP", "AP50", "AP75"), evaluation.stats[:3]):
        assert found[name] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_batch_size_changes_nothing(data, whole, tmp_path, batch_size):
    evaluate_model(Brightest(), data, out=tmp_path, batch_size=batch_size, device="cpu")
    _same(whole, tmp_path)


@pytest.mark.parametrize("order", [(1, 0), (0, 1), (1, 2, 0), (0, 2, 1)])
def test_job_array_gives_the_result_of_one_run_and_the_last_share_scores(
    data, whole, tmp_path, order
):
    records = [
        evaluate_model(
            Brightest(), data, out=tmp_path, batch_size=5, device="cpu",
            share=Share(index=i, count=len(order)),
        )
        for i in order
    ]  # fmt: skip
    assert [r is None for r in records] == [True] * (len(order) - 1) + [False]
    _same(whole, tmp_path)


def test_two_shares_that_finish_together_merge_once(data, whole, tmp_path):
    for i in (0, 1):
        if i:  # as if the other process had just begun to merge
            (tmp_path / "blocks/merging").touch()
        share = Share(index=i, count=2)
        assert evaluate_model(Brightest(), data, out=tmp_path, device="cpu", share=share) is None
    assert evaluate_model(Brightest(), data, out=tmp_path, device="cpu", resume=True)
    _same(whole, tmp_path)


def test_order_of_the_files_changes_nothing_but_the_order_of_the_rows(whole, tmp_path):
    shuffled = make_coco(tmp_path / "data", shuffle=True)
    out = tmp_path / "out"
    record = evaluate_model(Brightest(), shuffled, out=out, batch_size=7, device="cpu")
    assert record.to_dict()["statistics"] == whole[0].to_dict()["statistics"]
    rows, others = (
        sorted(json.dumps(row, sort_keys=True) for row in json.loads(text))
        for text in ((out / "results.json").read_bytes(), whole[1])
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
    chance = random.Random(0)
    for attempt in range(100):
        try:
            evaluate_model(
                _Dies(chance.randrange(8, 11)), data, out=tmp_path, batch_size=7, device="cpu",
                resume=attempt > 0,
            )  # fmt: skip
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "results.json").exists()
    assert attempt >= 2
    _same(whole, tmp_path)


def _launch(processes: int, data: Path, out: Path) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    script = ["-m", "evaluation.made", str(data), str(out)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), *script],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TESTS,
    )  # fmt: skip


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_torchrun_gives_the_result_of_one_process(data, whole, tmp_path, processes):
    output, _ = _launch(processes, data, tmp_path).communicate(timeout=240)
    assert output.count("scored") == 1 and output.count("shared") == processes - 1, output
    _same(whole, tmp_path)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(data, whole, tmp_path):
    chance = random.Random(1)
    for _ in range(4):
        process = _launch(1, data, tmp_path)
        time.sleep(chance.uniform(3, 9))
        process.kill()
        process.wait()
    output, _ = _launch(1, data, tmp_path).communicate(timeout=240)
    assert "scored" in output, output
    _same(whole, tmp_path)


# ------------------------------------------------------------------------------- bad input


def test_folder_with_another_run_is_refused(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(_Dies(4), data, out=tmp_path, batch_size=7, device="cpu")
    with pytest.raises(DataError, match="give --resume"):
        evaluate_model(Brightest(), data, out=tmp_path, batch_size=7, device="cpu")
    with pytest.raises(DataError, match="differs in flip_test"):
        evaluate_model(
            Brightest(),
            data,
            out=tmp_path,
            batch_size=7,
            device="cpu",
            flip_test=False,
            resume=True,
        )
    with pytest.raises(DataError, match="differs in box_source"):
        evaluate_model(Brightest(), data, boxes="gt", out=tmp_path, device="cpu", resume=True)


def test_share_without_a_folder_and_wrong_share(data, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="give --out"):
        evaluate_model(Brightest(), data, device="cpu", share=Share(index=0, count=2))
    with pytest.raises(InputError, match="share 2/2: the index runs from 0 to 1"):
        Share(index=2, count=2)
    with pytest.raises(InputError, match="at least one share"):
        Share(index=0, count=0)
    monkeypatch.setattr(runner, "_torchrun_share", lambda: Share(index=0, count=2))
    with pytest.raises(InputError, match="under torchrun, which hands out the shares itself"):
        evaluate_model(Brightest(), data, device="cpu", out=tmp_path, share=Share(index=0, count=2))


@pytest.mark.parametrize("option", ["batch_size", "workers", "limit"])
def test_options_out_of_range_are_refused(data, option):
    with pytest.raises(InputError, match=f"{option} is 0; valid: an integer from 1"):
        evaluate_model(Brightest(), data, device="cpu", **{option: 0})


def test_set_without_a_single_readable_image_is_refused(tmp_path):
    data = make_coco(tmp_path, images=2)
    for path in (data / "val2017").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 images could be used, first .*1.jpg"):
        evaluate_model(Brightest(), data, device="cpu")


def test_folder_that_cannot_be_written_is_named_before_anything_runs(data, tmp_path):
    (tmp_path / "file").touch()

    class Untouched(Brightest):
        def forward(self, images):
            raise AssertionError("nothing should run")

    with pytest.raises(DataError, match="cannot write .*file/blocks/run.json: .* another --out"):
        evaluate_model(Untouched(), data, device="cpu", out=tmp_path / "file")


def test_damaged_block_is_named(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(_Dies(10), data, device="cpu", out=tmp_path)
    (tmp_path / "blocks/00000000.json").write_text('[{"sample": 0, "ro')
    with pytest.raises(DataError, match="00000000.json is not complete JSON"):
        evaluate_model(Brightest(), data, device="cpu", out=tmp_path, resume=True)


def test_tf32_holds_for_the_run_only(data):
    class Looks(Brightest):
        def forward(self, images):
            seen.add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return super().forward(images)

    places, seen = (torch.backends.cuda.matmul, torch.backends.cudnn), set()
    before = [place.allow_tf32 for place in places]
    for tf32 in (True, False):
        seen.clear()
        record = evaluate_model(Looks(), data, device="cpu", limit=2, tf32=tf32)
        assert seen == {(tf32, tf32)} and record.settings["tf32"] is tf32
        assert [place.allow_tf32 for place in places] == before


def test_box_too_small_for_any_crop_is_refused_before_anything_runs(tmp_path):
    data = make_coco(tmp_path / "data", images=3)
    file = data / "COCO_val2017_detections_AP_H_56_person.json"
    rows = json.loads(file.read_text())
    for bbox in ([5.0, 5.0, 0.0, 0.0], [1e39, 5.0, 10.0, 10.0]):
        rows[2]["bbox"] = bbox
        file.write_text(json.dumps(rows))
        with pytest.raises(DataError, match="AP_H_56_person.json: box 2 is .* leave them out"):
            evaluate_model(Brightest(), data, device="cpu")


@pytest.mark.parametrize("images", [20, pytest.param(5000, marks=pytest.mark.slow)])
def test_bad_images_are_counted_named_and_change_nobody_else(tmp_path, images):
    data = make_coco(tmp_path / "data", images=images)
    whole = evaluate_model(Brightest(), data, device="cpu", out=tmp_path / "whole")
    assert not whole.bad
    folder = data / "val2017"
    (folder / "000000000003.jpg").write_bytes(b"broken")
    (folder / "000000000005.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(folder / "000000000007.jpg")
    record = evaluate_model(Brightest(), data, device="cpu", out=tmp_path / "bad")
    reasons = {Path(p).name: reason for p, reason in record.bad.items()}
    assert set(reasons) == {f"00000000000{i}.jpg" for i in (3, 5, 7)}
    assert "another image" in reasons["000000000007.jpg"]
    before, after = (
        [r for r in json.loads((tmp_path / n / "results.json").read_text())
         if r["image_id"] not in (3, 5, 7)]
        for n in ("whole", "bad")
    )  # fmt: skip
    assert before == after


@pytest.mark.parametrize("kind", ["CMYK", "L", "16 bit", "PNG", "upside down"])
def test_images_of_other_kinds_are_used(tmp_path, kind):
    data = make_coco(tmp_path / "data", images=2)
    path = data / "val2017/000000000001.jpg"
    image = Image.open(path).convert("RGB")
    if kind == "16 bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(path, "PNG")
    elif kind == "upside down":
        exif = Image.Exif()
        exif[0x0112] = 3
        image.save(path, exif=exif)
    else:
        image.convert("RGB" if kind == "PNG" else kind).save(path, "PNG" if kind == "PNG" else None)
    record = evaluate_model(Brightest(), data, device="cpu")
    assert not record.bad and record.images == 2


def test_large_and_shuffled_ids_are_kept(tmp_path):
    data = make_coco(tmp_path / "data", images=4)
    plain = evaluate_model(Brightest(), data, device="cpu").statistics
    truth_file = data / "annotations/person_keypoints_val2017.json"
    boxes_file = data / "COCO_val2017_detections_AP_H_56_person.json"
    truth, boxes = json.loads(truth_file.read_text()), json.loads(boxes_file.read_text())
    for row in truth["images"]:
        row["id"] += 2**40
    for row in truth["annotations"] + boxes:
        row["image_id"] += 2**40
    truth_file.write_text(json.dumps(truth))
    boxes_file.write_text(json.dumps(boxes))
    record = evaluate_model(Brightest(), data, device="cpu", out=tmp_path / "out")
    assert record.statistics == plain
    rows = json.loads((tmp_path / "out/results.json").read_text())
    assert {row["image_id"] for row in rows} == {2**40 + i for i in range(1, 5)}


def test_nan_predictions_never_become_a_number(data):
    class Nan(Brightest):
        def forward(self, images):
            return super().forward(images) * float("nan")

    with pytest.raises(DataError, match="NaN"):
        evaluate_model(Nan(), data, device="cpu")


def test_limit_keeps_the_annotations_of_its_images_only(data):
    record = evaluate_model(Brightest(), data, limit=10, device="cpu")
    assert record.images == 10 and record.settings["limit"] == 10


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="person_keypoints_val2017.json"):
        evaluate_model(Brightest(), tmp_path, device="cpu")
    (tmp_path / "person_keypoints_val2017.json").write_text("{}")
    with pytest.raises(DataError, match="COCO_val2017_detections_AP_H_56_person.json"):
        evaluate_model(Brightest(), tmp_path, device="cpu")


# ------------------------------------------------------------------------------- ImageNet


class _Hue(torch.nn.Module):
    """Says the class whose number is the mean red value."""

    def __init__(self) -> None:
        super().__init__()
        import posezoo

        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = posezoo.get_pretrained_cfg("uniformer_small")

    def forward(self, images):
        red = (images[:, 0].mean((1, 2)) * 0.229 + 0.485) * 255
        return -(red[:, None] - torch.arange(1000)).abs()


@pytest.fixture
def imagenet(tmp_path) -> Path:
    """The flat layout: 30 images whose red value is their class, two of them wrong."""
    for i in range(1, 31):
        colour = (i * 7 + (3 if i in (5, 9) else 0),) * 3
        Image.new("RGB", (40, 50), colour).save(
            tmp_path / f"ILSVRC2012_val_{i:08d}.JPEG", quality=100, subsampling=0
        )
    from timm.data import ImageNetInfo

    names = ImageNetInfo("imagenet-1k").label_names()
    order = np.random.default_rng(0).permutation(1000)
    (tmp_path / "synsets.txt").write_text("\n".join(names[k] for k in order) + "\n")
    place = {int(k): i + 1 for i, k in enumerate(order)}
    lines = [str(place[i * 7]) for i in range(1, 31)]
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_imagenet_accuracy_in_shares_and_with_a_bad_image(imagenet, tmp_path_factory):
    record = evaluate_model(_Hue(), imagenet, device="cpu", batch_size=8)
    assert record.statistics["top1"] == pytest.approx(28 / 30)
    out = tmp_path_factory.mktemp("shares")
    for i in (1, 0):
        last = evaluate_model(
            _Hue(), imagenet, device="cpu", out=out, share=Share(index=i, count=2)
        )
    assert last.statistics == record.statistics
    (imagenet / "ILSVRC2012_val_00000005.JPEG").write_bytes(b"no")
    record = evaluate_model(_Hue(), imagenet, device="cpu")
    assert len(record.bad) == 1 and record.statistics["top1"] == pytest.approx(28 / 29)


def test_tokenizers_have_no_evaluation(monkeypatch, data):
    import dataclasses

    model = Brightest()
    model.pretrained_cfg = dataclasses.replace(model.pretrained_cfg, task="tokenizer")
    with pytest.raises(InputError, match="only poses and classes"):
        evaluate_model(model, data, device="cpu")
