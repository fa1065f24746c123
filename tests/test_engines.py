"""Exported networks in the predictor and in `eval`: the same keypoints on every engine."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation.made import make_coco
from families import example, small
from PIL import Image

import posezoo
from posezoo import PosePredictor
from posezoo.cli import main
from posezoo.codecs import build_codec
from posezoo.engines import programs
from posezoo.engines.cached import on_engine
from posezoo.engines.card import CARD_KEY, ProgramCard, read_card
from posezoo.engines.network import ExportedNetwork
from posezoo.engines.programs import open_exported
from posezoo.errors import CheckpointError, InputError
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.export import export_model

PHOTO = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
BOXES = np.array([[10, 10, 60, 80], [30, 5, 110, 85], [2, 3, 50, 60]], np.float32)
FAMILIES = [
    "hmp_swin_base", "hrnet_xs_128x96", "pct_swin_base", "tcformer_mta_256x192",
    "tmpose_b_256x192", "tokenpose_t_256x192", "uniformer_s_256x192", "vitpose_b_simple_256x192",
    "vitpose_plus_s_256x192",
]  # fmt: skip
ENGINES = [(".pt2", "torch"), (".onnx", "onnxruntime"), (".onnx", "openvino")]


@pytest.fixture(scope="module")
def model():
    return posezoo.create_model("hrnet_xs_128x96", pretrained=True)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    """An exported file, by its ending."""
    folder = tmp_path_factory.mktemp("exported")

    def make(suffix):
        path = folder / f"m{suffix}"
        if suffix == ".onnx":
            pytest.importorskip("onnxscript")
            pytest.importorskip("onnxruntime")
        if not path.exists():
            export_model(model, path)
        return path

    return make


def need(engine):
    if engine != "torch":
        pytest.importorskip(engine)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_engine_finds_the_keypoints_of_torch(name, tmp_path):
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    network = small(name)
    expected = PosePredictor(network, detector=None)(PHOTO, BOXES)
    for suffix, engine in ENGINES:
        if not (path := tmp_path / f"m{suffix}").exists():
            export_model(network, path)
        predictor = PosePredictor(path, detector=None, engine=engine, batch_size=2)
        found = predictor(PHOTO, BOXES)
        # the Newton step of random heatmaps may end anywhere, and then follows the last bit
        inside = np.abs(expected.keypoints).max(axis=-1) < 150
        assert inside.mean() > 0.5
        np.testing.assert_allclose(
            found.keypoints[inside], expected.keypoints[inside], atol=0.05, err_msg=engine
        )
        np.testing.assert_allclose(
            found.keypoint_scores, expected.keypoint_scores, rtol=1e-3, atol=1e-4, err_msg=engine
        )
        assert predictor.cfg == network.pretrained_cfg


@pytest.mark.parametrize("suffix,engine", ENGINES)
def test_file_alone_says_how_to_crop_and_decode(model, file, suffix, engine):
    need(engine)
    predictor = PosePredictor(str(file(suffix)), engine=engine, batch_size=2)
    expected, found = PosePredictor(model)(PHOTO, BOXES), predictor(PHOTO, BOXES)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.01)
    np.testing.assert_allclose(found.keypoint_scores, expected.keypoint_scores, rtol=1e-3)
    assert predictor.cfg == model.pretrained_cfg
    assert predictor.model.origin == model.origin and predictor.model.engine == engine
    assert predictor.device == torch.device("cpu") and not list(predictor.model.parameters())


def test_outputs_keep_the_names_that_the_codec_asks_for():
    network = small("pct_swin_base")
    images = torch.randn(3, 3, 256, 256)
    output = network(images)
    card = ProgramCard(
        cfg=network.pretrained_cfg, size=17, outputs=output._fields, settings={}, origin={}
    )
    card = read_card(card.to_text(), None)
    exported = ExportedNetwork(card, lambda x: tuple(network(x)), "torch", torch.float32)
    found, scores = build_codec(exported.pretrained_cfg).decode(exported(images))
    assert torch.equal(found, output.keypoints) and scores.shape == (3, 17)


def test_other_readers_find_crop_and_keypoints_in_the_metadata(file):
    onnx = pytest.importorskip("onnx")
    entries = onnx.load(file(".onnx")).metadata_props
    card = json.loads({entry.key: entry.value for entry in entries}[CARD_KEY])
    assert card["cfg"]["input"]["mean"] == [0.485, 0.456, 0.406]
    assert card["keypoints"][0] == "nose" and len(card["keypoints"]) == card["size"] == 17
    assert card["outputs"] == ["heatmaps"]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_info_shows_what_a_file_holds(model, file, suffix, tmp_path):
    told = CliRunner().invoke(main, ["info", str(file(suffix))])
    assert told.exit_code == 0, told.output
    for words in (
        "hrnet_xs_128x96.rendered: ", "task        pose, coco", "input       128x96 (HxW)",
        "skeleton    coco, 17 keypoints", "decode      heatmap, dark", "dtype       float32",
        "weights     in the file, from hrnet_xs", model.origin["origin_sha256"],
    ):  # fmt: skip
        assert words in told.output, told.output
    told = CliRunner().invoke(main, ["info", str(file(suffix)), "--json"])
    assert json.loads(told.output) == model.pretrained_cfg.to_dict()


def test_info_of_random_weights_reports_nothing(tmp_path):
    with example() as name:
        export_model(posezoo.create_model(name), tmp_path / "m.pt2")
    told = CliRunner().invoke(main, ["info", str(tmp_path / "m.pt2")]).output
    assert "in the file, from a model without a file" in told
    assert "reported" not in told and "addresses" not in told


def test_info_of_a_file_that_posezoo_did_not_write_is_refused_as_in_predict(tmp_path):
    program = torch.export.export(torch.nn.Conv2d(3, 4, 1), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "other.pt2")
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    told = [
        CliRunner().invoke(main, [*command, str(tmp_path / "other.pt2")])
        for command in (["info"], ["predict", str(tmp_path / "photo.png"), "--model"])
    ]
    assert "was not written by posezoo: it has no metadata" in told[0].output
    assert told[0].exit_code == told[1].exit_code == 1 and told[0].output == told[1].output


def test_openvino_computes_in_bfloat16(model, file):
    pytest.importorskip("openvino")
    images = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        expected = model(images)
    for dtype, low, high in (("float32", 0, 1e-4), ("bfloat16", 1e-3, 1)):
        found = open_exported(file(".onnx"), engine="openvino", dtype=dtype)(images)
        assert found.dtype == torch.float32
        assert low <= float((found - expected).abs().max() / expected.std()) < high


def test_model_is_exported_once(tmp_path):
    with example() as name:
        model = posezoo.create_model(name)
    first = on_engine(model, "torch", cache_dir=tmp_path)
    (path,) = (tmp_path / "exported").glob(f"{name}.coco-*.pt2")
    written = path.stat().st_mtime_ns
    assert on_engine(torch.nn.DataParallel(model), "torch", cache_dir=tmp_path).engine == "torch"
    assert path.stat().st_mtime_ns == written
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    second = on_engine(model, "torch", cache_dir=tmp_path)
    images = torch.randn(1, 3, 64, 48)
    assert not torch.equal(first(images), second(images))


def test_foreign_and_damaged_files_are_refused(file, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    program = onnx.load(file(".onnx"))
    texts = {entry.key: entry.value for entry in program.metadata_props}
    del program.metadata_props[:]
    foreign = tmp_path / "foreign.onnx"
    onnx.save(program, foreign)
    assert runtime.InferenceSession(foreign)
    for engine in ("onnxruntime", "openvino"):
        need(engine)
        with pytest.raises(CheckpointError, match="foreign.onnx was not written by posezoo"):
            PosePredictor(foreign, engine=engine)
    card = json.loads(texts[CARD_KEY])
    card["cfg"]["input"]["size"] = [256, 192]
    onnx.helper.set_model_props(program, {CARD_KEY: json.dumps(card)})
    onnx.save(program, foreign)
    with pytest.raises(CheckpointError, match=r"takes images of \(128, 96\).*name \(256, 192\)"):
        PosePredictor(foreign)
    (tmp_path / "broken.onnx").write_bytes(file(".onnx").read_bytes()[:1000])
    (tmp_path / "broken.pt2").write_bytes(b"PK")
    for name in ("broken.onnx", "broken.pt2"):
        with pytest.raises(CheckpointError, match=f"cannot open .*{name}: "):
            PosePredictor(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no file"):
        PosePredictor(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match="damaged or of another version.*KeyError"):
        read_card("{}", tmp_path)


def test_what_an_engine_does_not_have_is_said_before_anything_is_loaded(file, model):
    pytest.importorskip("onnxruntime")
    name = "vitpose_plus_h_256x192"  # whose weights would have to be fetched
    with pytest.raises(InputError, match="engine is 'tensorrt'; valid: torch, onnxruntime, openv"):
        PosePredictor(name, engine="tensorrt")
    with pytest.raises(InputError, match="onnxruntime does not compute in bfloat16; valid: float3"):
        PosePredictor(name, engine="onnxruntime", dtype="bfloat16")
    with pytest.raises(InputError, match="an exported network in torch does not compute in float"):
        PosePredictor(file(".pt2"), dtype="float64")
    with pytest.raises(InputError, match="engine onnxruntime takes .onnx files, got 'm.pt2'"):
        PosePredictor(file(".pt2"), engine="onnxruntime")
    with pytest.raises(InputError, match="is not compiled again"):
        PosePredictor(file(".pt2"), compile=True)
    with pytest.raises(InputError, match="device is meta, and an exported network runs on the CPU"):
        PosePredictor(file(".pt2"), device="meta")
    network = open_exported(file(".pt2"))
    with pytest.raises(InputError, match="opened in torch with float32, and engine is 'openvino'"):
        PosePredictor(network, engine="openvino")
    for images, words in (
        (torch.zeros(1, 3, 256, 192), r"shape \(B, 3, 128, 96\), got \(1, 3, 256, 192\)"),
        (torch.zeros(1, 3, 128, 96, dtype=torch.float64), "images are torch.float64 on cpu"),
    ):
        with pytest.raises(InputError, match=words):
            network(images)
    with pytest.raises(InputError, match="takes poses"):
        on_engine(posezoo.create_model("pct_tokenizer_swin_base_woimgguide"), "onnxruntime")


def test_missing_package_names_the_extra(monkeypatch):
    missing = programs.Engine(
        package="no_such_package", suffix=".x", dtypes=(torch.float32,), open=None
    )
    monkeypatch.setitem(programs.ENGINES, "openvino", missing)
    with pytest.raises(InputError, match=r"openvino needs more .*pip install 'posezoo\[no_such"):
        PosePredictor("vitpose_plus_h_256x192", engine="openvino")


def test_predict_command_takes_an_exported_file_and_an_engine(file, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    common = ["predict", str(tmp_path / "a.png"), "--whole-image"]

    def poses(*arguments):
        result = CliRunner().invoke(main, [*common, *arguments])
        assert result.exit_code == 0, result.output
        return np.array(json.loads(result.stdout.splitlines()[0])["persons"][0]["keypoints"])

    expected = poses("--model", "hrnet_xs_128x96")
    np.testing.assert_allclose(poses("--model", str(file(".pt2"))), expected, atol=0.01)
    onnx = str(file(".onnx"))
    np.testing.assert_allclose(poses("--model", onnx), expected, atol=0.01)
    result = CliRunner().invoke(main, [*common, "--model", onnx, "--checkpoint", onnx])
    assert result.exit_code == 2 and "holds its weights; leave --checkpoint out" in result.output
    result = CliRunner().invoke(main, [*common, "--model", onnx, "--dtype", "float64"])
    assert result.exit_code == 2 and "does not compute in float64" in result.output


def test_eval_runs_an_exported_network_and_the_record_names_its_engine(model, file, tmp_path):
    pytest.importorskip("onnxruntime")
    data = make_coco(tmp_path / "coco", images=6)
    settings = EvaluationSettings(boxes="gt")
    expected = evaluate_model(model, data, settings)
    run = RunOptions(out=tmp_path / "out")
    found = evaluate_model(file(".onnx"), data, settings, run)
    assert found.settings == {**expected.settings, "engine": "onnxruntime"}
    assert expected.settings["engine"] == "torch"
    assert "  float32  onnxruntime  6 images" in found.table().splitlines()[0]
    assert found.weights == expected.weights and found.labels == expected.labels
    for name, value in expected.statistics.items():
        assert found.statistics[name] == pytest.approx(value, abs=1e-3)
    with pytest.raises(InputError, match="onnxruntime does not compute in bfloat16"):
        evaluate_model(model, data, EvaluationSettings(dtype="bfloat16", engine="onnxruntime"))


def test_classifier_is_evaluated_on_an_engine(tmp_path):
    network = small("uniformer_small_plus", num_classes=3)
    (images,) = network.example_inputs(2)
    export_model(network, tmp_path / "m.pt2")
    exported = open_exported(tmp_path / "m.pt2")
    assert (exported.num_classes, exported.num_keypoints) == (3, 0)
    torch.testing.assert_close(exported(images), network(images).detach(), rtol=1e-4, atol=1e-5)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "val" / name).mkdir(parents=True)
        noise = rng.integers(0, 255, (70, 80, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "val" / name / "x.png")
    found, expected = (evaluate_model(m, tmp_path) for m in (exported, network))
    assert found.statistics["loss"] == pytest.approx(expected.statistics["loss"], rel=1e-4)
    with pytest.raises(InputError, match="shape|not a pose model"):
        PosePredictor(exported)
