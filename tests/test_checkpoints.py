"""Weight files: what is read, what is refused, and in which words."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import posezoo
from posezoo.errors import CheckpointError, IntegrityError
from posezoo.weights import files as _checkpoints


@pytest.fixture(scope="module")
def state():
    """Weights under the authors' keys."""
    from goldens.fill import make_state, manifests

    return make_state(manifests("uniformer")["uniformer_small"])


@pytest.fixture(scope="module")
def model():
    return posezoo.create_model("uniformer_small")


def _expect(model, path, *parts):
    with pytest.raises(CheckpointError) as caught:
        posezoo.load_checkpoint(model, path)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "module"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_wrapper_of_a_pickle_is_understood(model, state, tmp_path, wrapper, legacy, prefix):
    content = {prefix + k: v for k, v in state.items()}
    wrapped = content if wrapper is None else {wrapper: content, "meta": {"epoch": 3}}
    path = tmp_path / "weights.pth"
    torch.save(wrapped, path, _use_new_zipfile_serialization=not legacy)
    report = posezoo.load_checkpoint(model, path)
    assert len(report.loaded) == len(state) and not report.missing
    assert report.converted_from == str(path)
    ours = model.state_dict()
    assert torch.equal(ours["head.weight"], state["head.weight"])
    assert torch.equal(
        ours["backbone.stages.2.blocks.1.attn.qkv.weight"], state["blocks3.1.attn.qkv.weight"]
    )


def test_half_precision_becomes_float32(model, state, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    posezoo.load_checkpoint(model, path)
    assert model.head.weight.dtype == torch.float32


def test_our_own_keys_are_not_called_converted(model):
    assert posezoo.load_checkpoint(model, model.state_dict()).converted_from is None


def test_foreign_objects_in_meta_are_not_imported(model, state, tmp_path):
    """Old mmcv files hold configurations and other objects beside the tensors."""
    path = tmp_path / "mmcv.pth"
    meta = {"args": argparse.Namespace(lr=1), "seen": collections.Counter("ab"), "p": Path("x")}
    for legacy in (False, True):
        torch.save(
            {"state_dict": state, "meta": meta}, path, _use_new_zipfile_serialization=not legacy
        )
        assert len(posezoo.load_checkpoint(model, path).loaded) == len(state)


class _Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, os.mkdir, print])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_malicious_pickle_runs_nothing(model, state, tmp_path, function, legacy, capsys):
    mark = tmp_path / "executed"
    argument = str(mark) if function is os.mkdir else f"__import__('os').mkdir({str(mark)!r})"
    if function is os.system:
        argument = f"mkdir {mark}"
    path = tmp_path / "evil.pth"
    torch.save(
        {"state_dict": state, "meta": _Attack(function, argument)},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    try:
        posezoo.load_checkpoint(model, path)
    except CheckpointError as error:
        assert "never" in str(error)
    assert not mark.exists()
    assert capsys.readouterr().out == ""


def test_plain_malicious_pickle_runs_nothing(model, tmp_path):
    mark = tmp_path / "executed"
    path = tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(_Attack(os.system, f"mkdir {mark}")))
    _expect(model, path)
    assert not mark.exists()


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
        (b"\x80\x02}q\x00.", "weights"),
    ],
    ids=["empty", "html", "lfs", "zeros", "text", "short", "header", "zip", "pickle"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_that_is_no_weights_is_named_for_what_it_is(model, tmp_path, content, words, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    _expect(model, path, words, str(path))


def test_missing_file_and_folder(model, tmp_path):
    _expect(model, tmp_path / "nothing.pth", "no weights file")
    _expect(model, tmp_path, "is a folder")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_truncated_file(model, state, tmp_path, cut, kind):
    path = tmp_path / "cut"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    before = model.head.weight.clone()
    _expect(model, path)
    assert torch.equal(model.head.weight, before)


def test_nan_is_refused_and_the_tensor_named(model, state, tmp_path):
    broken = {**state, "blocks3.1.attn.qkv.weight": torch.full((960, 320), float("nan"))}
    before = model.head.weight.clone()
    _expect(model, _saved(broken, tmp_path), "NaN", "blocks3.1.attn.qkv.weight")
    assert torch.equal(model.head.weight, before)


def _saved(state, folder):
    path = folder / "weights.safetensors"
    save_file(state, path)
    return path


def test_wrong_variant_is_recognised(tmp_path):
    from goldens.fill import make_state, manifests

    path = _saved(make_state(manifests("uniformer")["uniformer_base"]), tmp_path)
    _expect(
        posezoo.create_model("uniformer_small"), path, "unexpected",
        "looks like uniformer_base",
    )  # fmt: skip


def test_report_lists_first_five_and_totals(model, state, tmp_path):
    short = {k: v for k, v in state.items() if not k.startswith("blocks4")}
    extra = {**short, "zebra.weight": torch.zeros(2), "head.weight": torch.zeros(3, 512)}
    _expect(
        model, _saved(extra, tmp_path), " missing", ", …",
        "1 unexpected: zebra.weight", "1 mismatched: head.weight: file (3, 512), model (1000, 512)",
    )  # fmt: skip
    report = posezoo.load_checkpoint(model, extra, strict=False)
    assert report.unexpected == ("zebra.weight",) and len(report.mismatched) == 1
    assert all(k.startswith("backbone.stages.3") for k in report.missing)


def test_two_keys_that_become_one_are_refused(model, state):
    both = {**state, "backbone.stages.0.blocks.0.conv1.weight": state["blocks1.0.conv1.weight"]}
    _expect(model, both, "both become")


def test_counters_of_batch_norm_may_be_missing(model, state):
    short = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert not posezoo.load_checkpoint(model, short).missing


def test_hash_in_the_file_name_is_compared(tmp_path):
    path = tmp_path / "top_down-d4a7fdac_20230724.pth"
    path.write_bytes(b"other")
    with pytest.raises(IntegrityError, match="promises d4a7fdac"):
        _checkpoints.check_named_hash(path, _checkpoints.sha256_of(path))
    _checkpoints.check_named_hash(path, "d4a7fdac" + "0" * 56)


def test_written_bytes_depend_on_content_only(tmp_path, state):
    metadata = {"b": "2", "a": "1", "license": "x"}
    for name in ("one", "two"):
        _checkpoints.write_safetensors(state, tmp_path / name, metadata)
        state = dict(reversed(state.items()))
        metadata = dict(reversed(metadata.items()))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = _checkpoints.read_checkpoint(tmp_path / "one")
    assert set(again) == set(state) and all(torch.equal(again[k], state[k]) for k in state)
    assert _checkpoints.read_metadata(tmp_path / "one")["license"] == "x"


def test_failed_write_leaves_the_old_file(tmp_path, state):
    path = tmp_path / "weights.safetensors"
    _checkpoints.write_safetensors(state, path, {})
    before = path.read_bytes()
    with pytest.raises(KeyError):
        _checkpoints.write_safetensors({"a": torch.zeros(2, dtype=torch.complex64)}, path, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_renamed_pickle_is_read_as_what_it_is(model, state, tmp_path):
    path = tmp_path / "really_a_pickle.safetensors"
    torch.save(state, path)
    assert zipfile.is_zipfile(path)
    assert len(posezoo.load_checkpoint(model, path).loaded) == len(state)


@pytest.mark.parametrize("pad", range(0, 256, 8))
def test_header_length_of_our_files_is_not_taken_for_a_pickle(tmp_path, pad):
    """A pickle starts with 0x80, which one header length in 32 does too."""
    path = tmp_path / "model.safetensors"
    _checkpoints.write_safetensors({"a": torch.ones(3)}, path, {"pad": "x" * pad})
    assert torch.equal(_checkpoints.read_checkpoint(path)["a"], torch.ones(3))
