"""Random damage to good files: success or the documented error, nothing else."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import posezoo
from posezoo.errors import CheckpointError
from posezoo.weights.saved import read_config
from posezoo.weights.tensors import read_checkpoint

FEW, MANY = 150, 2000


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat or drop a few bytes, more often near the start."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        if not out:
            break
        at = rng.randrange(min(len(out), rng.choice([16, 400, len(out)])))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif kind == 3:
            out[at:at] = out[at : at + rng.randrange(1, 40)]
        else:
            del out[at : at + rng.randrange(1, 40)]
    return bytes(out)


def _good(kind: str, folder: Path) -> bytes:
    path = folder / "good"
    state = {f"layer.{i}.weight": torch.full((4, 3), float(i)) for i in range(5)}
    if kind == "safetensors":
        save_file(state, path, {"format": "pt"})
    elif kind == "config":
        cfg = posezoo.get_pretrained_cfg("uniformer_s_256x192")
        config = {"architecture": cfg.architecture, "model_args": {}, "posezoo": cfg.to_dict()}
        path.write_text(json.dumps(config))
    else:
        content = {"state_dict": state, "meta": {"epoch": 3, "text": "x"}}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path.read_bytes()


def _reader(kind: str) -> Callable[[Path], object]:
    return read_config if kind == "config" else read_checkpoint


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["safetensors", "config", "zip", "legacy"])
def test_damaged_file_loads_or_is_refused_in_our_words(kind, count, tmp_path):
    rng = random.Random(f"{kind}{count}")
    good, path, read = _good(kind, tmp_path), tmp_path / "damaged", _reader(kind)
    executed: list[str] = []
    watched = {"os.system", "subprocess.Popen", "exec", "os.exec", "socket.connect", "os.mkdir"}
    watching = [True]

    def watch(event: str, args: object) -> None:
        if watching[0] and event in watched:
            executed.append(event)

    path.write_bytes(good)
    read(path)  # what the readers import on first use is no finding
    sys.addaudithook(watch)
    refused = 0
    try:
        for i in range(count):
            path.write_bytes(mutate(good, rng))
            try:
                signal.alarm(20)  # ends the tests if a reader hangs
                read(path)
            except CheckpointError as error:
                refused += 1
                assert str(path) in str(error), (i, error)
    finally:
        signal.alarm(0)
        watching[0] = False
    assert refused > count / 10
    assert not [e for e in executed if e != "exec"], executed
