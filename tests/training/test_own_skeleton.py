"""Fine-tuning on keypoints of one's own, from the JSON file to named results."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from families import on_meta
from PIL import Image

import posezoo
from posezoo import Skeleton
from posezoo.cli import main
from posezoo.errors import DataError, InputError
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.synthetic import write_coco
from posezoo.training import get_recipe, loop
from posezoo.training.start import fill, give_skeleton
from training.left import log_of

STICK = {
    "name": "stick",
    "keypoint_names": ["head_top", "left_wrist", "right_wrist", "left_ankle", "right_ankle"],
    "sigmas": [0.05, 0.06, 0.06, 0.09, 0.09],
    "flip_pairs": [["left_wrist", "right_wrist"], ["left_ankle", "right_ankle"]],
    "limbs": [["head_top", "left_wrist"], ["head_top", "right_wrist"]],
}
RECIPE = dataclasses.replace(get_recipe("hrnet_xs_128x96"), epochs=1, batch_size=4, dtype="float32")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("skeleton") / "stick.json"
    path.write_text(json.dumps(STICK))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, file):
    folder = tmp_path_factory.mktemp("own")
    skeleton = Skeleton.from_json(file)
    write_coco(folder, 5, seed=1, size=(128, 128), split="train2017", skeleton=skeleton)
    write_coco(folder, 3, seed=2, size=(128, 128), skeleton=skeleton)
    return folder


def _written(tmp_path, **changes):
    path = tmp_path / "changed.json"
    path.write_text(json.dumps({k: v for k, v in (STICK | changes).items() if v is not None}))
    return path


def _changed_data(data, tmp_path, change):
    """A copy of the folder without images, its two files changed."""
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).symlink_to(data / split)
        name = f"person_keypoints_{split}.json"
        content = json.loads((data / "annotations" / name).read_text())
        change(content)
        (tmp_path / "annotations" / name).write_text(json.dumps(content))
    return tmp_path


def test_skeleton_is_read_by_names(file):
    skeleton = Skeleton.from_json(file)
    assert skeleton.keypoint_names == tuple(STICK["keypoint_names"])
    assert skeleton.flip_pairs == ((1, 2), (3, 4)) and skeleton.limbs == ((0, 1), (0, 2))
    assert skeleton.sigmas == tuple(STICK["sigmas"]) and skeleton.parts == {"body": (0, 5)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"name": "coco"}, "none of coco"), ({"name": 3}, "name is 3"),
     ({"limbs": None}, "valid: flip_pairs, keypoint_names, limbs"),
     ({"limbs": [["head_top", "tail"]]}, r"limbs has \['head_top', 'tail'\]"),
     ({"flip_pairs": [["left_wrist"]]}, "flip_pairs has"), ({"flip_pairs": 3}, "pairs of names"),
     ({"flip_pairs": [["left_wrist", "right_wrist"], ["left_wrist", "head_top"]]}, "two flip"),
     ({"sigmas": [0.1] * 4}, "4 sigmas"), ({"sigmas": [0.1] * 4 + [0]}, "above 0"),
     ({"sigmas": "x"}, "list of numbers"), ({"keypoint_names": []}, "a list of names"),
     ({"keypoint_names": ["head_top"] * 5, "flip_pairs": [], "limbs": []}, "same name")],
)  # fmt: skip
def test_wrong_skeleton_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        Skeleton.from_json(_written(tmp_path, **changes))


def test_missing_and_broken_skeleton_files_are_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "absent.json"):
        with pytest.raises(InputError, match=f"cannot read .*{name}"):
            Skeleton.from_json(tmp_path / name)


def test_skeleton_survives_the_configuration(file):
    skeleton = Skeleton.from_json(file)
    cfg = posezoo.get_pretrained_cfg("hrnet_xs_128x96")
    own = dataclasses.replace(cfg, dataset="stick", own_skeleton=skeleton)
    again = posezoo.PretrainedCfg.from_dict(json.loads(json.dumps(own.to_dict())))
    assert again == own and again.skeleton == skeleton
    assert cfg.own_skeleton is None and cfg.skeleton == posezoo.get_skeleton("coco")


def test_command_fine_tunes_and_its_weights_give_named_keypoints(data, file, tmp_path, caplog):
    out = tmp_path / "run"
    command = ["train", "hrnet_xs_128x96", "--init", "hrnet_xs_128x96", "--skeleton", file]
    settings = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "dtype=float32"]
    with caplog.at_level("INFO"):
        result = CliRunner().invoke(
            main, [str(a) for a in (*command, "--data", data, "--out", out, *settings)]
        )
    assert result.exit_code == 0, result.output
    assert "AP " in result.output
    told = [r.message for r in caplog.records if "people in 5 images" in r.message]
    assert told and "of 5 keypoints labelled on average" in told[0]
    model = posezoo.create_model(f"local-dir:{out / 'best'}", pretrained=True)
    predictor = posezoo.PosePredictor(model, detector=None)
    assert predictor.skeleton == Skeleton.from_json(file)
    found = predictor(Image.new("RGB", (60, 90)))
    assert found.keypoints.shape == (1, 5, 2)
    assert found.skeleton.keypoint_names == tuple(STICK["keypoint_names"])
    record = evaluate_model(
        model, data, EvaluationSettings(boxes="gt"), RunOptions(device="cpu", workers=1)
    )
    assert record is not None and record.dataset == "stick"
    assert record.statistics["AP"] == pytest.approx(log_of(out)[-1]["AP"], abs=1e-6)


def test_trunk_comes_from_the_start_and_the_head_is_fresh(file):
    """Also where there happen to be as many keypoints as in the start."""
    donor = posezoo.create_model("hrnet_xs_128x96", pretrained=True)
    seventeen = Skeleton(
        name="line", keypoint_names=tuple(f"p{i}" for i in range(17)), flip_pairs=(),
        sigmas=(0.1,) * 17, limbs=(), parts={"body": (0, 17)},
    )  # fmt: skip
    for skeleton in (Skeleton.from_json(file), seventeen):
        model = posezoo.create_model(RECIPE.model)
        fill(model, RECIPE, "hrnet_xs_128x96")
        give_skeleton(model, skeleton)
        heads = [dict(m.head.named_parameters()) for m in (model, donor)]
        assert torch.equal(model.trunk.conv1.weight, donor.trunk.conv1.weight)
        assert not any(
            v.ndim > 1 and v.shape == heads[1][k].shape and torch.equal(v, heads[1][k])
            for k, v in heads[0].items()
        )
        assert model.num_keypoints == skeleton.num_keypoints
        assert model.pretrained_cfg.metrics is None and model.pretrained_cfg.tag == ""


@pytest.mark.parametrize("name", ["pct_swin_base", "uniformer_small"])
def test_model_without_a_head_for_keypoints_is_refused(name, file):
    model = on_meta(name)
    with pytest.raises(InputError, match=f"{name} has no head to replace"):
        give_skeleton(model, Skeleton.from_json(file))


def test_run_of_another_skeleton_is_not_continued(data, file, tmp_path):
    first = Skeleton.from_json(file)
    other = dataclasses.replace(first, sigmas=(0.1,) * 5)
    loop.train(RECIPE, data, tmp_path, skeleton=first, device="cpu", stop_after=1)
    with pytest.raises(InputError, match="another skeleton"):
        loop.train(RECIPE, data, tmp_path, skeleton=other, device="cpu")


def _unlabel(content):
    for row in content["annotations"]:
        row |= {"keypoints": [0] * 15, "num_keypoints": 0}


def _rename(content):
    content["categories"][0]["keypoints"][1] = "left_hand"


def _shorten(content):
    for row in content["annotations"]:
        row["keypoints"] = row["keypoints"][:12]


@pytest.mark.parametrize(
    ("change", "message"),
    [(_unlabel, "nothing to learn from"), (_rename, "left_hand.* both need the same"),
     (_shorten, "keypoints"), (lambda c: c.pop("annotations"), "lists 'images' and 'annotations'")],
)  # fmt: skip
def test_data_that_does_not_fit_the_skeleton_is_refused(data, file, tmp_path, change, message):
    folder = _changed_data(data, tmp_path, change)
    with pytest.raises(DataError, match=message):
        loop.train(RECIPE, folder, tmp_path / "run", skeleton=Skeleton.from_json(file))
    assert not (tmp_path / "run").exists()


def test_keypoint_that_nobody_has_is_named(data, file, tmp_path, caplog):
    def forget_the_head(content):
        for row in content["annotations"]:
            row["keypoints"][:3] = [0, 0, 0]
            row["num_keypoints"] = sum(v > 0 for v in row["keypoints"][2::3])

    folder = _changed_data(data, tmp_path, forget_the_head)
    with caplog.at_level("INFO"):
        loop.train(
            RECIPE, folder, tmp_path / "run", skeleton=Skeleton.from_json(file), device="cpu",
            stop_after=1,
        )  # fmt: skip
    assert any("nobody has head_top labelled" in record.message for record in caplog.records)


def test_flip_swaps_own_pairs(file):
    """The mirrored half of the flip test is un-mirrored by the pairs of the file."""
    model = posezoo.create_model("hrnet_xs_128x96")
    give_skeleton(model, Skeleton.from_json(file))
    codec = posezoo.build_codec(model.pretrained_cfg)
    maps = torch.zeros(1, 5, 32, 24)
    maps[0, 1, 4, 5] = 1
    mirrored = torch.zeros_like(maps)
    mirrored[0, 2, 4, 24 - 1 - 5 + model.pretrained_cfg.decode.shift_heatmap] = 1
    points, scores = codec.decode(codec.merge_flip(maps, mirrored))
    assert scores[0, 1].item() == pytest.approx(1) and scores[0, 2].item() < 0.5
    np.testing.assert_allclose(points[0, 1] / 4, [5, 4], atol=0.5)
