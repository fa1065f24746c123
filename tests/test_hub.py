"""The real Hub client against the stand-in: fetch, verify, upload."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from standins.weights import SMALL, small_cfg, small_files

import posezoo
from posezoo.errors import IntegrityError, WeightsUnavailableError
from posezoo.weights.hub import HubFile, fetch
from posezoo.weights.locate import find_weights

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("model")
    small_files(path)
    return path


@pytest.fixture
def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _file(hub, repo_id, files) -> HubFile:
    """Put the model on the Hub and name its weights."""
    hub.add(repo_id, files)
    return HubFile(repo_id=repo_id, filename=WEIGHTS)


def test_weights_of_a_variant_come_from_its_repository_once(hub, files, tmp_path, monkeypatch):
    name = f"{SMALL}.rendered"
    hub.add(f"posezoo/{name}", files)
    for _ in range(2):
        assert find_weights(small_cfg(), tmp_path).read_bytes() == files[WEIGHTS]
    assert hub.count("GET", WEIGHTS) == 1
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mirror")
    hub.add(f"mirror/{name}", files)
    hub.add("org/pinned", files)
    find_weights(small_cfg(), tmp_path)
    find_weights(small_cfg(hf_hub_id="org/pinned"), tmp_path)
    with pytest.raises(WeightsUnavailableError, match="no such revision"):
        find_weights(small_cfg(hf_hub_id="org/pinned", hf_revision="0" * 40), tmp_path)


def test_hub_name_with_and_without_revision(hub, files, tmp_path):
    first = hub.add("org/mine", files)
    hub.add("org/mine", {"README.md": b"later"})
    for name in ("hf-hub:org/mine", f"hf-hub:org/mine@{first}"):
        model = posezoo.create_model(name, cache_dir=tmp_path)
        assert model.pretrained_cfg.architecture == SMALL
    with pytest.raises(WeightsUnavailableError, match="no such revision"):
        posezoo.create_model("hf-hub:org/mine@nowhere", cache_dir=tmp_path)


def test_wrong_bytes_of_the_right_length_are_refused(hub, files, tmp_path):
    """The client itself accepts them silently."""
    file = _file(hub, "org/swapped", files)

    def swap(handler, body):
        if handler.command != "GET":
            return False
        handler._answer(200, files[WEIGHTS][:-1000] + bytes(1000))
        return True

    hub.faults[WEIGHTS] = swap
    with pytest.raises(IntegrityError, match="expected"):
        fetch(file, cache_dir=tmp_path)
    hub.faults.clear()
    assert fetch(file, cache_dir=tmp_path).read_bytes() == files[WEIGHTS]


def test_damaged_cache_is_noticed_and_fetched_again(hub, files, tmp_path, caplog):
    file = _file(hub, "org/rotten", files)
    blob = fetch(file, cache_dir=tmp_path).resolve()
    blob.write_bytes(blob.read_bytes()[:-4] + b"oops")
    with caplog.at_level(logging.WARNING):
        again = fetch(file, cache_dir=tmp_path)
    assert "fetching it again" in caplog.text
    assert again.read_bytes() == files[WEIGHTS]


def test_pinned_hash_wins_over_what_the_hub_says(hub, files, tmp_path):
    with pytest.raises(IntegrityError):
        fetch(_file(hub, "org/pinned", files), sha256="0" * 64, cache_dir=tmp_path)


def test_checked_file_is_not_hashed_again_until_it_changes(hub, files, tmp_path):
    file = _file(hub, "org/once", files)
    blob = fetch(file, cache_dir=tmp_path).resolve()
    stat = blob.stat()
    blob.write_bytes(bytes(stat.st_size))
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it had not changed
    assert not any(fetch(file, cache_dir=tmp_path).read_bytes())
    os.utime(blob)
    assert fetch(file, cache_dir=tmp_path).read_bytes() == files[WEIGHTS]


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


def test_push_uploads_a_folder_that_loads_back(hub, folder, files, tmp_path):
    url = posezoo.push_to_hub(folder, "user/pushed", token="hf_secret")
    assert "/user/pushed/commit/" in url
    assert hub.repos["user/pushed"].files[WEIGHTS] == files[WEIGHTS]
    image = torch.randn(1, 3, 128, 96)
    back = posezoo.create_model("hf-hub:user/pushed", cache_dir=tmp_path)
    assert torch.equal(back(image), posezoo.create_model(f"local-dir:{folder}")(image))


def test_push_refuses_a_folder_that_is_no_model(hub, tmp_path):
    with pytest.raises(posezoo.errors.CheckpointError, match="has no model.safetensors"):
        posezoo.push_to_hub(tmp_path, "user/nothing", token="hf_secret")
    assert not hub.repos
