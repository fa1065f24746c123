"""The command line, run as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import posezoo
from posezoo.cli.commands import main


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Stand-in weights of the authors' form, as a pickle."""
    from goldens.fill import make_state, manifests

    path = tmp_path_factory.mktemp("weights") / "uniformer.pth"
    torch.save({"state_dict": make_state(manifests("uniformer")["uniformer_s_256x192"])}, path)
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """Two pictures with COCO annotations and detections."""
    noise = np.random.default_rng(0)
    keypoints = [[float(20 + 5 * k), float(30 + 4 * k), 2] for k in range(17)]
    images, annotations, detections = [], [], []
    for i in (7, 12):
        Image.fromarray(noise.integers(0, 255, (150, 140, 3), np.uint8)).save(
            tmp_path / f"{i:012d}.jpg"
        )
        images.append({"id": i, "file_name": f"{i:012d}.jpg", "width": 140, "height": 150})
        annotations.append(
            {"id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 9000.0,
             "bbox": [10, 20, 100, 110], "keypoints": sum(keypoints, []), "num_keypoints": 17}
        )  # fmt: skip
        detections += [
            {"image_id": i, "category_id": 1, "bbox": [8, 18, 105, 112], "score": 0.9},
            {"image_id": i, "category_id": 1, "bbox": [40, 40, 50, 60], "score": 0.3},
        ]
    categories = [{"id": 1, "name": "person"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "det_AP_H_56.json").write_text(json.dumps(detections))
    return tmp_path


def test_list_filters_and_speaks_json():
    assert run("list", "uniformer_s_*").output.count("uniformer_s_") == 3
    rows = json.loads(run("list", "uniformer*", "--task", "classification", "--json").output)
    assert {r["name"] for r in rows} >= {"uniformer_small"} and rows[0]["params"] > 1e6
    assert "coco_official" in run("list", "--tags").output
    assert "no model matches" in run("list", "zebra*").output


def test_info_shows_recipe_licence_and_reported_numbers():
    output = run("info", "uniformer_s_256x192").output
    for word in ("reported", "AP 74.0", "bbox=det56.4", "apache-2.0", "25.23 M", "block_eps=1e-05"):
        assert word in output
    assert json.loads(run("info", "uniformer_s_256x192", "--json").output)["tag"] == "coco"
    assert "block_eps=1e-06" in run("info", "uniformer_s_256x192.coco_official").output


def test_unknown_name_exits_2_with_one_line():
    result = run("info", "uniformer_s_256x193")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1 and "did you mean" in result.output


def test_convert_then_predict_and_eval(weights, data, tmp_path):
    folder = tmp_path / "converted"
    result = run("convert", weights, "--model", "uniformer_s_256x192", "--out", folder)
    assert result.exit_code == 0, result.output
    assert "352 read, 352 used, 0 ignored" in result.output
    metadata = posezoo.weights.files.read_metadata(folder / "model.safetensors")
    assert metadata["origin_sha256"] == posezoo.weights.files.sha256_of(weights)

    photos = sorted(data.glob("*.jpg"))
    out, drawn = tmp_path / "out.json", tmp_path / "drawn"
    result = run("predict", *photos, "--model", f"local-dir:{folder}", "--boxes",
                 data / "truth.json", "--out", out, "--draw", drawn)  # fmt: skip
    assert result.exit_code == 0, result.output
    people = json.loads(out.read_text())
    assert [len(p["persons"]) for p in people] == [1, 1]
    assert len(people[0]["persons"][0]["keypoints"]) == 17
    assert sorted(p.name for p in drawn.iterdir()) == [p.with_suffix(".png").name for p in photos]

    for boxes, source, count in [("gt", "gt", 2), (data / "det_AP_H_56.json", "det56.4", 4)]:
        result = run("eval", f"local-dir:{folder}", "--data", data, "--annotations",
                     data / "truth.json", "--boxes", boxes, "--out", tmp_path / source)  # fmt: skip
        assert result.exit_code == 0, result.output
        assert f"bbox={source}" in result.output and f"{count} results" in result.output
        record = json.loads(result.output.splitlines()[-1])
        assert set(record["statistics"]) >= {"AP", "AR"}
        assert record == json.loads((tmp_path / source / "record.json").read_text())
        assert len(json.loads((tmp_path / source / "results.json").read_text())) <= count


def test_draw_tokens_paints_a_row_for_each_person(data, tmp_path):
    name = "tcformer_mta_256x192"
    posezoo.save_pretrained(posezoo.create_model(name), tmp_path / "model")
    photo = sorted(data.glob("*.jpg"))[1]  # two detections
    out, tokens = tmp_path / "out.json", tmp_path / "tokens.png"
    result = run("predict", photo, "--model", f"local-dir:{tmp_path / 'model'}", "--boxes",
                 data / "det_AP_H_56.json", "--out", out, "--no-flip-test",
                 "--draw-tokens", tokens)  # fmt: skip
    assert result.exit_code == 0, result.output
    (found,) = json.loads(out.read_text())
    assert set(found["parts"]) == {"body", "feet", "face", "left_hand", "right_hand"}
    assert [len(person["keypoints"]) for person in found["persons"]] == [133, 133]
    picture = np.asarray(Image.open(tokens))
    assert picture.shape == (2 * 512, 4 * 384, 3)
    columns = np.split(picture[:512], 4, axis=1)  # the crop, then ever fewer regions
    colours = [len(np.unique(c.reshape(-1, 3), axis=0)) for c in columns]
    assert colours == sorted(colours, reverse=True) and colours[-1] < 200 < colours[0]


def test_draw_tokens_is_refused_where_tokens_are_no_regions(weights, data):
    result = run("predict", *data.glob("*.jpg"), "--model", "uniformer_s_256x192", "--checkpoint",
                 weights, "--whole-image", "--draw-tokens", "tokens.png")  # fmt: skip
    assert result.exit_code == 2 and "tcformer_mta_256x192" in result.output


def test_limit_is_marked_as_not_comparable(weights, data):
    result = run("eval", "uniformer_s_256x192", "--checkpoint", weights, "--data", data,
                 "--annotations", data / "truth.json", "--boxes", "gt", "--limit", 1)  # fmt: skip
    assert "partial, not comparable" in result.output and "1 images" in result.output


def test_one_bad_photo_is_reported_and_the_others_done(weights, data, tmp_path):
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"not a picture")
    boxes = tmp_path / "boxes.json"
    good = sorted(data.glob("*.jpg"))[0]
    boxes.write_text(json.dumps({good.name: [[5, 5, 90, 100]], bad.name: [[1, 1, 9, 9]]}))
    result = run("predict", bad, good, "--model", "uniformer_s_256x192", "--checkpoint", weights,
                 "--boxes", boxes, "--out", tmp_path / "out.json")  # fmt: skip
    assert result.exit_code == 1 and "broken.jpg" in result.output
    first, second = json.loads((tmp_path / "out.json").read_text())
    assert "error" in first and len(second["persons"]) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "no boxes"), ("5", "no boxes"), ('[{"image_id": 1}]', "no boxes"),
     ('{"a.jpg": [[1, 2]]}', "no boxes"), ('{"images": 1, "annotations": []}', "no boxes")],
)  # fmt: skip
def test_boxes_file_that_is_none(weights, data, tmp_path, text, words):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(text)
    photo = sorted(data.glob("*.jpg"))[0]
    result = run("predict", photo, "--model", "uniformer_s_256x192", "--boxes", boxes)
    assert result.exit_code == 1 and words in result.output


def test_convert_refuses_a_file_that_does_not_fit(weights, tmp_path):
    result = run("convert", weights, "--model", "uniformer_b_256x192", "--out", tmp_path / "x")
    assert result.exit_code == 1 and "looks like uniformer_s_256x192" in result.output
    assert not (tmp_path / "x").exists()
    renamed = tmp_path / "top_down-d4a7fdac_20230724.pth"
    renamed.write_bytes(weights.read_bytes())
    result = run("convert", renamed, "--model", "uniformer_s_256x192", "--out", tmp_path / "x")
    assert result.exit_code == 1 and "promises d4a7fdac" in result.output


def test_bad_images_are_named_and_decide_the_exit_status(data, tmp_path):
    (data / "000000000012.jpg").write_bytes(b"broken")
    arguments = ("eval", "hrnet_xs_128x96.rendered", "--data", data, "--annotations",
                 data / "truth.json", "--boxes", "gt", "--device", "cpu")  # fmt: skip
    for option, status in (((), 1), (("--skip-bad",), 0)):
        result = run(*arguments, *option)
        assert result.exit_code == status
        assert "could not be used and count as empty: 1\n" in result.output
        named = [x for x in result.output.splitlines() if x.startswith("posezoo: not used:")]
        assert len(named) == 1 and "000000000012.jpg" in named[0]


def test_eval_says_which_file_it_misses(weights, tmp_path):
    result = run("eval", "uniformer_s_256x192", "--checkpoint", weights, "--data", tmp_path)
    assert result.exit_code == 1 and "person_keypoints_val2017.json" in result.output


def test_help_of_every_command_mentions_its_options():
    for command in ("list", "info", "predict", "convert", "eval"):
        result = run(command, "--help")
        assert result.exit_code == 0 and "Usage" in result.output
