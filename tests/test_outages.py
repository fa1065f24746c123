"""When things break on the way to the weights: the right outcome, in bounded time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import fresh_sessions
from huggingface_hub import constants
from standins.weights import small_cfg, small_files

from posezoo.errors import IntegrityError, WeightsUnavailableError
from posezoo.weights import hub as client
from posezoo.weights.locate import find_weights

WEIGHTS = "model.safetensors"
REPO = "org/small"
CFG = small_cfg(hf_hub_id=REPO)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    return small_files(tmp_path_factory.mktemp("m"))


@pytest.fixture
def on_hub(hub, files):
    hub.add(REPO, files)
    return hub


@pytest.fixture
def find(tmp_path):
    """Look for the weights, in the test's own cache."""
    return lambda: find_weights(CFG, tmp_path / "cache")


def _answering(code: int, methods: tuple[str, ...] = ("HEAD", "GET"), times: int = 1000, **headers):
    """A fault: the first `times` requests by `methods` get this answer."""
    left = iter(range(times))

    def answer(handler, body) -> bool:
        if handler.command not in methods or next(left, None) is None:
            return False
        handler._answer(code, b"", headers)
        return True

    return answer


def _process(cache: Path, name: str = f"hf-hub:{REPO}", **env: str) -> subprocess.Popen[str]:
    code = (
        f"import posezoo; posezoo.create_model({name!r}, pretrained=True, cache_dir={str(cache)!r})"
        "; print('loaded')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"} | env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_eight_processes_on_a_cold_cache_make_one_download(on_hub, tmp_path):
    running = [_process(tmp_path) for _ in range(8)]
    outputs = [process.communicate(timeout=240) for process in running]
    assert all(out.strip() == "loaded" for out, _ in outputs), outputs
    assert on_hub.count("GET", WEIGHTS) == 1


def test_kill_in_the_middle_of_a_download_leaves_nothing_that_is_trusted(on_hub, files, tmp_path):
    started = []

    def slow(handler, body) -> bool:
        if handler.command != "GET":
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(files[WEIGHTS])))
        handler.end_headers()
        handler.wfile.write(files[WEIGHTS][:1_000_000])
        handler.wfile.flush()
        started.append(1)
        time.sleep(20)
        return True

    on_hub.faults[WEIGHTS] = slow
    process = _process(tmp_path)
    while not started and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert started
    on_hub.faults.clear()
    assert find_weights(CFG, tmp_path).read_bytes() == files[WEIGHTS]


def test_no_space_left(on_hub, find):
    """A limit on file size replaces a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(WeightsUnavailableError, match="File too large"):
            find()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    find()


def test_cache_that_cannot_be_written(on_hub, find, tmp_path):
    """A file where the folder should be; permissions mean nothing to root."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WeightsUnavailableError):
        find()


def test_record_of_checks_that_cannot_be_written_does_not_matter(on_hub, find, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "verified").write_text("in the way")
    find()


def test_offline_mode_uses_the_cache_and_explains_itself_without(on_hub, find, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsUnavailableError, match="offline mode is on"):
            find()
    assert on_hub.log == []
    fresh_sessions()
    path = find()
    on_hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fresh_sessions()  # 0.x decides when a session is made
    assert find() == path
    path.resolve().write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="damaged or was replaced"):
        find()
    assert on_hub.log == []


def test_outage_of_the_hub_does_not_matter_with_a_warm_cache(on_hub, find):
    path = find()
    on_hub.faults[WEIGHTS] = _answering(503)
    began = time.monotonic()
    assert find() == path
    assert time.monotonic() - began < 60


def test_single_failure_is_overcome(on_hub, find):
    on_hub.faults[WEIGHTS] = _answering(503, times=1)
    find()


@pytest.mark.slow
def test_lasting_outage_ends_in_bounded_time(on_hub, find):
    on_hub.faults[WEIGHTS] = _answering(503)
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched"):
        find()
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_no_network_at_all_ends_in_bounded_time(tmp_path):
    began = time.monotonic()
    nowhere = "http://127.0.0.1:9"
    process = _process(tmp_path, "uniformer_small", HF_ENDPOINT=nowhere, https_proxy=nowhere)
    _, err = process.communicate(timeout=120)
    assert "WeightsUnavailableError" in err and "posezoo convert" in err
    assert time.monotonic() - began < 90


INVALID = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_answering(404, ("GET",)), "404"),
        (_answering(401, **INVALID), "401|credentials"),
        (_answering(200, ("GET",), **{"Content-Length": "0"}), "size|length|[Cc]onsistency"),
    ],
    ids=["body is gone", "bad token", "shorter body"],
)
def test_failure_is_named_and_the_next_try_succeeds(on_hub, find, fault, words):
    on_hub.faults[WEIGHTS] = fault
    with pytest.raises(WeightsUnavailableError, match=words):
        find()
    on_hub.faults.clear()
    find()


@pytest.mark.skipif(
    not hasattr(constants, "HF_HUB_DISABLE_SYMLINKS"),
    reason="this version of the client has no switch for symlinks",
)
def test_cache_without_symlinks_is_verified_against_the_hub(
    on_hub, files, find, monkeypatch, caplog
):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    path = find()
    assert not path.is_symlink()
    path.write_bytes(files[WEIGHTS][:-4] + b"oops")
    assert find().read_bytes() == files[WEIGHTS]
    assert "fetching it again" in caplog.text
    file = client.HubFile(repo_id=REPO, filename=WEIGHTS, revision="gone")
    on_hub.faults["gone/" + WEIGHTS] = _answering(404)
    with pytest.raises(WeightsUnavailableError):
        client.fetch(file)
