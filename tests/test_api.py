"""The public surface: names, documentation, lightness."""

from __future__ import annotations

import inspect
import subprocess
import sys

import posezoo


def test_public_names_are_a_decision():
    assert sorted(posezoo.__all__) == [
        "LoadReport", "PosePredictor", "PoseResult", "PretrainedCfg", "Skeleton", "build_codec",
        "build_transform", "create_model", "errors", "get_pretrained_cfg", "get_skeleton",
        "is_model", "list_models", "load_checkpoint", "optimize", "push_to_hub",
        "save_pretrained",
    ]  # fmt: skip


def test_every_public_name_is_documented_and_typed():
    for name in posezoo.__all__:
        thing = getattr(posezoo, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not inspect.Signature.empty, name
            assert all(
                p.annotation is not inspect.Parameter.empty for p in signature.parameters.values()
            ), name


def test_import_makes_no_file_and_no_connection():
    code = (
        "import sys; bad = []; "
        "sys.addaudithook(lambda e, a: bad.append((e, a)) if e in ('socket.connect', 'os.mkdir') "
        "or (e == 'open' and isinstance(a[1], str) and set(a[1]) & set('wax') "
        "and '__pycache__' not in str(a[0])) else None); "
        "import posezoo; posezoo.list_models(); print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
