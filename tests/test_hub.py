"""The real Hub client against the stand-in: fetch, verify, upload; and whatever can break."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import fresh_sessions
from huggingface_hub import constants
from standins.disk import full_disk
from standins.hub import answering
from standins.weights import SMALL, pin_of, sha256, small_cfg, small_files

import posezoo
from posezoo.errors import CheckpointError, IntegrityError, WeightsUnavailableError
from posezoo.weights.cache import remove
from posezoo.weights.hub import HubFile, fetch
from posezoo.weights.locate import find_weights
from posezoo.weights.web import Web

WEIGHTS = "model.safetensors"
REPO = "org/small"
QUICK = Web(waits=(0.01, 0.01), timeout=5)


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
    cache = tmp_path / "cache"
    return lambda **more: fetch(HubFile(REPO, WEIGHTS), cache_dir=cache, web=QUICK, **more).path


def _is_within(seconds: float, began: float) -> bool:
    return time.monotonic() - began < seconds


def test_only_a_namespace_that_the_user_named_is_asked(hub, files, tmp_path, monkeypatch):
    name = f"{SMALL}.rendered"
    hub.add(f"posezoo/{name}", files)  # whoever registered that name
    with pytest.raises(WeightsUnavailableError, match=f"^no weights for {name}"):
        find_weights(small_cfg(), tmp_path)
    assert hub.log == []
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mine")
    hub.add(f"mine/{name}", files)
    for _ in range(2):
        assert find_weights(small_cfg(), tmp_path).path.read_bytes() == files[WEIGHTS]
    assert hub.count("GET", WEIGHTS) == 1 and hub.count("HEAD", "mine/") == 2
    assert not hub.count("HEAD", "posezoo/")


def test_pinned_weights_load_and_a_squatter_is_refused(hub, files, tmp_path):
    """Other weights, valid and of the same size, under the pinned name."""
    name = f"{SMALL}.rendered"
    commit = hub.add("team/pinned", files)
    pins = {name: pin_of("team/pinned", commit, files[WEIGHTS])}
    found = find_weights(small_cfg(), tmp_path / "1", pins=pins, web=QUICK)
    assert found.path.read_bytes() == files[WEIGHTS] and found.sha256 == sha256(files[WEIGHTS])
    hub.add("team/pinned", {WEIGHTS: files[WEIGHTS][:-4] + b"oops"})  # main moves on: no matter
    hub.log.clear()
    assert find_weights(small_cfg(), tmp_path / "1", pins=pins, web=QUICK) == found
    assert hub.log == []
    find_weights(small_cfg(), tmp_path / "2", pins=pins, web=QUICK)
    hub.repos["team/pinned"].commits[commit][WEIGHTS] = files[WEIGHTS][:-4] + b"oops"
    with pytest.raises(IntegrityError, match=f"{pins[name].sha256[:16]}… is expected"):
        find_weights(small_cfg(), tmp_path / "3", pins=pins, web=QUICK)
    assert not list((tmp_path / "3").rglob("*.safetensors"))


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
        ("org/empty", "config.json: does not exist"),
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


def test_damaged_cache_is_noticed_and_fetched_again(on_hub, files, find, caplog):
    path = find()
    path.write_bytes(files[WEIGHTS][:-4] + b"oops")
    with caplog.at_level(logging.WARNING):
        assert find().read_bytes() == files[WEIGHTS]
    assert "fetching it again" in caplog.text


@pytest.mark.parametrize("symlinks", [True, False])
def test_copy_of_the_hub_client_is_used_if_its_hash_fits(
    on_hub, files, tmp_path, symlinks, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", not symlinks, raising=False)
    commit = on_hub.repos[REPO].refs["main"]
    theirs = Path(huggingface_hub.hf_hub_download(REPO, WEIGHTS, revision=commit))
    on_hub.log.clear()
    file, pinned = HubFile(REPO, WEIGHTS, commit), sha256(files[WEIGHTS])
    found = fetch(file, sha256=pinned, cache_dir=tmp_path, web=QUICK)
    assert found.path == theirs.resolve() and on_hub.log == []
    theirs.resolve().write_bytes(files[WEIGHTS][:-4] + b"oops")
    found = fetch(file, sha256=pinned, cache_dir=tmp_path, web=QUICK)
    assert found.path.read_bytes() == files[WEIGHTS]
    assert theirs.read_bytes() != files[WEIGHTS], "another program's cache is not ours to repair"


@pytest.mark.parametrize("etag", ["", "../../../victim", "..", "/etc/passwd", "main", "0" * 63])
def test_hostile_etag_touches_nothing(on_hub, files, tmp_path, etag):
    victim = tmp_path / "victim"
    victim.write_text("the user's")
    before = sorted(tmp_path.rglob("*"))
    headers = {"X-Repo-Commit": "1" * 40, "ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'}
    on_hub.faults[WEIGHTS] = answering(200, files[WEIGHTS], **headers)
    for commit in ("1" * 40, "../../victim"):
        on_hub.faults[WEIGHTS] = answering(
            200, files[WEIGHTS], **headers | {"X-Repo-Commit": commit}
        )
        with pytest.raises(WeightsUnavailableError, match="states no commit and hash"):
            fetch(HubFile(REPO, WEIGHTS), cache_dir=tmp_path / "cache", web=QUICK)
    assert victim.read_text() == "the user's" and sorted(tmp_path.rglob("*")) == before


def test_nothing_outside_the_cache_is_removed(tmp_path):
    (tmp_path / "victim").write_text("the user's")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "victim")
    for path in ("link", "../victim", str(tmp_path / "victim")):
        with pytest.raises(IntegrityError, match="leads out of the cache"):
            remove(tmp_path / "cache" / path, tmp_path / "cache")
    assert (tmp_path / "victim").read_text() == "the user's"
    for repository, file in [("a/../b", WEIGHTS), (REPO, "../../x"), ("a/..", WEIGHTS)]:
        with pytest.raises(WeightsUnavailableError, match="not a repository|not the name"):
            fetch(HubFile(repository, file), cache_dir=tmp_path / "cache", web=QUICK)


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


def _process(cache: Path) -> subprocess.Popen[str]:
    code = (
        "from posezoo.weights.hub import HubFile, fetch; "
        f"print(fetch(HubFile({REPO!r}, {WEIGHTS!r}), cache_dir={str(cache)!r}).sha256)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_on_a_cold_cache_make_one_download(on_hub, files, tmp_path, count):
    running = [_process(tmp_path) for _ in range(count)]
    outputs = [process.communicate(timeout=240) for process in running]
    assert all(out.strip() == sha256(files[WEIGHTS]) for out, _ in outputs), outputs
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
    found = fetch(HubFile(REPO, WEIGHTS), cache_dir=tmp_path)
    assert found.path.read_bytes() == files[WEIGHTS]


def test_no_space_left(on_hub, find):
    with full_disk(1_000_000), pytest.raises(WeightsUnavailableError, match="File too large"):
        find()
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


@pytest.mark.parametrize("kind", ["503", "dropped", "loop", "refused"])
def test_trouble_does_not_matter_with_a_warm_cache(on_hub, find, caplog, kind, monkeypatch):
    path = find()
    if kind == "refused":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
        )  # noqa: E501
    on_hub.faults[WEIGHTS] = {
        "503": answering(503),
        "dropped": _drop,
        "loop": answering(302, Location=f"/{REPO}/resolve/main/{WEIGHTS}"),
        "refused": answering(503),
    }[kind]
    assert find() == path
    assert "the copy in the cache is used" in caplog.text


def _drop(handler, body) -> bool:
    handler.close_connection = True
    handler.connection.shutdown(2)
    return True


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_one_outage_is_got_over(on_hub, files, find, method):
    on_hub.faults[WEIGHTS] = answering(503, methods=(method,), times=1)
    assert find().read_bytes() == files[WEIGHTS]


def test_without_a_network_one_sentence_says_what_to_do(tmp_path):
    """Nobody listens: three lines, within ten seconds, and no retry lines before them."""
    began, nowhere = time.monotonic(), "http://127.0.0.1:9"
    code = "from posezoo.cli import main; main(['predict', 'photo.jpg'])"
    (tmp_path / "photo.jpg").write_bytes(b"")
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=120,
        env=os.environ
        | {"HF_ENDPOINT": nowhere, "https_proxy": nowhere, "POSEZOO_CACHE": str(tmp_path / "c")},
    )  # fmt: skip
    assert process.returncode == 1 and _is_within(30, began)
    lines = process.stderr.splitlines()
    assert len(lines) <= 3 and lines[0].startswith("posezoo: error: no weights for vitpose")
    for words in ("posezoo fetch vitpose_b_simple", str(tmp_path / "c"), "hrnet_s_192x144.bodies"):
        assert words in lines[-1]


INVALID = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (answering(404, methods=("GET",)), "404"),
        (answering(401, **INVALID), "401|credentials"),
        (answering(200, b"short", methods=("GET",)), "length of 5 bytes"),
        (
            answering(200, b"<html>", methods=("GET",), **{"Content-Type": "text/html"}),
            "a web page",
        ),
    ],
    ids=["body is gone", "bad token", "shorter body", "page"],
)
def test_failure_is_named_and_the_next_try_succeeds(on_hub, find, fault, words):
    on_hub.faults[WEIGHTS] = fault
    with pytest.raises(WeightsUnavailableError, match=words):
        find()
    on_hub.faults.clear()
    find()


@pytest.mark.parametrize("told_by", ["HEAD", "GET"])
def test_body_on_another_host_gets_no_token(on_hub, files, find, monkeypatch, told_by):
    """The Hub says so beforehand, or redirects the request for the body."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen = []

    def elsewhere(handler, body) -> bool:
        if handler.command == told_by:
            repo = on_hub.repos[REPO]
            handler.answer(302, b"", {
                "Location": on_hub.url.replace("127.0.0.1", "localhost") + "/far/body",
                "X-Repo-Commit": repo.refs["main"], "X-Linked-Etag": sha256(files[WEIGHTS]),
                "X-Linked-Size": str(len(files[WEIGHTS])),
            })  # fmt: skip
        return handler.command == told_by

    def body(handler, body) -> bool:
        seen.append(handler.headers.get("Authorization"))
        handler.answer(200, files[WEIGHTS])
        return True

    on_hub.faults |= {WEIGHTS: elsewhere, "/far/body": body}
    assert find().read_bytes() == files[WEIGHTS] and seen == [None]
