"""The table of published rows, the documents made from it, and the scripts beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import posezoo

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROWS = json.loads((BENCHMARKS / "published.json").read_text())["rows"]
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))


def test_every_row_names_a_registered_model_once():
    assert len({row["row"] for row in ROWS}) == len(ROWS)
    assert [row["model"] for row in ROWS if not posezoo.is_model(row["model"])] == []


def test_every_evaluable_model_has_a_row():
    models = {row["model"] for row in ROWS}
    wanted = set(posezoo.list_models(task="pose", tags=True))
    wanted |= set(posezoo.list_models(task="classification", tags=True))
    missing = {n for n in wanted - models if posezoo.get_pretrained_cfg(n).tag != "rendered"}
    assert not missing


def test_rows_agree_with_the_configurations():
    for row in ROWS:
        cfg = posezoo.get_pretrained_cfg(row["model"])
        assert row["dataset"] == cfg.dataset
        assert row["source"].startswith("https://") and 0 < row["tolerance"] < 0.01
        assert (row["status"] == "unknown") == (set(row["values"].values()) == {None})
        if row["status"] == "reported" and cfg.metrics:
            for name, value in cfg.metrics.values.items():
                assert row["values"].get(name) == value, (row["row"], name)


def test_written_documents_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "report.py"), "--check"],
        capture_output=True, text=True, cwd=BENCHMARKS.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script_explains_itself_and_is_short(script):
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
    assert len(script.read_text().splitlines()) < 200
