"""Weights collected with `posezoo fetch`, and used from a mirror with everything else away."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from families import example
from standins.files import FileServer
from standins.weights import (
    ORIGINAL_CASES,
    ORIGINALS,
    TINY,
    converted,
    pickled,
    pin_of,
    sha256,
    small_cfg,
)  # fmt: skip

import posezoo
from posezoo.cli import main
from posezoo.errors import IntegrityError, WeightsUnavailableError
from posezoo.weights import mirror
from posezoo.weights.convert import convert_file
from posezoo.weights.locate import find_weights
from posezoo.weights.located import Located
from posezoo.weights.web import Web
from posezoo.zoo.address import https

NAME = f"{TINY}.coco"
QUICK = Web(waits=(), timeout=2)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with example():
        yield


@pytest.fixture
def air_gap(hub, monkeypatch, tmp_path):
    """Call it and nothing but this machine's files is left: no Hub, no sockets, an empty cache."""

    def cut_off(where: Path | str) -> None:
        monkeypatch.setenv("POSEZOO_MIRROR", str(where))
        monkeypatch.setenv("POSEZOO_CACHE", str(tmp_path / "another machine"))
        monkeypatch.setattr(socket, "socket", _no_socket)

    return cut_off


def _no_socket(*args: object, **kwargs: object) -> None:
    raise OSError("there is no network")


def _fetch(*args: object) -> str:
    result = CliRunner().invoke(main, ["fetch", *map(str, args)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "is_hash_known"),
    [
        (next(iter(ORIGINALS)), False),
        *(pytest.param(*p.values, True, marks=p.marks) for p in ORIGINAL_CASES),
    ],
)
def test_fetch_to_a_mirror_and_load_offline_bit_equal(
    name, is_hash_known, air_gap, tmp_path, monkeypatch
):
    """Also where no hash of the weights was published."""
    cfg = converted(name, tmp_path, monkeypatch, is_hash_known=is_hash_known)
    here = posezoo.create_model(name, pretrained=True).state_dict()
    folder = tmp_path / "mirror"
    _fetch(name, "--to", folder)
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    air_gap(folder)
    for again in (name, f"local-dir:{folder / name}"):
        there = posezoo.create_model(again, pretrained=True).state_dict()
        assert set(here) == set(there) and all(torch.equal(here[k], there[k]) for k in here)
    assert find_weights(cfg).path == folder / name / "model.safetensors"


@pytest.fixture
def cfg():
    """A set of weights on a server that only `collected` asks."""
    data = pickled(TINY)
    with FileServer() as server:
        server.files["x.pth"] = data
        yield small_cfg(
            TINY, addresses=(https(f"{server.url}/files/x.pth"),), original_sha256=sha256(data)
        )


@pytest.fixture
def collected(cfg, tmp_path) -> Path:
    """A mirror with these weights."""
    folder = tmp_path / "mirror"
    mirror.add(folder, cfg, find_weights(cfg, tmp_path / "first", web=QUICK))
    return folder


def test_mirror_is_asked_first_on_a_disk_and_on_the_web(cfg, collected, tmp_path, monkeypatch):
    monkeypatch.setenv("POSEZOO_MIRROR", str(collected))
    elsewhere = small_cfg(TINY, original_sha256=cfg.source.original_sha256)  # has no address
    found = find_weights(elsewhere, tmp_path / "2", web=QUICK)
    assert found.path == collected / NAME / "model.safetensors"
    with FileServer() as server:
        for path in collected.rglob("*"):
            if path.is_file():
                server.files[path.relative_to(collected).as_posix()] = path.read_bytes()
        monkeypatch.setenv("POSEZOO_MIRROR", f"{server.url}/files")
        for _ in range(2):
            remote = find_weights(elsewhere, tmp_path / "3", web=QUICK)
            assert remote.sha256 == found.sha256 and remote.path.is_relative_to(tmp_path / "3")
        assert len([p for p in server.log if p.endswith(".safetensors")]) == 1


def test_mirror_that_lacks_them_or_is_wrong_is_reported_and_passed_over(
    cfg, collected, tmp_path, monkeypatch, caplog
):
    weights = collected / NAME / "model.safetensors"
    manifest = collected / "SHA256SUMS"
    good, listed = weights.read_bytes(), manifest.read_text()
    monkeypatch.setenv("POSEZOO_MIRROR", str(collected))
    for case, words in [
        ("file edited", "is expected"), ("manifest edited", "is expected"),
        ("file gone", "no such file"), ("not listed", "SHA256SUMS has no"),
        ("no manifest", "cannot be read"), ("another source", "not from the published one"),
    ]:  # fmt: skip
        weights.write_bytes(good)
        manifest.write_text(listed)
        if case == "file edited":
            weights.write_bytes(good[:-1] + b"x")
        elif case == "manifest edited":
            manifest.write_text("".join(f"{'0' * 64}{x[64:]}\n" for x in listed.splitlines()))
        elif case == "file gone":
            weights.unlink()
        elif case == "not listed":
            manifest.write_text("")
        elif case == "no manifest":
            manifest.unlink()
        else:
            shutil.rmtree(collected)
            convert_file(_other(tmp_path), small_cfg(TINY), tmp_path / "other", is_published=False)
            mirror.add(collected, cfg, _located(tmp_path / "other" / "model.safetensors"))
        caplog.clear()
        assert find_weights(cfg, tmp_path / case, web=QUICK).path.is_relative_to(tmp_path / case)
        assert words in caplog.text, case


def _other(tmp_path: Path) -> Path:
    path = tmp_path / "other.pth"
    path.write_bytes(pickled(TINY, seed=9))
    return path


def _located(path: Path):
    return Located(path=path, sha256=sha256(path.read_bytes()))


def test_edited_mirror_is_refused_where_the_package_pins_the_weights(
    cfg, collected, tmp_path, monkeypatch
):
    """Weights and manifest changed together, which a mirror alone cannot show."""
    weights = collected / NAME / "model.safetensors"
    pins = {NAME: pin_of("team/x", "1" * 40, weights.read_bytes())}
    monkeypatch.setenv("POSEZOO_MIRROR", str(collected))
    lonely = small_cfg(TINY, original_sha256=cfg.source.original_sha256)
    find_weights(lonely, tmp_path / "a", web=QUICK, pins=pins)
    old = sha256(weights.read_bytes())
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    manifest = collected / "SHA256SUMS"
    manifest.write_text(manifest.read_text().replace(old, sha256(weights.read_bytes())))
    with pytest.raises((IntegrityError, WeightsUnavailableError), match=f"but {old} is pinned"):
        find_weights(lonely, tmp_path / "b", web=QUICK, pins=pins)


def test_fetch_of_several_goes_on_after_a_failure_and_exits_1(tmp_path, hub):
    result = CliRunner().invoke(
        main, ["fetch", "hrnet_xs_*", "tmpose_b_256x192", "--to", str(tmp_path)]
    )
    assert result.exit_code == 1 and "published no weights" in result.output
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 2
    assert CliRunner().invoke(main, ["fetch", "nothing*"]).exit_code == 2
