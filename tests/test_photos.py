"""The main job on real photographs, with a model fetched by name from the stand-in Hub.

Skipped where ../shared/photos is absent. The weights are stand-ins, so the poses mean nothing;
that everything between a photo and a number fits together is the point.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from standins.weights import SMALL, small_cfg, small_files

from posezoo.cli import main
from posezoo.zoo.registry import ARCHITECTURES


@pytest.fixture
def published(hub, tmp_path, monkeypatch) -> str:
    """A small model with random weights, in the user's namespace on the stand-in Hub."""
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "mine")
    cfg = small_cfg()
    monkeypatch.setitem(ARCHITECTURES[SMALL].cfgs, cfg.tag, cfg)
    hub.add(f"mine/{cfg.name}", small_files(tmp_path / "published"))
    return SMALL


def _run(*args: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_predict_draws_everybody_annotated(published, photos, tmp_path):
    images = sorted((photos / "coco").glob("*.jpg"))
    _run("predict", *images, "--model", published, "--boxes", photos / "coco/test_coco.json",
         "--out", tmp_path / "out.jsonl", "--draw", tmp_path / "drawn",
         "--draw-threshold", -9)  # fmt: skip
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    truth = json.loads((photos / "coco/test_coco.json").read_text())
    assert sum(len(f["persons"]) for f in found) == len(truth["annotations"])
    for image in images:
        drawn = np.asarray(Image.open(tmp_path / "drawn" / f"{image.stem}.png"))
        plain = np.asarray(Image.open(image).convert("RGB"))
        assert drawn.shape == plain.shape
        assert 0.001 < (np.abs(drawn.astype(int) - plain).max(-1) > 30).mean() < 0.6


@pytest.mark.parametrize("boxes", ["gt", pytest.param("det56.4", marks=pytest.mark.slow)])
def test_eval_names_its_box_source(published, photos, tmp_path, boxes):
    folder: Path = photos / "coco"
    file = "gt" if boxes == "gt" else folder / "test_coco_det_AP_H_56.json"
    annotations = folder / "test_coco.json"
    output = _run("eval", published, "--data", folder, "--annotations", annotations,
                  "--boxes", file, "--out", tmp_path)  # fmt: skip
    assert f"bbox={boxes}" in output
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["results"] <= (12 if boxes == "gt" else 118) and record["images"] == 4
    assert record["weights"]["origin_sha256"]
