"""Weight files: what is read, what is refused and in which words, and what loading reports."""

from __future__ import annotations

import argparse
import collections
import errno
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens.fill import make_state, manifests
from safetensors.torch import save_file

import posezoo
from posezoo.errors import CheckpointError, IntegrityError
from posezoo.files import replacing, sha256_of, write_text
from posezoo.weights.tensors import (
    read_checkpoint,
    read_metadata,
    read_weights,
    write_safetensors,
)
from posezoo.weights.verify import check_hash, check_named_hash

TENSORS = {
    "layer.weight": torch.arange(6.0).reshape(2, 3),
    "layer.half": torch.ones(4, dtype=torch.float16),
    "layer.count": torch.tensor(7),
}


def _same(left, right):
    return set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)


def _refuses(path, *words):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    for word in (*words, str(path)):
        assert word in str(caught.value)


def _written(content, path, *, legacy=False):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize(
    "wrapper",
    [None, "state_dict", "model", "module", "model_state_dict", "state_dict_ema", "model_ema"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module.module._orig_mod.model."])
def test_every_wrapper_of_a_pickle_is_understood(tmp_path, wrapper, legacy, prefix):
    """Old mmcv files hold configurations and other objects beside the tensors; none is built."""
    content = {prefix + k: v for k, v in TENSORS.items()}
    meta = {
        "args": argparse.Namespace(lr=1), "seen": collections.Counter("ab"), "p": Path("x"),
        "numbers": np.arange(3), "queue": collections.deque([1]), "set": {1, (2, 3)},
        "sets": collections.defaultdict(set), "type": np.float64, "text": "x" * 300,
    }  # fmt: skip
    wrapped = content if wrapper is None else {wrapper: content, "meta": meta, "epoch": 2**40}
    path = _written(wrapped, tmp_path / "weights.pth", legacy=legacy)
    assert _same(read_checkpoint(path), TENSORS)


def test_tensors_that_are_views_come_back_with_their_numbers(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    views = {"t": base.t(), "row": base[1], "all": base, "step": base[::2, 1::2], "none": base[:0],
             "zero": torch.tensor(3.5), "same": base[:1].expand(3, 6)}  # fmt: skip
    for legacy in (False, True):
        path = _written(
            {**views, "p": torch.nn.Parameter(base[2:])}, tmp_path / "v.pth", legacy=legacy
        )
        assert _same(read_checkpoint(path), {**views, "p": base[2:]})


@pytest.mark.parametrize("inner", [{}, {"state_dict": {"x": 1}}])
def test_weights_are_preferred_to_averages_and_losses_are_left_out(tmp_path, inner):
    average = {k: v + 1 for k, v in TENSORS.items()}
    path = tmp_path / "run.pth"
    _written({"state_dict_ema": average, "model": TENSORS, **inner}, path)
    assert _same(read_checkpoint(path), TENSORS)
    ours = {**{f"model.{k}": v for k, v in TENSORS.items()}, "loss.scale": torch.ones(1)}
    _written({"objective": ours, "average": average, "step": 3}, path)
    assert _same(read_checkpoint(path), TENSORS)
    averaged = {**{f"module.{k}": v for k, v in TENSORS.items()}, "n_averaged": torch.tensor(2)}
    assert _same(read_checkpoint(_written(averaged, path)), TENSORS)
    _written({**TENSORS, "_orig_mod.layer.weight": TENSORS["layer.weight"]}, path)
    _refuses(path, "twice")


def test_reading_leaves_the_process_as_it_is(tmp_path, monkeypatch):
    """torch has one list of allowed names for all threads, and changing it lets others' in."""

    def refuse(*args, **kwargs):
        raise AssertionError

    path = _written({"model": TENSORS, "meta": argparse.Namespace()}, tmp_path / "w.pth")
    for name in ("safe_globals", "add_safe_globals", "clear_safe_globals"):
        monkeypatch.setattr(torch.serialization, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert _same(read_checkpoint(path), TENSORS)


def test_safetensors_name_must_hold_safetensors(tmp_path):
    _written(TENSORS, tmp_path / "model.safetensors")
    _refuses(tmp_path / "model.safetensors", "called safetensors but holds a PyTorch file")
    save_file(TENSORS, tmp_path / "model.pth")
    assert _same(read_checkpoint(tmp_path / "model.pth"), TENSORS)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("change", ["cut", "overwritten", "replaced"])
def test_file_that_changes_while_it_is_read_is_never_a_mixture(tmp_path, kind, change, monkeypatch):
    path, other = tmp_path / "weights", tmp_path / "other"
    for name, offset in ((path, 0), (other, 5)):
        tensors = {"w": torch.arange(40_000.0) + offset}
        if kind == "safetensors":
            save_file(tensors, name)
        else:
            _written(tensors, name, legacy=kind == "legacy")
    fstat, calls = os.fstat, []

    def changing(number):
        found = fstat(number)
        calls.append(number)
        if len(calls) == 1:
            if change == "replaced":
                os.replace(other, path)
            else:
                os.utime(path, ns=(0, 0))  # no clock is too coarse for this test
                os.truncate(path, 90_000)
                if change == "overwritten":
                    path.write_bytes(other.read_bytes())
        return found

    monkeypatch.setattr(os, "fstat", changing)
    if change == "replaced":
        assert torch.equal(read_checkpoint(path)["w"], torch.arange(40_000.0))
    else:
        _refuses(path)


def test_hash_is_that_of_the_bytes_that_are_used(tmp_path):
    for name in ("w.safetensors", "w.pth"):
        path = tmp_path / name
        save_file(TENSORS, path) if name.endswith("s") else _written(TENSORS, path)
        digest = sha256_of(path)
        assert read_weights(path).sha256 == digest
        for known in (digest, digest[:8]):
            assert _same(read_weights(path, sha256=known).tensors, TENSORS)
        with pytest.raises(IntegrityError, match=f"{path} has hash {digest[:16]}"):
            read_weights(path, sha256="0" * 64)


def _scripted(path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)


def _exported(path):
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def _zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/1.jpg", b"x")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_scripted, "TorchScript"), (_exported, "torch.export.load"), (_zipped, "photos/1.jpg"),
        (lambda p: torch.save(torch.nn.Linear(2, 2), p), "torch.nn.modules.linear.Linear"),
        (lambda p: _written(torch.nn.Linear(2, 2), p, legacy=True), "linear.Linear"),
        (lambda p: torch.save({"model": torch.nn.Linear(2, 2), "epoch": 1}, p),
         "epoch (int), model (an object of torch.nn.modules.linear.Linear); objects are not"),
        (lambda p: torch.save({"a": torch.ones(2), "b": np.ones(2)}, p), "b (an object of numpy"),
        (lambda p: torch.save([torch.ones(2)], p), "holds list"),
        (lambda p: p.write_bytes(pickle.dumps(TENSORS)), "not one of PyTorch"),
    ],
    ids=["script", "pt2", "zip", "module", "legacy module", "state", "arrays", "list", "pickle"],
)  # fmt: skip
def test_file_of_another_kind_is_named(tmp_path, write, words):
    write(tmp_path / "other.pt")
    _refuses(tmp_path / "other.pt", words)


ODD = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "qtensor": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "meta": lambda: torch.empty(3, device="meta"),
    "complex64": lambda: torch.ones(2, dtype=torch.complex64),
    "int8": lambda: torch.ones(2, dtype=torch.int8),
    "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_weights_are_named(tmp_path, kind, model):
    tensors = {**TENSORS, "layer.odd": ODD[kind]()}
    _refuses(_written({"model": tensors}, tmp_path / "odd.pth"), kind, "'layer.odd'")
    with pytest.raises(CheckpointError, match="the given state dict holds 'layer.odd'"):
        posezoo.load_checkpoint(model, tensors)
    if kind in ("int8", "float8", "complex64"):
        save_file(tensors, tmp_path / "odd.safetensors")
        _refuses(tmp_path / "odd.safetensors", "'layer.odd'", "floating-point")


class _Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, os.mkdir, print])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_malicious_pickle_runs_nothing(tmp_path, function, form, capsys):
    mark, path = tmp_path / "executed", tmp_path / "evil.pth"
    argument = {os.mkdir: str(mark), os.system: f"mkdir {mark}"}.get(
        function, f"__import__('os').mkdir({str(mark)!r})"
    )
    attack = _Attack(function, argument)
    if form == "bare":
        path.write_bytes(pickle.dumps(attack))
    else:
        content = {"state_dict": TENSORS, "meta": attack}
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        assert form == "bare", error
    assert not mark.exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "LFS pointer"),
        (b"\x00" * 100, "neither safetensors nor"),
        (b"hello world, no weights here", "neither safetensors nor"),
        (struct.pack("<Q", 500) + b'{"a":1}', "truncated"),
        (struct.pack("<Q", 7) + b'{"a":1}', "safetensors"),
        (b"PK\x03\x04" + b"\x00" * 60, "PyTorch file"),
        (b"\x80\x02}q\x00.", "not one of PyTorch"),
    ],
    ids=["empty", "html", "lfs", "zeros", "text", "short", "header", "zip", "pickle"],
)
def test_file_that_is_no_weights_is_named_for_what_it_is(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    _refuses(path, words)


def test_missing_file_folder_and_file_without_weights(tmp_path):
    _refuses(tmp_path / "nothing.pth", "no weights file")
    _refuses(tmp_path, "is a folder")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "empty.pth")
    _refuses(tmp_path / "empty.pth", "holds no state dict", "epoch (int), model (dict)")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_truncated_file(tmp_path, kind):
    path = tmp_path / "cut"
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    for part in (0.1, 0.5, 0.98):
        path.write_bytes(data[: int(part * len(data))])
        _refuses(path)


def test_hashes_are_compared(tmp_path):
    path = tmp_path / "top_down-d4a7fdac_20230724.pth"
    path.write_bytes(b"other")
    with pytest.raises(IntegrityError, match="promises d4a7fdac"):
        check_named_hash(path, sha256_of(path))
    check_named_hash(path, "d4a7fdac" + "0" * 56)
    sha256, git = sha256_of(path), "27fa34919ae70aa0d7eaccdfbf393cfc440e7d25"  # git hash-object
    for expected in (sha256, sha256[:8], git):
        check_hash(path, expected)
    for expected in ("", sha256[:7], "0" * 8, "0" * 64, git[::-1]):
        with pytest.raises(IntegrityError, match="expected"):
            check_hash(path, expected)


def test_only_files_are_replaced_and_links_stay(tmp_path):
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    os.mkfifo(pipe)
    (tmp_path / "folder").mkdir()
    for path in (pipe, tmp_path / "folder", real / "below"):
        with pytest.raises(OSError) as caught:
            write_text(path, "x")
        assert str(path) in str(caught.value) or str(real) in str(caught.value)
        assert ".tmp" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "link", "pipe", "real"]


def test_full_disk_names_the_file(tmp_path):
    path = tmp_path / "weights"
    with pytest.raises(OSError, match=f"No space left.*{path}'$"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_written_bytes_depend_on_content_only(tmp_path):
    metadata = {"b": "2", "a": "1", "license": "x"}
    write_safetensors(TENSORS, tmp_path / "one", metadata)
    write_safetensors(
        dict(reversed(TENSORS.items())), tmp_path / "two", dict(reversed(metadata.items()))
    )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert _same(read_checkpoint(tmp_path / "one"), TENSORS)
    assert read_metadata(tmp_path / "one")["license"] == "x"


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_safetensors(TENSORS, path, {})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="'a' as torch.complex64"):
        write_safetensors({"a": torch.zeros(2, dtype=torch.complex64)}, path, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_header_length_of_our_files_is_not_taken_for_a_pickle(tmp_path):
    """A pickle starts with 0x80, which one header length in 32 does too."""
    path = tmp_path / "model.safetensors"
    for pad in range(0, 256, 8):
        write_safetensors(TENSORS, path, {"pad": "x" * pad})
        assert _same(read_checkpoint(path), TENSORS)


@pytest.fixture(scope="module")
def state():
    """Weights under the authors' keys."""
    return make_state(manifests("uniformer")["uniformer_small"])


@pytest.fixture(scope="module")
def model():
    return posezoo.create_model("uniformer_small")


QKV = "blocks3.1.attn.qkv.weight"


def test_authors_keys_become_ours_and_the_model_keeps_its_type(model, state):
    counters = [k for k in state if k.endswith("num_batches_tracked")]  # files may lack them
    given = {k: v.half() for k, v in state.items() if k not in counters}
    report = posezoo.load_checkpoint(model, given)
    assert len(report.loaded) == len(given) and counters and not report.missing
    assert report.converted_from == "the given state dict"
    loaded = model.backbone.stages[2].blocks[1].attn.qkv.weight
    assert loaded.dtype == torch.float32 and torch.equal(loaded, given[QKV].float())
    assert posezoo.load_checkpoint(model, model.state_dict()).converted_from is None


def _does_not_load(model, state, *words):
    before = model.head.weight.clone()
    with pytest.raises(CheckpointError) as caught:
        posezoo.load_checkpoint(model, state)
    for word in words:
        assert word in str(caught.value)
    assert torch.equal(model.head.weight, before)


def test_nan_is_refused_and_the_tensor_named(model, state):
    _does_not_load(model, {**state, QKV: torch.full((960, 320), float("nan"))}, "NaN", QKV)


def test_number_that_the_model_cannot_hold_is_refused(model, state):
    huge = {**state, QKV: torch.full((960, 320), 1e300, dtype=torch.float64)}
    _does_not_load(model, huge, "holds 1.0e+300", QKV, "torch.float32 can hold")


def test_two_keys_that_become_one_are_refused(model, state):
    both = {**state, "backbone.stages.0.blocks.0.conv1.weight": state["blocks1.0.conv1.weight"]}
    _does_not_load(model, both, "both become")


def test_report_lists_first_five_and_totals(model, state):
    short = {k: v for k, v in state.items() if not k.startswith("blocks4")}
    extra = {**short, "zebra.weight": torch.zeros(2), "head.weight": torch.zeros(3, 512)}
    _does_not_load(
        model, extra, " missing", ", …",
        "1 unexpected: zebra.weight", "1 mismatched: head.weight: file (3, 512), model (1000, 512)",
    )  # fmt: skip
    report = posezoo.load_checkpoint(model, extra, strict=False)
    assert report.unexpected == ("zebra.weight",) and len(report.mismatched) == 1
    assert all(k.startswith("backbone.stages.3") for k in report.missing)


def test_integers_are_no_weights(model, state):
    integers = {**state, "head.weight": torch.zeros(1000, 512, dtype=torch.int64)}
    words = "1 mismatched: head.weight: file (1000, 512) torch.int64, model (1000, 512)"
    _does_not_load(model, integers, words)


def test_unknown_prefix_is_named(model, state):
    _does_not_load(model, {f"net.{k}": v for k, v in state.items()}, "fits without the 'net.'")


def test_weights_of_another_model_are_recognised(model):
    other = posezoo.create_model("hrnet_xs_128x96").state_dict()
    _does_not_load(model, other, "looks like hrnet_xs_128x96 or hrnet_xs_192x144")


def test_module_that_is_no_model_of_ours_is_refused():
    with pytest.raises(TypeError, match="Linear is not a posezoo model"):
        posezoo.load_checkpoint(torch.nn.Linear(2, 2), {})
