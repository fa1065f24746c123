"""The authors' own addresses: fetch, check, convert once, keep; and whatever can go wrong."""

from __future__ import annotations

import io
import logging
import os
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from families import example
from filelock import FileLock
from standins.disk import full_disk
from standins.files import FileServer
from standins.weights import TINY, pickled, sha256, small_cfg

from posezoo.errors import (
    IntegrityError,
    WeightsUnavailableError,
)  # fmt: skip
from posezoo.weights.cache import converted_dir, locked
from posezoo.weights.load import load_new
from posezoo.weights.locate import find_converted, find_weights
from posezoo.weights.web import Web
from posezoo.zoo.address import Address, drive, folder, https

NAME = f"{TINY}.coco"
AUTHORS = "the authors"


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with example():
        yield


@pytest.fixture(scope="module")
def original() -> bytes:
    """A file as authors publish it."""
    return pickled(TINY)


@pytest.fixture(scope="module")
def other() -> bytes:
    """Another file for the same model, as valid."""
    return pickled(TINY, seed=5)


@pytest.fixture
def server(original):
    with FileServer() as running:
        running.files["weights.pth"] = original
        yield running


@pytest.fixture
def at(server):
    """A file of the server, by its publisher's word."""
    return lambda name="weights.pth": https(f"{server.url}/files/{name}", publisher=AUTHORS)


@pytest.fixture
def find(server, at, tmp_path):
    """Look for the weights of a variant; by default on the server, by its publisher's word."""

    def find(*addresses: Address, web: Web | None = None, **source: str):
        cfg = small_cfg(TINY, addresses=addresses or (at(),), **source)
        quick = Web(waits=(0.01, 0.01), timeout=2, drive=f"{server.url}/uc")
        return find_weights(cfg, tmp_path, web=web or quick).path

    return find


@pytest.fixture
def folder_of(tmp_path) -> Path:
    """Where converted weights are kept."""
    return converted_dir(small_cfg(TINY), tmp_path)


def _left_over(tmp_path: Path) -> list[Path]:
    return [p for p in tmp_path.rglob("*") if p.suffix in (".pth", ".tmp", ".safetensors", ".part")]


def test_https_original_is_converted_once_and_kept(server, find, original, folder_of):
    first, second = find(), find()
    assert first == second == folder_of / "model.safetensors"
    assert server.log == ["/files/weights.pth"]
    origin = load_new(small_cfg(TINY), first, {})[0].origin
    assert origin["origin_sha256"] == sha256(original) and origin["license"] == "mit"
    assert origin["origin_url"].startswith(server.url)
    assert {p.name for p in folder_of.iterdir()} - {".lock"} == {
        "config.json", "model.safetensors", "model.safetensors.sha256",
    }  # fmt: skip


@pytest.mark.parametrize("limit", [1, 1 << 40])
def test_drive_file_with_and_without_confirmation_page(server, find, original, limit):
    server.drive["abc"], server.confirm_from = original, limit
    find(drive("abc", publisher=AUTHORS))
    assert any(path.startswith("/download") for path in server.log) == (limit == 1)


def test_drive_file_that_is_refused_says_so(find):
    with pytest.raises(
        WeightsUnavailableError, match="drive.google.com/file/d/gone/view: Google Drive refuses"
    ):
        find(drive("gone", publisher=AUTHORS))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_member_of_an_archive(server, find, original, kind, tmp_path):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a/small.pth", original)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            info = tarfile.TarInfo("a/small.pth")
            info.size = len(original)
            archive.addfile(info, io.BytesIO(original))
    server.files[kind] = buffer.getvalue()
    url = f"{server.url}/files/{kind}"
    with pytest.raises(WeightsUnavailableError, match="b.pth in .*: the archive has no b.pth"):
        find(https(url, member="b.pth"), original_sha256=sha256(original))
    with pytest.raises(IntegrityError, match="00000000… is expected"):
        find(https(url, member="a/small.pth"), original_sha256="0" * 64)
    find(https(url, member="a/small.pth"), original_sha256=sha256(original))
    assert not list(tmp_path.rglob("*.archive")) and not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("kind", ["hub", "hub_dataset"])
def test_hub_file_of_the_authors_at_its_commit(hub, find, original, other, kind, tmp_path):
    repository = "datasets/authors/files" if kind == "hub_dataset" else "authors/files"
    commit = hub_commit = hub.add(repository, {"folder/small.pth": original})
    hub.add(repository, {"folder/small.pth": other})
    address = Address(kind=kind, where="authors/files", file="folder/small.pth", revision=commit)
    with pytest.raises(IntegrityError, match="hf:.*authors/files/folder/small.pth@"):
        find(address, original_sha256="de" * 32)
    find(address, original_sha256=sha256(original))
    assert hub.count("GET", f"resolve/{hub_commit}/folder/small.pth") == 2
    assert not list(tmp_path.rglob("*.pth")), "what was converted is not kept twice"


def test_local_folder(find, original, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "small.pth").write_bytes(original)
    find(folder(str(tmp_path / "files"), "small.pth"), original_sha256=sha256(original))
    assert (tmp_path / "files" / "small.pth").is_file()


# -- which addresses are asked


def test_address_that_is_neither_pinned_nor_the_publishers_is_not_asked(server, find, hub, other):
    hub.add("someone/copy", {"x.pth": other})
    copies = (https(f"{server.url}/files/weights.pth"), Address(kind="hub", where="someone/copy",
              file="x.pth"), https("http://example.org/x.pth", publisher=AUTHORS))  # fmt: skip
    for known in ({}, {"original_sha256": "deadbeef"}):
        with pytest.raises(WeightsUnavailableError) as caught:
            find(*copies, **known)
        assert "a copy that is not the publisher's" in str(caught.value)
        assert "no TLS" in str(caught.value)
    assert server.log == [] and hub.log == []


def test_copy_is_used_where_the_full_hash_is_known(server, find, original):
    find(https(f"{server.url}/files/weights.pth"), original_sha256=sha256(original))


@pytest.mark.parametrize("digits", [0, 8])
def test_first_use_is_remembered_and_a_change_refused(
    server, find, at, original, other, folder_of, digits, caplog
):
    known = {"original_sha256": sha256(original)[:8]} if digits else {}
    find(**known)
    assert sha256(original) in caplog.text and "first use" in caplog.text
    (folder_of / "model.safetensors").unlink()
    server.files["weights.pth"] = other
    with pytest.raises(IntegrityError, match=sha256(original)[:16]):
        find(**known)
    server.files["copy.pth"] = original  # anybody's copy will do now
    caplog.clear()
    find(at(), https(f"{server.url}/files/copy.pth"), **known)
    assert "first use" not in caplog.text


def test_damaged_memory_of_the_first_use_is_an_error(find, tmp_path):
    (tmp_path / "first-use").mkdir()
    (tmp_path / "first-use" / f"{NAME}.sha256").write_text("f" * 64)
    with pytest.raises(IntegrityError, match="delete it to start anew"):
        find(original_sha256="01234567")


# -- one address fails, the next is tried


def _cut(handler, data):
    handler.reply(data, "application/octet-stream", cut=len(data) // 2)
    handler.close_connection = True
    return True


def _status(code, **headers):
    def answer(handler, data):
        handler.send_response(code)
        for key, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()
        return True

    return answer


def _page(handler, data):
    handler.page("<html>please log in</html>")
    return True


def _slow(handler, data):
    time.sleep(3)
    return True


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("dead", "no connection"), ("gone", "404"), ("wrong", "is expected"), ("page", "web page"),
        ("cut", "cut after"), ("slow", "timed out"), ("moved", "redirects to"), ("503", "503"),
        ("another model", "looks like tokenpose_xs_128x96"),
    ],
)  # fmt: skip
def test_next_address_is_tried_and_the_failure_reported(
    server, find, at, original, other, first, words, caplog, tmp_path
):
    server.files["good.pth"] = original
    with FileServer() as bad:
        bad.files["x.pth"] = {"wrong": other, "another model": pickled("tokenpose_xs_128x96")}.get(
            first, original
        )
        bad.fault = {"page": _page, "cut": _cut, "slow": _slow, "503": _status(503)}.get(first)
        if first == "moved":
            bad.redirects["x.pth"] = f"{server.url}/files/good.pth"
        name = "gone" if first == "gone" else "x.pth"
        where = "http://127.0.0.1:9" if first == "dead" else bad.url
        known = {"original_sha256": sha256(original)[:8]} if first == "wrong" else {}
        bad_address = https(f"{where}/files/{name}", publisher=AUTHORS)
        quick = Web(waits=(0.01,), timeout=0.5)
        path = find(bad_address, at("good.pth"), web=quick, **known)
    origin = load_new(small_cfg(TINY), path, {})[0].origin
    assert origin["origin_sha256"] == sha256(original)
    assert str(bad_address) in caplog.text
    assert words in caplog.text and set(_left_over(tmp_path)) <= {path, *tmp_path.rglob("*.part")}


def test_redirect_to_another_host_is_followed_with_a_pin(server, find, original):
    with FileServer() as first:
        first.redirects["x.pth"] = f"{server.url}/files/weights.pth"
        find(https(f"{first.url}/files/x.pth"), original_sha256=sha256(original))


def test_all_reasons_are_in_one_error_with_the_way_out(find, at):
    with pytest.raises(WeightsUnavailableError) as caught:
        find(at("gone.pth"), at("lost.pth"), drive("gone", publisher=AUTHORS),
             original_filename="gone.pth")  # fmt: skip
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and lines[0] == f"no weights for {NAME}:"
    assert "gone.pth, http" in lines[1] and lines[1].endswith("HTTP 404 Not Found")
    assert "Google Drive refuses" in lines[2]
    assert f"posezoo convert gone.pth --model {NAME} --out" in lines[3]
    cfg = small_cfg(TINY, original_page="https://example.org/folder", original_filename="s.pth")
    with pytest.raises(WeightsUnavailableError) as caught:
        find_weights(cfg)
    for word in ("take s.pth from https://example.org/folder", "posezoo convert"):
        assert word in str(caught.value)


# -- interruptions


@pytest.mark.parametrize(
    ("fault", "words", "tries"),
    [
        (_cut, "cut after", 3),
        (_status(503), "503", 3),
        (_status(403), "403", 1),
        (_page, "page", 1),
    ],
)
def test_fault_is_retried_where_that_helps_and_named(server, find, tmp_path, fault, words, tries):
    server.fault = fault
    with pytest.raises(WeightsUnavailableError, match=words):
        find()
    assert len(server.log) == tries
    assert [p for p in _left_over(tmp_path) if p.suffix != ".part"] == []
    faults = iter([_status(429, Retry_After="0"), _cut])  # two outages, then all is well
    server.fault = lambda h, d: next(faults, lambda *_: False)(h, d)
    find()
    assert _left_over(tmp_path) == [find()]


def test_cut_download_goes_on_where_it_was_cut(server, find, original):
    faults = iter([_cut])
    server.fault = lambda h, d: next(faults, lambda *_: False)(h, d)
    find()
    half = len(original) // 2
    assert server.sent == [half, len(original) - half]


def test_later_run_goes_on_too_but_never_mixes_two_versions(server, find, original, other):
    for now, sent in ((original, [len(original) - len(original) // 2]), (other, [len(other)])):
        server.fault = _cut
        server.files["weights.pth"] = original
        with pytest.raises(WeightsUnavailableError):
            find(web=Web(waits=()))
        server.fault, server.files["weights.pth"] = None, now
        server.sent.clear()
        path = find()
        assert server.sent == sent
        assert load_new(small_cfg(TINY), path, {})[0].origin["origin_sha256"] == sha256(now)
        for file in path.parents[2].glob("*/*/*"):
            file.unlink()
        for file in path.parents[2].glob("first-use/*"):
            file.unlink()


def test_damaged_half_is_thrown_away(server, find, original, folder_of):
    """Right version, wrong bytes: noticed by the hash, fetched again from the beginning."""
    server.fault = _cut
    with pytest.raises(WeightsUnavailableError):
        find(web=Web(waits=()), original_sha256=sha256(original))
    (part,) = folder_of.glob(".*.part")
    part.write_bytes(bytes(part.stat().st_size))
    server.fault = None
    find(original_sha256=sha256(original))


def test_server_that_cannot_go_on_starts_over(server, find, original):
    faults = iter([_cut])
    server.fault = lambda h, d: next(faults, lambda *_: False)(h, d)
    server.whole_only = True
    find()
    assert server.sent == [len(original) // 2, len(original)]


def test_trickle_counts_as_broken(server, find):
    def trickle(handler, data):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        try:
            for byte in data[:100]:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass
        handler.close_connection = True
        return True

    server.fault = trickle
    with pytest.raises(WeightsUnavailableError, match="slower than 2 kB/s"):
        find(web=Web(waits=(), patience=0.3))


def test_full_disk(find, tmp_path):
    with full_disk(1_000), pytest.raises(WeightsUnavailableError, match="File too large"):
        find()
    find()


# -- what is kept


def test_wrong_hash_is_never_used(find, tmp_path):
    with pytest.raises(IntegrityError, match="deadbeef… is expected"):
        find(original_sha256="deadbeef")
    assert _left_over(tmp_path) == []


def test_converted_file_that_was_changed_is_refused(find):
    path = find()
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="delete .* to fetch the weights again"):
        find()


def test_conversion_without_its_last_file_is_not_trusted(server, find, folder_of):
    find()
    (folder_of / "model.safetensors.sha256").unlink()
    find()
    assert len(server.log) == 2


def test_file_replaced_after_the_check_is_not_loaded(find, other, tmp_path, server):
    """Other valid weights of the same size and date, so that only the loaded bytes can tell."""
    path = find()
    located = find_converted(small_cfg(TINY), tmp_path)
    stat = path.stat()
    server.files["weights.pth"] = other
    copy = find_weights(
        small_cfg(TINY, addresses=(https(f"{server.url}/files/weights.pth", publisher=AUTHORS),)),
        tmp_path / "2",
    ).path
    path.write_bytes(copy.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_converted(small_cfg(TINY), tmp_path) == located, "it looks unchanged"
    with pytest.raises(IntegrityError):
        load_new(small_cfg(TINY), located.path, {}, sha256=located.sha256)


def test_packaged_file_is_checked_too(tmp_path):
    cfg = small_cfg(TINY, packaged="hrnet_xs_128x96.rendered.safetensors", sha256="0" * 64)
    with pytest.raises(IntegrityError, match="hrnet_xs_128x96.rendered.safetensors has hash"):
        find_weights(cfg, tmp_path)


def test_many_at_once_make_one_download(server, find):
    found = []
    threads = [threading.Thread(target=lambda: found.append(find())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.log) == 1


def test_waiting_for_another_process_is_said(tmp_path, caplog):
    held = FileLock(tmp_path / ".lock", thread_local=False)
    held.acquire()
    threading.Timer(0.3, held.release).start()
    with caplog.at_level(logging.WARNING), locked(tmp_path, patience=0.1):
        pass
    assert f"another process works on {tmp_path}" in caplog.text
