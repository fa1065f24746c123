"""The authors' own addresses: fetch, check, convert once, keep."""

from __future__ import annotations

import io
import threading

import pytest
import torch
from standins.files import FileServer
from standins.weights import SMALL, small_cfg

import posezoo
from posezoo.errors import CheckpointError, IntegrityError, WeightsUnavailableError
from posezoo.weights.cache import converted_dir
from posezoo.weights.download import Web
from posezoo.weights.load import load_new
from posezoo.weights.locate import find_weights
from posezoo.weights.verify import check_hash


@pytest.fixture(scope="module")
def original() -> bytes:
    """A file as authors publish it."""
    return _pickle(SMALL)


def _pickle(name: str) -> bytes:
    torch.manual_seed(4)
    buffer = io.BytesIO()
    torch.save({"model": posezoo.create_model(name).state_dict()}, buffer)
    return buffer.getvalue()


@pytest.fixture
def server(original):
    with FileServer() as running:
        running.files["weights.pth"] = original
        yield running


@pytest.fixture
def find(server, hub, tmp_path):
    """Look for the weights of a variant that the Hub does not know; by default on the server."""

    def at(*addresses: str, **source: str):
        urls = addresses or (f"{server.url}/files/weights.pth",)
        web = Web(waits=(0.01, 0.01), drive=f"{server.url}/uc")
        return find_weights(small_cfg(original_urls=urls, **source), tmp_path, web=web)

    return at


@pytest.fixture
def folder(tmp_path):
    """Where converted weights are kept."""
    return converted_dir(small_cfg(), tmp_path)


def test_https_original_is_converted_once_and_kept(server, find, original, folder, tmp_path):
    first, second = find(), find()
    assert first == second == folder / "model.safetensors"
    assert server.log == ["/files/weights.pth"]
    model, _ = load_new(small_cfg(), first, {})
    (tmp_path / "x").write_bytes(original)
    check_hash(tmp_path / "x", model.origin["origin_sha256"])
    assert model.origin["origin_url"].startswith(server.url) and model.origin["license"] == "mit"
    assert {p.name for p in folder.iterdir()} - {".lock"} == {
        "config.json", "model.safetensors", "model.safetensors.sha256",
    }  # fmt: skip


@pytest.mark.parametrize("limit", [1, 1 << 40])
def test_drive_file_with_and_without_confirmation_page(server, find, original, limit):
    server.drive["abc"], server.confirm_from = original, limit
    find("gdrive:abc")
    assert any(path.startswith("/download") for path in server.log) == (limit == 1)


def test_drive_file_that_is_refused_says_so(find):
    with pytest.raises(WeightsUnavailableError, match="Google Drive refuses"):
        find("gdrive:gone")


def test_second_address_is_tried_when_the_first_is_gone(server, find):
    find(f"{server.url}/files/a.pth", f"{server.url}/files/weights.pth")
    assert server.log == ["/files/a.pth", "/files/weights.pth"]


def test_hub_file_of_the_authors(hub, find, original):
    address = "hf:authors/models/folder/small.pth"
    hub.add("authors/models", {"folder/small.pth": original})
    with pytest.raises(IntegrityError, match=f"{address} has hash .* deadbeef"):
        find(address, original_sha256="deadbeef")
    find(address)


def test_wrong_hash_is_never_used(find, tmp_path):
    with pytest.raises(IntegrityError, match="deadbeef… is expected"):
        find(original_sha256="deadbeef")
    assert not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("*.safetensors"))


def _cut(handler, data):
    handler.reply(data[: len(data) // 2], "application/octet-stream", length=len(data))
    return True


def _unavailable(handler, data):
    handler.send_error(503)
    return True


def _page(handler, data):
    handler.page("<html>please log in</html>")
    return True


@pytest.mark.parametrize(
    ("fault", "words", "tries"),
    [(_cut, "cut after", 3), (_unavailable, "503", 3), (_page, "web page", 1)],
)
def test_fault_is_retried_where_that_helps_and_named(server, find, tmp_path, fault, words, tries):
    server.fault = fault
    with pytest.raises(WeightsUnavailableError, match=words):
        find()
    assert len(server.log) == tries
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.pth"))
    faults = iter([_unavailable, _cut])  # two outages, then all is well
    server.fault = lambda h, d: next(faults, lambda *_: False)(h, d)
    find()


def test_all_reasons_are_in_one_error_with_the_way_out(server, find):
    with pytest.raises(WeightsUnavailableError) as caught:
        find(f"{server.url}/files/gone.pth", original_filename="gone.pth")
    for word in ("Hub repository", "404", f"posezoo convert gone.pth --model {SMALL}.rendered"):
        assert word in str(caught.value)
    cfg = small_cfg(original_page="https://example.org/folder", original_filename="s.pth")
    with pytest.raises(WeightsUnavailableError) as caught:
        find_weights(cfg)
    for word in ("with a browser", "take s.pth from https://example.org/folder", "posezoo convert"):
        assert word in str(caught.value)


def test_converted_file_that_was_changed_is_refused(find, folder):
    path = find()
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="delete .* to fetch the weights again"):
        find()


def test_conversion_without_its_last_file_is_not_trusted(server, find, folder):
    find()
    (folder / "model.safetensors.sha256").unlink()
    find()
    assert len(server.log) == 2


def test_many_at_once_make_one_download(server, find):
    found = []
    threads = [threading.Thread(target=lambda: found.append(find())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.log) == 1


def test_file_of_another_model_is_refused_after_download(server, find, tmp_path):
    server.files["weights.pth"] = _pickle("tokenpose_xs_128x96")
    with pytest.raises(CheckpointError, match="looks like tokenpose_xs_128x96"):
        find()
    assert not list(tmp_path.rglob("*.safetensors"))
