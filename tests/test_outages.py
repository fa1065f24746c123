"""When things break on the way to the weights: the right outcome, in bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from conftest import fresh_sessions

import posezoo
from posezoo.errors import IntegrityError, WeightsUnavailableError
from posezoo.weights import hub as _hub

NAME = "uniformer_small"
FETCH = f"import posezoo; posezoo.create_model({NAME!r}, pretrained=True); print('loaded')"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    torch.manual_seed(2)
    folder = posezoo.save_pretrained(posezoo.create_model(NAME), tmp_path_factory.mktemp("m"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def on_hub(hub, files):
    hub.add(f"posezoo/{NAME}.in1k", files)
    return hub


def _process(home: Path, code: str = FETCH, **env: str) -> subprocess.Popen[str]:
    settings = {
        **os.environ, "HF_HOME": str(home), "POSEZOO_CACHE": str(home / "posezoo"),
        "OMP_NUM_THREADS": "1", **env,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", code], env=settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _load(tmp_path: Path) -> torch.nn.Module:
    return posezoo.create_model(NAME, pretrained=True, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_eight_processes_on_a_cold_cache_make_one_download(on_hub, tmp_path):
    running = [_process(tmp_path) for _ in range(8)]
    outputs = [process.communicate(timeout=240) for process in running]
    assert all(out.strip() == "loaded" for out, _ in outputs), outputs
    assert on_hub.count("GET", "model.safetensors") == 1


def test_kill_in_the_middle_of_a_download_leaves_nothing_that_is_trusted(on_hub, files, tmp_path):
    started = []

    def slow(handler, body):
        if handler.command != "GET":
            return False
        data = files["model.safetensors"]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        started.append(1)
        time.sleep(20)
        return True

    on_hub.faults["model.safetensors"] = slow
    process = _process(tmp_path)
    while not started and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    on_hub.faults.clear()
    out, err = _process(tmp_path).communicate(timeout=120)
    assert out.strip() == "loaded", err


def test_no_space_left(on_hub, tmp_path):
    """A limit on file size stands in for a full disk."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000)); {FETCH}"
    )
    out, err = _process(tmp_path, code).communicate(timeout=120)
    assert out == "" and "WeightsUnavailableError" in err and "File too large" in err
    out, err = _process(tmp_path).communicate(timeout=120)
    assert out.strip() == "loaded", err


def test_cache_that_cannot_be_written(on_hub, tmp_path):
    """A file where the folder should be; permissions mean nothing to root."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WeightsUnavailableError):
        _load(tmp_path)


def test_record_of_checks_that_cannot_be_written_does_not_matter(on_hub, tmp_path, monkeypatch):
    _load(tmp_path)

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(_hub._checkpoints, "replacing", refuse)
    _load(tmp_path)


def test_offline_mode_uses_the_cache_and_explains_itself_without(on_hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsUnavailableError, match="offline mode is on"):
            _load(tmp_path)
    assert on_hub.log == []
    fresh_sessions()
    _load(tmp_path)
    on_hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fresh_sessions()  # 0.x decides when a session is made
    _load(tmp_path)
    assert on_hub.log == []


def test_offline_mode_notices_damage(on_hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    _load(tmp_path)
    cfg = posezoo.get_pretrained_cfg(NAME)
    blob = _hub.cached_blob(cfg, tmp_path / "cache")
    blob.write_bytes(blob.read_bytes()[:-1])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(IntegrityError, match="damaged or was replaced"):
        _load(tmp_path)


def _status(code):
    def answer(handler, body):
        handler._answer(code)
        return True

    return answer


def test_outage_of_the_hub_does_not_matter_with_a_warm_cache(on_hub, tmp_path):
    _load(tmp_path)
    on_hub.faults["model.safetensors"] = _status(503)
    began = time.monotonic()
    _load(tmp_path)
    assert time.monotonic() - began < 60


def test_single_failure_is_overcome(on_hub, tmp_path):
    answers = iter([True])

    def once(handler, body):
        if next(answers, False):
            handler._answer(503)
            return True
        return False

    on_hub.faults["model.safetensors"] = once
    _load(tmp_path)


@pytest.mark.slow
def test_lasting_outage_ends_in_bounded_time(on_hub, tmp_path):
    on_hub.faults["model.safetensors"] = _status(503)
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched"):
        _load(tmp_path)
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_no_network_at_all_ends_in_bounded_time(tmp_path):
    began = time.monotonic()
    process = _process(tmp_path, HF_ENDPOINT="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    _, err = process.communicate(timeout=120)
    assert "WeightsUnavailableError" in err and "posezoo convert" in err
    assert time.monotonic() - began < 90


def test_body_of_another_length_is_refused(on_hub, files, tmp_path):
    def short(handler, body):
        if handler.command == "GET":
            handler._answer(200, files["model.safetensors"][:5000])
            return True
        return False

    on_hub.faults["model.safetensors"] = short
    with pytest.raises(WeightsUnavailableError):
        _load(tmp_path)
    on_hub.faults.clear()
    _load(tmp_path)


def test_error_on_the_body_after_a_good_head(on_hub, tmp_path):
    def gone(handler, body):
        if handler.command == "GET":
            handler._answer(404)
            return True
        return False

    on_hub.faults["model.safetensors"] = gone
    with pytest.raises(WeightsUnavailableError, match="404"):
        _load(tmp_path)


def test_bad_token_is_named(on_hub, tmp_path):
    def refuse(handler, body):
        message = {"X-Error-Message": "Invalid credentials in Authorization header"}
        handler._answer(401, b"", message)
        return True

    on_hub.faults["model.safetensors"] = refuse
    with pytest.raises(WeightsUnavailableError, match="401|credentials"):
        _load(tmp_path)


@pytest.mark.skipif(
    not hasattr(huggingface_hub.constants, "HF_HUB_DISABLE_SYMLINKS"),
    reason="this version of the client has no switch for symlinks",
)
def test_cache_without_symlinks_is_verified_against_the_hub(on_hub, files, tmp_path):
    out, err = _process(tmp_path, FETCH, HF_HUB_DISABLE_SYMLINKS="1").communicate(timeout=120)
    assert out.strip() == "loaded", err
    snapshot = next((tmp_path / "hub").rglob("model.safetensors"))
    assert not snapshot.is_symlink()
    snapshot.write_bytes(files["model.safetensors"][:-4] + b"oops")
    out, err = _process(tmp_path, FETCH, HF_HUB_DISABLE_SYMLINKS="1").communicate(timeout=120)
    assert out.strip() == "loaded" and "fetching it again" in err, err
