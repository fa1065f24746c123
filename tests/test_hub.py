"""The real Hub client against the stand-in: fetch, verify, save, upload."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import posezoo
from posezoo.errors import IntegrityError, WeightsUnavailableError
from posezoo.weights import hub as _hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    model = posezoo.create_model("uniformer_small")
    return posezoo.save_pretrained(model, tmp_path_factory.mktemp("model"))


@pytest.fixture
def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pretrained_comes_from_the_hub_once(hub, files, tmp_path):
    hub.add("posezoo/uniformer_small.in1k", files)
    for _ in range(2):
        model = posezoo.create_model("uniformer_small", pretrained=True, cache_dir=tmp_path)
    image = torch.randn(1, 3, 64, 64)
    (tmp_path / "x").mkdir()
    for name, data in files.items():
        (tmp_path / "x" / name).write_bytes(data)
    assert torch.equal(posezoo.create_model(f"local-dir:{tmp_path}/x")(image), model(image))
    assert hub.count("GET", "model.safetensors") == 1


def test_namespace_comes_from_the_environment(hub, files, tmp_path, monkeypatch):
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mirror")
    hub.add("mirror/uniformer_small.in1k", files)
    posezoo.create_model("uniformer_small", pretrained=True, cache_dir=tmp_path)


def test_hub_name_with_and_without_revision(hub, files, tmp_path):
    first = hub.add("org/mine", files)
    hub.add("org/mine", {"README.md": b"later"})
    for name in ("hf-hub:org/mine", f"hf-hub:org/mine@{first}"):
        model = posezoo.create_model(name, cache_dir=tmp_path)
        assert model.pretrained_cfg.architecture == "uniformer_small"
    with pytest.raises(WeightsUnavailableError, match="no such revision"):
        posezoo.create_model("hf-hub:org/mine@nowhere", cache_dir=tmp_path)


def test_wrong_bytes_of_the_right_length_are_refused(hub, files, tmp_path):
    """The client itself accepts them silently."""
    hub.add("org/swapped", files)
    good = files["model.safetensors"]
    bad = good[:-1000] + bytes(1000)

    def swap(handler, body):
        if handler.command != "GET":
            return False
        handler._answer(200, bad)
        return True

    hub.faults["model.safetensors"] = swap
    with pytest.raises(IntegrityError, match="expected"):
        posezoo.create_model("hf-hub:org/swapped", cache_dir=tmp_path)
    hub.faults.clear()
    posezoo.create_model("hf-hub:org/swapped", cache_dir=tmp_path)


def test_damaged_cache_is_noticed_and_fetched_again(hub, files, tmp_path, caplog):
    hub.add("org/rotten", files)
    path = _hub.fetch_from_hub("org/rotten", "model.safetensors", cache_dir=tmp_path)
    blob = path.resolve()
    blob.write_bytes(blob.read_bytes()[:-4] + b"oops")
    with caplog.at_level(logging.WARNING):
        again = _hub.fetch_from_hub("org/rotten", "model.safetensors", cache_dir=tmp_path)
    assert "fetching it again" in caplog.text
    assert again.read_bytes() == files["model.safetensors"]


def test_pinned_hash_wins_over_what_the_hub_says(hub, files, tmp_path):
    hub.add("org/pinned", files)
    with pytest.raises(IntegrityError):
        _hub.fetch_from_hub("org/pinned", "model.safetensors", sha256="0" * 64, cache_dir=tmp_path)


def test_checked_file_is_not_hashed_again(hub, files, tmp_path, monkeypatch):
    hub.add("org/once", files)
    _hub.fetch_from_hub("org/once", "model.safetensors", cache_dir=tmp_path)
    monkeypatch.setattr(_hub._checkpoints, "sha256_of", lambda path: pytest.fail("hashed again"))
    _hub.fetch_from_hub("org/once", "model.safetensors", cache_dir=tmp_path)


def test_missing_private_and_gated_repositories(hub, files, tmp_path):
    hub.add("org/private", files)
    hub.repos["org/private"].access = "private"
    hub.add("org/gated", files)
    hub.repos["org/gated"].access = "gated"
    hub.add("org/empty", {"README.md": b"x"})
    for name, words in [
        ("nothing", "does not exist, or is private"),
        ("private", "does not exist, or is private"),
        ("gated", "accept its terms"),
        ("empty", "config.json .*does not exist"),
    ]:
        with pytest.raises(WeightsUnavailableError, match=words):
            posezoo.create_model(f"hf-hub:org/{name}", cache_dir=tmp_path)


def test_token_opens_a_private_repository(hub, files, tmp_path, monkeypatch):
    hub.add("org/mine_only", files)
    hub.repos["org/mine_only"].access = "private"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    posezoo.create_model("hf-hub:org/mine_only", cache_dir=tmp_path)


def test_repository_name_that_is_none(tmp_path):
    with pytest.raises(WeightsUnavailableError, match="repository name"):
        posezoo.create_model("hf-hub:a/b/c", cache_dir=tmp_path)


def test_push_uploads_a_folder_that_loads_back(hub, folder, tmp_path):
    url = posezoo.push_to_hub(folder, "user/pushed", token="hf_secret")
    assert "/user/pushed/commit/" in url
    assert (
        hub.repos["user/pushed"].files["model.safetensors"]
        == (folder / "model.safetensors").read_bytes()
    )
    image = torch.randn(1, 3, 64, 64)
    back = posezoo.create_model("hf-hub:user/pushed", cache_dir=tmp_path)
    assert torch.equal(back(image), posezoo.create_model(f"local-dir:{folder}")(image))


def test_push_refuses_a_folder_that_is_no_model(hub, tmp_path):
    with pytest.raises(posezoo.errors.CheckpointError, match="has no model.safetensors"):
        posezoo.push_to_hub(tmp_path, "user/nothing", token="hf_secret")
    assert not hub.repos
