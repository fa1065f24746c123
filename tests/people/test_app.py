"""The page: what it does, and that a browser shows it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from people import SIZE, make_film, picture
from posezoo.app import PosePage, serving
from posezoo.cli import main
from posezoo.errors import InputError
from posezoo.results import PoseResult

MODELS = ["hrnet_xs_128x96", "tokenpose_xs_128x96"]
WHOLE = "the whole image is one person"


def test_a_photo_gives_picture_table_and_file(tmp_path):
    page = PosePage(MODELS, tmp_path)
    drawn, words, table, tokens, file = page.photo(picture(0), MODELS[0], WHOLE, 0.0)
    assert drawn.size == SIZE[::-1] and words.startswith("1 person in ")
    assert len(table) == 17 and table[0][:2] == [1, "nose"] and tokens is None
    result = PoseResult.from_dict(json.loads(Path(file).read_text()))
    assert len(result) == 1 and Path(file).is_relative_to(tmp_path)
    assert page.photo(picture(0), MODELS[0], WHOLE, 2.0)[2] == []


def test_tokens_that_a_mask_leaves_out_are_dark(tmp_path):
    page = PosePage(MODELS, tmp_path)
    page._predictor(MODELS[1], False).model.set_mask("uniform", 0.5)
    light = np.full((*SIZE, 3), 200, np.uint8)
    tokens = np.asarray(page.photo(light, MODELS[1], WHOLE, 0.3)[3])
    crop, masked = np.split(tokens, 2, axis=1)
    inside = (crop == 200).all(axis=2)
    assert 0.4 < (masked[inside] == 200).mean() < 0.6 and masked[inside].min() == 50


def test_a_film_gives_a_film_and_lines(tmp_path):
    page = PosePage(MODELS, tmp_path / "out")
    (tmp_path / "out").mkdir()
    film, words, lines = page.film(str(make_film(tmp_path / "clip.mp4", 12)), MODELS[0], WHOLE, 0.3)
    rows = [json.loads(line) for line in Path(lines).read_text().splitlines()]
    assert len(rows) == 12 and rows[0]["file"] == "clip.mp4" and "12 frames, 12 people" in words
    assert Path(film).stat().st_size > 500 and Path(film).is_relative_to(tmp_path / "out")
    slow = PosePage(MODELS, tmp_path / "out", seconds=0)
    words = slow.film(str(tmp_path / "clip.mp4"), MODELS[0], WHOLE, 0.3)[1]
    assert words.startswith("1 frame,") and "stopped after 0 s" in words


def test_what_cannot_be_used_is_said(tmp_path):
    page = PosePage(MODELS, tmp_path)
    (tmp_path / "bad.mp4").write_text("no film")
    for call, words in (
        (lambda: page.photo(None, MODELS[0], WHOLE, 0.3), "no photo yet"),
        (lambda: page.photo(picture(0), "other", WHOLE, 0.3), "model is 'other'"),
        (lambda: page.film(None, MODELS[0], WHOLE, 0.3), "no film yet"),
        (lambda: page.film(str(tmp_path / "bad.mp4"), MODELS[0], WHOLE, 0.3), "it is no video"),
    ):
        with pytest.raises(InputError, match=words) as told:
            call()
        assert str(tmp_path) not in str(told.value)  # where uploads are is nobody's business


def test_command_refuses_a_wrong_name_before_it_serves():
    from click.testing import CliRunner

    told = CliRunner().invoke(main, ["app", "--model", "hrnet_xs_128x97"])
    assert told.exit_code == 2 and "hrnet_xs_128x96" in told.output


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page_and_removes_everything(tmp_path, number):
    pytest.importorskip("gradio")
    port = _free_port()
    page = subprocess.Popen(
        [sys.executable, "-m", "posezoo", "app", "--model", MODELS[0], "--port", str(port)],
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            if _answers(port):
                break
            time.sleep(0.1)
        assert list(tmp_path.glob("posezoo-app-*"))
        page.send_signal(number)
        page.wait(timeout=30)
    finally:
        page.kill()
    assert not list(tmp_path.glob("posezoo-app-*"))


@pytest.mark.slow
def test_a_browser_shows_the_page_and_everything_is_removed(tmp_path):
    pytest.importorskip("gradio")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    port = _free_port()
    with serving(MODELS, port=port):
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir()
        with pytest.raises(InputError, match="cannot be served"), serving(MODELS, port=port):
            pass
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync",
             "--no-first-run", "--disable-background-networking", "--window-size=1280,1000",
             f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}",
             "--virtual-time-budget=20000", f"http://127.0.0.1:{port}"],
            check=True, timeout=120, capture_output=True,
        )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert not folder.exists()
