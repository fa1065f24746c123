"""The authors' own locations: fetch, check, convert once, keep."""

from __future__ import annotations

import dataclasses
import io
import threading

import pytest
import torch
from goldens.fill import make_state, manifests
from standins.files import FileServer

import posezoo
from posezoo.errors import CheckpointError, IntegrityError, WeightsUnavailableError
from posezoo.weights import convert as _convert
from posezoo.weights import download as _origins
from posezoo.weights import files as _checkpoints
from posezoo.zoo import catalog as _registry


@pytest.fixture(scope="module")
def original() -> bytes:
    """A file as the authors publish it."""
    buffer = io.BytesIO()
    torch.save({"model": make_state(manifests("uniformer")["uniformer_small"])}, buffer)
    return buffer.getvalue()


@pytest.fixture
def server():
    with FileServer() as running:
        yield running


@pytest.fixture
def place(monkeypatch, hub):
    """Point the variant at other original locations; the Hub knows nothing of it."""
    monkeypatch.setattr(_origins, "_WAITS", (0.01, 0.01))

    def change(**source):
        cfg = posezoo.get_pretrained_cfg("uniformer_small")
        new = dataclasses.replace(cfg.source, original_sha256=None, **source)
        cfgs = _registry._CFGS["uniformer_small"]
        monkeypatch.setitem(cfgs, "in1k", dataclasses.replace(cfg, source=new))

    return change


def _sha(data: bytes, tmp_path) -> str:
    (tmp_path / "x").write_bytes(data)
    return _checkpoints.sha256_of(tmp_path / "x")


def _load(tmp_path):
    return posezoo.create_model("uniformer_small", pretrained=True, cache_dir=tmp_path / "cache")


def test_https_original_is_converted_once_and_kept(server, place, original, tmp_path):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    first, second = _load(tmp_path), _load(tmp_path)
    assert server.log == ["/files/weights.pth"]
    assert torch.equal(first.head.weight, second.head.weight)
    assert first.origin["origin_sha256"] == _sha(original, tmp_path)
    assert first.origin["origin_url"].startswith(server.url) and first.origin["license"] == "mit"
    left = sorted(p.name for p in (tmp_path / "cache/converted/uniformer_small.in1k").iterdir())
    assert [n for n in left if n != ".lock"] == [
        "config.json", "model.safetensors", "model.safetensors.sha256",
    ]  # fmt: skip


@pytest.mark.parametrize("size", ["small", "large"])
def test_drive_file_with_and_without_confirmation_page(
    server, place, original, tmp_path, monkeypatch, size
):
    monkeypatch.setattr(_origins, "DRIVE_URL", f"{server.url}/uc")
    monkeypatch.setattr("standins.files.LARGE", 1 if size == "large" else 1 << 40)
    server.drive["abc"] = original
    place(original_urls=("gdrive:abc",))
    _load(tmp_path)
    assert any(path.startswith("/download") for path in server.log) == (size == "large")


def test_second_place_is_tried_when_the_first_is_gone(server, place, original, tmp_path):
    server.files["b.pth"] = original
    place(original_urls=(f"{server.url}/files/a.pth", f"{server.url}/files/b.pth"))
    _load(tmp_path)
    assert server.log == ["/files/a.pth", "/files/b.pth"]


def test_hub_file_of_the_authors(hub, place, original, tmp_path):
    hub.add("authors/models", {"folder/small.pth": original})
    place(original_urls=("hf:authors/models/folder/small.pth",))
    _load(tmp_path)


def test_wrong_hash_is_never_used(server, place, original, tmp_path):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    cfg = posezoo.get_pretrained_cfg("uniformer_small")
    source = dataclasses.replace(cfg.source, original_sha256="deadbeef")
    with pytest.raises(IntegrityError, match="deadbeef was published"):
        _convert.fetch_and_convert(dataclasses.replace(cfg, source=source), tmp_path)
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
def test_fault_is_retried_where_that_helps_and_named(
    server, place, original, tmp_path, fault, words, tries
):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    server.fault = fault
    with pytest.raises(WeightsUnavailableError, match=words):
        _load(tmp_path)
    assert len(server.log) == tries
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.pth"))
    server.fault = None
    _load(tmp_path)


def test_one_outage_does_not_matter(server, place, original, tmp_path):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    answers = iter([_unavailable, _cut])
    server.fault = lambda h, d: next(answers, lambda *_: False)(h, d)
    _load(tmp_path)
    assert len(server.log) == 3


def test_all_reasons_stand_in_one_error_with_the_way_out(server, place, tmp_path):
    place(original_urls=(f"{server.url}/files/gone.pth",), original_filename="gone.pth")
    with pytest.raises(WeightsUnavailableError) as caught:
        _load(tmp_path)
    for word in ("Hub repository", "404", "posezoo convert gone.pth --model uniformer_small.in1k"):
        assert word in str(caught.value)


def test_browser_only_source_names_page_file_and_command(place, hub, tmp_path):
    place(original_urls=(), original_page="https://example.org/folder", original_filename="s.pth")
    with pytest.raises(WeightsUnavailableError) as caught:
        _load(tmp_path)
    for word in ("with a browser", "take s.pth from https://example.org/folder", "posezoo convert"):
        assert word in str(caught.value)


def test_converted_file_that_was_changed_is_refused(server, place, original, tmp_path):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    _load(tmp_path)
    path = tmp_path / "cache/converted/uniformer_small.in1k/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="delete .* to fetch the weights again"):
        _load(tmp_path)


def test_conversion_without_its_last_file_is_not_trusted(server, place, original, tmp_path):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    _load(tmp_path)
    (tmp_path / "cache/converted/uniformer_small.in1k/model.safetensors.sha256").unlink()
    _load(tmp_path)
    assert len(server.log) == 2


def test_many_at_once_make_one_download(server, place, original, tmp_path):
    server.files["weights.pth"] = original
    place(original_urls=(f"{server.url}/files/weights.pth",))
    cfg = posezoo.get_pretrained_cfg("uniformer_small")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(_convert.fetch_and_convert(cfg, tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.log) == 1


def test_file_of_another_model_is_refused_after_download(server, place, tmp_path):
    buffer = io.BytesIO()
    torch.save(make_state(manifests("uniformer")["uniformer_base"]), buffer)
    server.files["weights.pth"] = buffer.getvalue()
    place(original_urls=(f"{server.url}/files/weights.pth",))
    with pytest.raises(CheckpointError, match="looks like uniformer_base"):
        _load(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
