"""The real Hub client against the stand-in: fetch, verify, upload; and whatever can break."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import fresh_sessions
from huggingface_hub import constants
from standins.hub import answering
from standins.weights import SMALL, small_cfg, small_files

import posezoo
from posezoo.errors import CheckpointError, IntegrityError, WeightsUnavailableError
from posezoo.weights.hub import HubFile, fetch
from posezoo.weights.locate import find_weights

WEIGHTS = "model.safetensors"
REPO = "org/small"
CFG = small_cfg(hf_hub_id=REPO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model."""
    path: Path = tmp_path_factory.mktemp("model")
    small_files(path)
    return path


@pytest.fixture(scope="module")
def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def on_hub(hub, files):
    """The stand-in Hub, with the model in its repository."""
    hub.add(REPO, files)
    return hub


@pytest.fixture
def find(tmp_path):
    """Look for the weights, in the test's own cache."""
    return lambda **more: fetch(HubFile(REPO, WEIGHTS), cache_dir=tmp_path / "cache", **more)


def _is_within(seconds: float, began: float) -> bool:
    return time.monotonic() - began < seconds


def test_weights_of_a_variant_come_from_its_repository_once(hub, files, tmp_path, monkeypatch):
    name = f"{SMALL}.rendered"
    hub.add(f"posezoo/{name}", files)
    for _ in range(2):
        assert find_weights(small_cfg(), tmp_path).read_bytes() == files[WEIGHTS]
    assert hub.count("GET", WEIGHTS) == 1
    hub.add(f"mirror/{name}", files)
    hub.add(REPO, files)
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mirror")
    find_weights(small_cfg(), tmp_path)
    assert hub.count("HEAD", f"mirror/{name}") == 1
    find_weights(CFG, tmp_path)
    with pytest.raises(WeightsUnavailableError, match="no such revision"):
        find_weights(small_cfg(hf_hub_id=REPO, hf_revision="0" * 40), tmp_path)


def test_hub_name_with_and_without_revision(on_hub, files, tmp_path):
    first = on_hub.add(REPO, files)
    on_hub.add(REPO, {"README.md": b"later"})
    for name in (f"hf-hub:{REPO}", f"hf-hub:{REPO}@{first}"):
        assert posezoo.create_model(name, cache_dir=tmp_path).pretrained_cfg.architecture == SMALL
    with pytest.raises(WeightsUnavailableError, match="no such revision"):
        posezoo.create_model(f"hf-hub:{REPO}@nowhere", cache_dir=tmp_path)


def test_missing_private_gated_and_misnamed_repositories(hub, files, tmp_path, monkeypatch):
    for access in ("private", "gated"):
        hub.add(f"org/{access}", files)
        hub.repos[f"org/{access}"].access = access
    hub.add("org/empty", {"README.md": b"x"})
    for name, words in [
        ("org/nothing", "does not exist, or is private"),
        ("org/private", "does not exist, or is private"),
        ("org/gated", "accept its terms"),
        ("org/empty", "config.json .*does not exist"),
        ("a/b/c", "repository name"),
    ]:
        with pytest.raises(WeightsUnavailableError, match=words):
            posezoo.create_model(f"hf-hub:{name}", cache_dir=tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    posezoo.create_model("hf-hub:org/private", cache_dir=tmp_path)


def test_wrong_bytes_of_the_right_length_are_refused(on_hub, files, find):
    """The client itself accepts them silently."""
    other = files[WEIGHTS][:-1000] + bytes(1000)
    on_hub.faults[WEIGHTS] = answering(200, other, methods=("GET",))
    with pytest.raises(IntegrityError, match="expected"):
        find()
    on_hub.faults.clear()
    assert find().read_bytes() == files[WEIGHTS]
    with pytest.raises(IntegrityError, match="00000000… is expected"):
        find(sha256="0" * 64)  # a pinned hash wins over what the Hub says


@pytest.mark.parametrize("symlinks", [True, False])
def test_damaged_cache_is_noticed_and_fetched_again(
    on_hub, files, find, caplog, symlinks, monkeypatch
):
    """Without symlinks the name of the file is not its hash, and the Hub is asked."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", not symlinks, raising=False)
    path = find()
    path.resolve().write_bytes(files[WEIGHTS][:-4] + b"oops")
    with caplog.at_level(logging.WARNING):
        assert find().read_bytes() == files[WEIGHTS]
    assert "fetching it again" in caplog.text


def test_checked_file_is_not_hashed_again_until_it_changes(on_hub, files, find):
    blob = find().resolve()
    stat = blob.stat()
    blob.write_bytes(bytes(stat.st_size))
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it had not changed
    assert not any(find().read_bytes())
    os.utime(blob)
    assert find().read_bytes() == files[WEIGHTS]


def test_push_uploads_a_folder_that_loads_back(hub, folder, files, tmp_path):
    url = posezoo.push_to_hub(folder, "user/pushed", token="hf_secret")
    assert "/user/pushed/commit/" in url
    assert hub.repos["user/pushed"].files[WEIGHTS] == files[WEIGHTS]
    image = torch.randn(1, 3, 128, 96)
    back = posezoo.create_model("hf-hub:user/pushed", cache_dir=tmp_path)
    assert torch.equal(back(image), posezoo.create_model(f"local-dir:{folder}")(image))
    hub.repos.clear()
    with pytest.raises(CheckpointError, match="has no model.safetensors"):
        posezoo.push_to_hub(tmp_path, "user/nothing", token="hf_secret")
    assert not hub.repos


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
        if handler.command == "GET":
            half = files[WEIGHTS][:1_000_000]
            handler.answer(200, half, {"Content-Length": str(len(files[WEIGHTS]))})
            handler.wfile.flush()
            started.append(1)
            time.sleep(20)
        return handler.command == "GET"

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


@pytest.mark.parametrize("in_the_way", ["cache", "cache/verified"])
def test_cache_that_cannot_be_written(on_hub, find, tmp_path, in_the_way):
    """A file where a folder should be, as permissions mean nothing to root."""
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("in the way")
    if in_the_way == "cache":
        with pytest.raises(WeightsUnavailableError):
            find()
    else:  # the record of checks can be done without
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


def test_outage_does_not_matter_with_a_warm_cache_and_one_failure_not_at_all(on_hub, find):
    on_hub.faults[WEIGHTS] = answering(503, times=1)
    path, began = find(), time.monotonic()
    on_hub.faults[WEIGHTS] = answering(503)
    assert find() == path and _is_within(60, began)


@pytest.mark.slow
def test_lasting_outage_and_no_network_end_in_bounded_time(on_hub, find, tmp_path):
    on_hub.faults[WEIGHTS] = answering(503)
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched"):
        find()
    assert _is_within(60, began)
    began, nowhere = time.monotonic(), "http://127.0.0.1:9"
    process = _process(tmp_path, "uniformer_small", HF_ENDPOINT=nowhere, https_proxy=nowhere)
    _, err = process.communicate(timeout=120)
    assert "WeightsUnavailableError" in err and "posezoo convert" in err
    assert _is_within(90, began)


INVALID = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (answering(404, methods=("GET",)), "404"),
        (answering(401, **INVALID), "401|credentials"),
        (answering(200, b"short", methods=("GET",)), "size|length|[Cc]onsistency"),
    ],
    ids=["body is gone", "bad token", "shorter body"],
)
def test_failure_is_named_and_the_next_try_succeeds(on_hub, find, fault, words):
    on_hub.faults[WEIGHTS] = fault
    with pytest.raises(WeightsUnavailableError, match=words):
        find()
    on_hub.faults.clear()
    find()
