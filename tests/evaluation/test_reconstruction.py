"""Tokenizers are scored by the annotated poses that they give back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import posezoo
from evaluation.made import evaluate
from posezoo.errors import DataError
from posezoo.evaluation import Share
from posezoo.models.pct.tokenizer import TokenizerOutput
from posezoo.synthetic import write_coco
from posezoo.zoo.model import Tokenizer

NAME = "pct_tokenizer_swin_base_woimgguide"


class Shifted(Tokenizer):
    """Gives labelled keypoints back, `pixels` to the right of where they were.

    With `guided` the shift is that times the mean of the crop.
    """

    def __init__(self, pixels: float, guided: bool = False) -> None:
        super().__init__()
        self.pixels, self.num_keypoints, self.image_guided = pixels, 17, guided
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = posezoo.get_pretrained_cfg(NAME)

    def forward_features(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None]

    def forward(
        self, keypoints: Tensor, visible: Tensor, features: Tensor | None
    ) -> TokenizerOutput:
        shift = torch.ones(len(keypoints), 1) if features is None else features
        moved = keypoints + torch.stack([self.pixels * shift, torch.zeros_like(shift)], dim=-1)
        moved = moved.masked_fill(~visible[..., None], 0.0)
        return TokenizerOutput(moved, torch.zeros(1), torch.zeros(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    write_coco(folder, 6, seed=2, size=(128, 128))
    return folder


def test_perfect_reconstruction_has_an_ap_of_one_in_any_number_of_shares(data, tmp_path):
    record = evaluate(Shifted(0), data)
    assert record.statistics["AP"] == pytest.approx(1)
    assert (record.images, record.box_source, record.dataset) == (6, "gt", "coco")
    truth = json.loads((data / "annotations/person_keypoints_val2017.json").read_text())
    assert record.results == len(truth["annotations"])
    for i in (1, 0):
        last = evaluate(Shifted(0), data, out=tmp_path, share=Share(index=i, count=2))
    assert last.statistics == record.statistics
    limited = evaluate(Shifted(0), data, limit=2)
    assert limited.images == 2 and limited.statistics["AR"] == pytest.approx(1)


def test_flip_test_cancels_what_moves_to_one_side(data):
    """Poses shifted by the same amount in the picture and in its mirror image."""
    assert evaluate(Shifted(40), data).statistics["AP"] == pytest.approx(1)
    record = evaluate(Shifted(40), data, flip_test=False)
    assert record.statistics["AP"] < 0.1
    assert "no flip test (not the recipe)" in record.table()


def test_guided_tokenizers_see_the_crops_and_others_no_image(data, tmp_path):
    assert evaluate(Shifted(60, guided=True), data, flip_test=False).statistics["AP"] < 0.5
    file = "annotations/person_keypoints_val2017.json"
    (tmp_path / "annotations").mkdir()
    os.link(data / file, tmp_path / file)
    assert evaluate(Shifted(0), tmp_path).statistics["AP"] == pytest.approx(1)
    with pytest.raises(DataError, match="6 of 6 images are missing"):
        evaluate(Shifted(0, guided=True), tmp_path)


def test_untrained_tokenizer_reconstructs_nothing(data):
    torch.manual_seed(0)
    assert evaluate(posezoo.create_model(NAME), data).statistics["AP"] == 0


def test_file_without_usable_people_is_refused(data, tmp_path):
    truth = json.loads((data / "annotations/person_keypoints_val2017.json").read_text())
    for row in truth["annotations"]:
        row["bbox"][2] = 1
    file = tmp_path / "val.json"
    file.write_text(json.dumps(truth))
    with pytest.raises(DataError, match="no person in .*val.json has a labelled key"):
        evaluate(Shifted(0), data, annotations=file)
