"""`posezoo predict`: nothing of the user's is lost, bad input costs itself, cheap checks first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from standins.signals import sent_when

import posezoo
from posezoo import PosePredictor
from posezoo.cli import main
from posezoo.cli.networks import build_predictor
from posezoo.errors import InputError
from posezoo.runs.stopping import Stop

MODEL = "hrnet_xs_128x96"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photos" / "street.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _predict(*arguments, model=MODEL):
    return CliRunner().invoke(main, ["predict", "--model", model, *map(str, arguments)])


@pytest.mark.parametrize("option", ["--out", "--draw"])
@pytest.mark.parametrize("spelling", ["same", "dots", "hard link", "symlink"])
def test_a_photo_is_never_written_over(photo, option, spelling, tmp_path):
    before = photo.read_bytes()
    target = photo
    if spelling == "dots":
        target = photo.parent / ".." / "photos" / "street.png"
    elif spelling != "same":
        target = tmp_path / "link.png"
        os.link(photo, target) if spelling == "hard link" else target.symlink_to(photo)
    form = ["--format", "csv"] if option == "--out" else []
    result = _predict(photo, "--whole-image", option, target, *form)
    assert result.exit_code == 2 and "would be written over the input" in result.output
    assert photo.read_bytes() == before


def test_folder_of_drawings_that_holds_the_photo_is_refused(photo):
    before = photo.read_bytes()
    result = _predict(photo, "--whole-image", "--draw", photo.parent)
    assert result.exit_code == 2 and "written over" in result.output
    assert photo.read_bytes() == before


def test_drawing_has_the_format_of_its_name(photo, tmp_path):
    assert _predict(photo, "--whole-image", "--draw", tmp_path / "over.jpg").exit_code == 0
    with Image.open(tmp_path / "over.jpg") as drawn:
        assert drawn.format == "JPEG" and drawn.size == (50, 60)
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    result = _predict(photo, other, "--whole-image", "--draw", tmp_path / "one.jpg")
    assert result.exit_code == 2 and "one picture for 2 photos" in result.output
    result = _predict(photo, "--whole-image", "--draw", tmp_path / "one.webp")
    assert result.exit_code == 2 and "one.webp is neither PNG nor JPEG" in result.output
    assert not (tmp_path / "one.webp").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--boxes", "b.json", "--whole-image"], "exclude each other"),
        (["--detector", "yolo", "--whole-image"], "valid: auto, fasterrcnn"),
        (["--box-threshold", "nan"], "--box-threshold is nan"),
        (["--out", ".", "--format", "csv"], "--out is the folder"),
    ],
)
def test_contradictions_are_told_before_weights_are_fetched(photo, arguments, words, hub):
    result = _predict(photo, *arguments, model="uniformer_s_256x192")
    assert result.exit_code == 2 and words in result.output
    assert hub.log == []


def test_wrong_names_are_told_before_weights_are_fetched(photo, hub):
    for path, model, words in (
        (photo, "uniformer_small", "finds no poses"),
        (photo, "uniformer_s", "uniformer_s_256x192"),
        (photo.with_name("gone.png"), "uniformer_s_256x192", "there is no file"),
    ):
        result = _predict(path, model=model)
        assert result.exit_code == 2 and words in result.output, result.output
    assert hub.log == []


def test_one_bad_photo_costs_itself(photo, tmp_path):
    boxes = {
        "street.png": [[0, 0, 40, 50]],
        "thin.png": [[5, 5, 5.4, 5.3]],
        "outside.png": [[500, 500, 600, 600]],
        "broken.png": [[1, 1, 9, 9]],
    }
    for name in ("thin.png", "outside.png", "unlisted.png"):
        (photo.parent / name).write_bytes(photo.read_bytes())
    photo.with_name("broken.png").write_bytes(b"not a picture")
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    out = tmp_path / "out.jsonl"
    names = ("outside", "thin", "gone", "broken", "unlisted", "street")
    photos = [photo.with_name(f"{name}.png") for name in names]
    # this model's crops need boxes of more than a pixel
    result = _predict(
        *photos, "--boxes", tmp_path / "boxes.json", "--out", out, model="hrnet_xs_192x144"
    )
    assert result.exit_code == 1 and "1 photo, 1 person, 5 failed" in result.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [("error" in row) for row in rows] == [True] * 5 + [False]
    for words in ("outside.png: bbox 0", "thin.png: box 0", "broken.png"):
        assert words in result.output
    for words in ("has no entry for", "unlisted.png (looked for"):
        assert words in rows[4]["error"]


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        (lambda image: None, "returned a NoneType"),
        (lambda image: np.zeros((1, 5)), "returned a ndarray"),
        (lambda image: 1 / 0, "the detector failed: ZeroDivisionError"),
    ],
)
def test_detectors_that_fail_are_named(photo, detector, words):
    predictor = PosePredictor(posezoo.create_model(MODEL), detector=detector)
    with pytest.raises(InputError, match=words):
        predictor(photo)
    outcome = list(predictor.predict_each([(photo, None, None), (photo, [[0, 0, 9, 9]], None)]))
    assert isinstance(outcome[0], InputError) and len(outcome[1]) == 1


@pytest.fixture
def ctrl_c():
    """What Ctrl-C does in a terminal, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_first_signal_asks_and_the_second_ends(ctrl_c):
    with Stop():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and stop.status == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stopped_run_keeps_what_is_finished(photo, tmp_path):
    photos = []
    for i in range(300):
        photos.append(photo.with_name(f"{i:03d}.png"))
        os.link(photo, photos[-1])
    out, drawn = tmp_path / "out.json", tmp_path / "drawn"
    with sent_when(signal.SIGTERM, lambda: len(list(drawn.glob("*.png"))) > 2):
        result = _predict(*photos, "--whole-image", "--out", out, "--draw", drawn)
    assert result.exit_code == 143, result.output
    assert "the same command with --resume goes on" in result.output
    rows = json.loads(out.read_text())
    assert 2 < len(rows) < 300 and len(list(drawn.glob("*.png"))) == len(rows)


def test_a_checkpoint_is_never_converted_onto_itself(tmp_path):
    folder = posezoo.save_pretrained(posezoo.create_model(MODEL), tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    command = ["convert", str(folder / "model.safetensors"), "--model", MODEL, "--out", str(folder)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "would be written over the input" in result.output
    command = ["export", MODEL, "--checkpoint", str(folder / "model.safetensors")]
    result = CliRunner().invoke(main, [*command, "--out", str(folder / "model.safetensors")])
    assert result.exit_code == 2
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_weights_of_a_file_run_in_the_fast_copy_as_those_of_a_name_do(tmp_path, dtype):
    folder = posezoo.save_pretrained(posezoo.create_model(MODEL, pretrained=True), tmp_path)
    options = {
        "device": "cpu", "dtype": dtype, "compile": False, "engine": None, "batch_size": 4,
        "flip_test": None,
    }  # fmt: skip
    named = build_predictor(MODEL, None, **options)
    loaded = build_predictor(MODEL, folder / "model.safetensors", **options)
    kinds = [[type(module) for module in one.model.modules()] for one in (named, loaded)]
    assert kinds[0] == kinds[1] and loaded.dtype == named.dtype
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    points = [one(image, [[0, 0, 40, 50]]).keypoints for one in (named, loaded)]
    assert np.array_equal(*points)


def test_terminal_is_told_at_once_that_the_model_is_loading(tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = ["predict", "--model", MODEL, str(tmp_path / "missing.jpg")]
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen([sys.executable, "-m", "posezoo", *command], stderr=theirs)
        os.close(theirs)
        first = terminal.read(200)
        process.kill()
        process.wait()
    assert first.startswith(b"loading hrnet_xs_128x96")
