"""The command line, run as a user would."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from families import registered, smaller
from goldens.fill import make_state, manifests
from PIL import Image
from standins.weights import SMALL, small_cfg

import posezoo
from posezoo import cli
from posezoo.files import sha256_of
from posezoo.synthetic import write_coco
from posezoo.weights.tensors import read_metadata
from posezoo.zoo import registry
from posezoo.zoo.catalog import DEFAULT_MODEL


def run(*args: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in args], catch_exceptions=False)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two rendered pictures, annotated and laid out as COCO is; each person is detected twice."""
    file = write_coco(tmp_path, 2, seed=6)
    detections = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": score}
        for person in json.loads(file.read_text())["annotations"]
        for score in (0.9, 0.3)
    ]
    (tmp_path / "det_AP_H_56.json").write_text(json.dumps(detections))
    file.rename(tmp_path / "truth.json")
    return tmp_path


@pytest.fixture
def photos(data) -> list[Path]:
    return sorted(data.rglob("*.jpg"))


@pytest.fixture
def counts(data) -> list[int]:
    """How many people each photo shows."""
    people = json.loads((data / "truth.json").read_text())["annotations"]
    return [sum(person["image_id"] == i for person in people) for i in (1, 2)]


def test_help_of_every_command_is_there_and_the_overview_is_complete():
    assert list(cli.main.commands) == [
        "list", "info", "predict", "app", "export", "demo", "eval", "train",
        "fetch", "convert", "verify", "push", "publish",
    ]  # fmt: skip
    for name, command in cli.main.commands.items():
        assert name in cli.__doc__ and command.help
        assert "Usage" in run(name, "--help").output
        assert all(p.help for p in command.params if p.param_type_name == "option"), name
    assert "evaluate and train" in run("-h").output
    assert posezoo.__version__ in run("--version").output


def test_list_filters_and_speaks_json():
    assert run("list", "uniformer_s_*").output.count("uniformer_s_") == 3
    rows = json.loads(run("list", "uniformer*", "--task", "classification", "--json").output)
    assert {r["name"] for r in rows} >= {"uniformer_small"} and rows[0]["params"] > 1e6
    assert "coco_official" in run("list", "--tags").output
    assert "no model matches" in run("list", "zebra*").output


def test_list_pretrained_means_fetched_without_hands():
    header, *rows = run("list", "--pretrained").output.splitlines()
    assert header.split() == [
        "name", "data", "input", "params", "GMACs", "reported", "licence", "weights"
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == posezoo.list_models(pretrained=True)
    text = "\n".join(rows)
    assert "by hand" not in text and "none" not in text and "pct_swin" not in text
    assert "in the package" in next(r for r in rows if r.startswith("pct_tokenizer_swin_base_wo"))
    everything = run("list").output
    assert "by hand: needs a browser" in everything and "none published" in everything


def test_list_as_json_has_terms_size_addresses_and_whether_pinned():
    rows = {r["name"]: r for r in json.loads(run("list", "--tags", "--json").output)}
    vitpose = rows["vitpose_b_simple_256x192.coco"]
    assert vitpose["pinned"] and vitpose["automatic"] and vitpose["address_kinds"] == ["hub"]
    assert vitpose["license"] == "apache-2.0" and vitpose["size"] == 4 * 85_912_337
    mmpose = rows["uniformer_s_256x192.coco"]
    assert not mmpose["pinned"] and mmpose["automatic"] and mmpose["address_kinds"] == ["https"]
    assert "COCO" in mmpose["data_terms"]
    by_hand = rows["pct_swin_base.coco"]
    assert not by_hand["automatic"] and by_hand["by_hand"] and by_hand["address_kinds"] == []
    assert rows["tmpose_b_256x192.coco"]["unavailable"]
    assert rows["hrnet_xs_128x96.rendered"]["address_kinds"] == ["package"]


def test_info_shows_recipe_licence_and_reported_numbers():
    output = run("info", "uniformer_s_256x192").output
    for word in ("reported", "AP 74.0", "bbox=det56.4", "apache-2.0", "25.23 M", "block_eps=1e-05",
                 "only 8 digits of the sha256 is published", "published by OpenMMLab, mmpose",
                 "https://download.openmmlab.com/mmpose/v1"):  # fmt: skip
        assert word in output
    assert json.loads(run("info", "uniformer_s_256x192", "--json").output)["tag"] == "coco"
    assert "block_eps=1e-06" in run("info", "uniformer_s_256x192.coco_official").output
    assert "in the package: hrnet_xs" in run("info", SMALL).output
    assert "published no weights" in run("info", "tmpose_b_256x192").output


def test_unknown_name_exits_2_with_one_line():
    result = run("info", "uniformer_s_256x193")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1 and "did you mean" in result.output


def test_convert_writes_a_model_and_refuses_files_that_do_not_fit(tmp_path):
    weights, folder = tmp_path / "tcformer.pth", tmp_path / "converted"
    state = make_state(manifests("tcformer")["tcformer_light"])
    torch.save({"state_dict": state}, weights)
    result = run("convert", weights, "--model", "tcformer_light", "--out", folder)
    assert result.exit_code == 0, result.output
    assert f"{len(state)} read, {len(state)} used, 0 ignored" in result.output
    written = folder / "model.safetensors"
    metadata = read_metadata(written)
    assert metadata["origin_sha256"] == sha256_of(weights)
    assert metadata["origin_check"] == "not the published file" and "origin_url" not in metadata
    assert f"output   sha256 {sha256_of(written)}" in result.output
    assert posezoo.create_model(f"local-dir:{folder}").origin["origin_file"] == weights.name

    small = tmp_path / "top_down-d4a7fdac_20230724.pth"
    torch.save(posezoo.create_model(SMALL).state_dict(), small)
    result = run("convert", small, "--model", SMALL, "--out", tmp_path / "x")
    assert result.exit_code == 1 and "promises d4a7fdac" in result.output
    small = small.rename(tmp_path / "small.pth")
    result = run("convert", small, "--model", "tokenpose_xs_128x96", "--out", tmp_path / "x")
    assert result.exit_code == 1 and f"looks like {SMALL}" in result.output
    assert not (tmp_path / "x").exists()


def test_file_that_is_not_the_published_one_never_becomes_the_default(tmp_path, hub):
    for name, words in [
        ("uniformer_s_256x192", "the published one d4a7fdac"),
        ("uniformer_small_plus_dim64", "no hash of it was published"),
    ]:
        random = tmp_path / f"{name}.pth"
        torch.save(posezoo.create_model(name).state_dict(), random)
        result = run("convert", random, "--model", name)
        assert result.exit_code == 1 and words in result.output and "--out FOLDER" in result.output
        assert not (tmp_path / "posezoo-cache" / "converted").exists()


def test_convert_recognises_the_set_of_weights(tmp_path, monkeypatch):
    weights, out = tmp_path / "x.pth", tmp_path / "out"
    torch.save(posezoo.create_model("tokenpose_xs_128x96").state_dict(), weights)
    result = run("convert", weights, "--out", out)
    assert result.exit_code == 0 and "model    tokenpose_xs_128x96.rendered" in result.output
    assert "no published hash to compare with" in result.output
    torch.save(posezoo.create_model(SMALL).state_dict(), weights)
    result = run("convert", weights, "--out", out)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    for name in (f"{SMALL}.rendered", "hrnet_xs_192x144.rendered", "--model NAME"):
        assert name in result.output
    known = small_cfg(original_sha256=sha256_of(weights))
    monkeypatch.setitem(registry.ARCHITECTURES[SMALL].cfgs, known.tag, known)
    result = run("convert", weights)  # by its hash, and as the default
    assert result.exit_code == 0 and f"model    {SMALL}.rendered" in result.output
    assert "sha256 as published" in result.output
    posezoo.create_model(SMALL, pretrained=True)
    torch.save({"x": torch.zeros(3)}, weights)
    assert "fits no registered model" in run("convert", weights).output
    tokenizer = "pct_tokenizer_swin_base_woimgguide"  # its other set has no weights
    torch.save(posezoo.create_model(tokenizer).state_dict(), weights)
    assert f"model    {tokenizer}.rendered" in run("convert", weights, "--out", out).output


def test_predict_has_a_default_model_that_is_fetched_without_hands():
    cfg = posezoo.get_pretrained_cfg(DEFAULT_MODEL)
    help_text = " ".join(run("predict", "--help").output.split())
    assert DEFAULT_MODEL in posezoo.list_models(pretrained=True) and DEFAULT_MODEL in help_text
    assert f"AP {100 * cfg.metrics.values['AP']:.1f}" in help_text
    assert f"{cfg.macs / 1e9:.1f} GMACs" in help_text
    assert f"{4 * cfg.params / 1e6:.0f} MB" in help_text
    assert inspect.signature(posezoo.PosePredictor).parameters["model"].default == DEFAULT_MODEL


def test_predict_writes_json_and_pictures(data, photos, counts, tmp_path):
    out, drawn = tmp_path / "out.jsonl", tmp_path / "drawn"
    result = run("predict", *photos, "--model", SMALL, "--boxes", data / "truth.json",
                 "--out", out, "--draw", drawn)  # fmt: skip
    assert result.exit_code == 0, result.output
    people = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(p["persons"]) for p in people] == counts
    assert len(people[0]["persons"][0]["keypoints"]) == 17
    assert sorted(p.name for p in drawn.iterdir()) == [p.with_suffix(".png").name for p in photos]
    for threshold, times in ((0, 2), (0.5, 1), (0.95, 0)):
        result = run("predict", photos[0], "--model", SMALL, "--boxes", data / "det_AP_H_56.json",
                     "--box-threshold", threshold, "--draw", tmp_path / "one.png")  # fmt: skip
        assert len(json.loads(result.stdout)["persons"]) == times * counts[0]
        assert (tmp_path / "one.png").is_file() and result.exit_code == 0


def test_pictures_of_photos_with_one_name_do_not_overwrite_each_other(photos, tmp_path):
    paths = [tmp_path / "a" / "1.jpg", tmp_path / "b" / "c" / "1.jpg"]
    for photo, path in zip(photos, paths):
        path.parent.mkdir(parents=True)
        photo.rename(path)
    common = ("--model", SMALL, "--whole-image", "--draw", tmp_path / "drawn")
    assert run("predict", *paths, *common).exit_code == 0
    drawn = {p.relative_to(tmp_path / "drawn") for p in (tmp_path / "drawn").rglob("*.png")}
    assert drawn == {Path("a/1.png"), Path("b/c/1.png")}
    twin = paths[0].with_suffix(".webp")
    twin.write_bytes(paths[0].read_bytes())
    assert run("predict", twin, twin, *common).exit_code == 0  # one photo, one picture
    assert (tmp_path / "drawn" / "1.png").is_file()
    assert run("predict", *paths, twin, *common).exit_code == 0
    assert {p.name for p in (tmp_path / "drawn" / "a").iterdir()} == {
        "1.png", "1.jpg.png", "1.webp.png",
    }  # fmt: skip
    third = twin.with_name("1.webp.webp")
    third.write_bytes(paths[0].read_bytes())
    result = run("predict", *paths, twin, third, *common)
    assert result.exit_code == 2 and "would both be written as 1.webp.png" in result.output


def test_draw_tokens_paints_a_row_for_each_person(data, photos, counts, tmp_path):
    name = "tcformer_mta_256x192"
    out, tokens = tmp_path / "out.jsonl", tmp_path / "tokens.png"
    with registered(smaller(name, size=(128, 96), depths=(1, 1, 1, 1))):
        posezoo.save_pretrained(posezoo.create_model(f"small_{name}"), tmp_path / "model")
        result = run("predict", photos[1], "--model", f"local-dir:{tmp_path / 'model'}", "--boxes",
                     data / "truth.json", "--out", out, "--draw-tokens", tokens)  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert set(found["parts"]) == {"body", "feet", "face", "left_hand", "right_hand"}
    assert [len(person["keypoints"]) for person in found["persons"]] == [133] * counts[1]
    picture = np.asarray(Image.open(tokens))
    assert picture.shape == (counts[1] * 256, 4 * 192, 3)
    columns = np.split(picture[:256], 4, axis=1)  # the crop, then ever fewer regions
    colours = [len(np.unique(c.reshape(-1, 3), axis=0)) for c in columns]
    assert colours == sorted(colours, reverse=True) and colours[-1] < 200 < colours[0]
    result = run("predict", photos[0], "--model", SMALL, "--whole-image", "--draw-tokens", tokens)
    assert result.exit_code == 2 and name in result.output


@pytest.mark.parametrize(
    "text",
    ["{", "5", '[{"image_id": 1}]', '{"a.jpg": [[1, 2]]}', '{"images": 1, "annotations": []}'],
)
def test_boxes_file_that_is_none(photos, tmp_path, text):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(text)
    result = run("predict", photos[0], "--model", SMALL, "--boxes", boxes)
    assert result.exit_code == 1 and "no boxes" in result.output


def _eval(data: Path, *options: object) -> Result:
    return run("eval", SMALL, "--checkpoint", _packaged(), "--data", data, "--annotations",
               data / "truth.json", "--device", "cpu", *options)  # fmt: skip


def _packaged() -> Path:
    cfg = posezoo.get_pretrained_cfg(SMALL)
    return Path(posezoo.__file__).parent / "assets" / cfg.source.packaged


@pytest.mark.parametrize("boxes", ["gt", "det56.4"])
def test_eval_prints_and_writes_a_record(data, counts, tmp_path, boxes):
    file = boxes if boxes == "gt" else data / "det_AP_H_56.json"
    result = _eval(data, "--boxes", file, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"bbox={boxes}" in result.output
    assert f"2 images, {sum(counts)} results" in result.output
    record = json.loads(result.output.splitlines()[-1])
    assert set(record["statistics"]) >= {"AP", "AR"}
    assert record == json.loads((tmp_path / "out" / "record.json").read_text())


def test_limit_is_marked_as_not_comparable(data):
    output = _eval(data, "--boxes", "gt", "--limit", 1).output
    assert "partial, not comparable" in output and "1 images" in output


def test_bad_images_are_named_and_decide_the_exit_status(data):
    (data / "val2017" / "000000000002.jpg").write_bytes(b"broken")
    for option, status in (((), 1), (("--skip-bad",), 0)):
        result = _eval(data, "--boxes", "gt", *option)
        assert result.exit_code == status
        assert "could not be used and count as empty: 1\n" in result.output
        named = [x for x in result.output.splitlines() if x.startswith("posezoo: not used:")]
        assert len(named) == 1 and "000000000002.jpg" in named[0]


def test_wrong_use_of_eval_is_named(data, tmp_path):
    result = run("eval", SMALL, "--data", tmp_path / "none")  # before weights are fetched
    assert result.exit_code == 2 and f"'{tmp_path / 'none'}' does not exist" in result.output
    result = run("eval", SMALL, "--data", tmp_path)
    assert result.exit_code == 1 and "person_keypoints_val2017.json" in result.output
    for option in ("--boxes", "--annotations"):
        result = run("eval", "vitpose_b_256x192", "--data", tmp_path, option, "mistyped.json")
        assert result.exit_code == 2 and "mistyped.json" in result.output
    boxes = tmp_path / "results.json"
    boxes.write_text("[]")
    result = _eval(data, "--boxes", boxes, "--out", tmp_path)
    assert result.exit_code == 2 and "written over the input" in result.output
    assert boxes.read_text() == "[]"
    result = _eval(data, "--shard", "half")
    assert result.exit_code == 2 and "valid: I/N, such as 0/4" in result.output


def test_info_shows_a_recipe_in_the_form_that_train_takes():
    from posezoo.training.recipes import RECIPES, get_recipe, override, settings_of

    assert "batch_size=" in run("info", SMALL, "--recipe").output
    fixed = ("model", "objective", "model_args", "start", "frozen")
    for name, recipe in RECIPES.items():
        pairs = {k: v for k, v in settings_of(recipe).items() if k not in fixed}
        assert override(get_recipe(name), pairs) == recipe


def test_shells_complete_the_names_of_models():
    from click.shell_completion import ShellComplete

    from posezoo.cli import main as command

    completed = ShellComplete(command, {}, "posezoo", "_POSEZOO_COMPLETE")
    for arguments in (["eval"], ["predict", "--model"], ["info"]):
        found = [item.value for item in completed.get_completions(arguments, "vitpose_b_")]
        assert "vitpose_b_256x192" in found and all(n.startswith("vitpose_b_") for n in found)
