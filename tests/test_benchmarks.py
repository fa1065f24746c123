"""The table of published rows, the documents made from it, and the scripts beside it."""

from __future__ import annotations

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import posezoo

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PUBLISHED = json.loads((BENCHMARKS / "published.json").read_text())
ROWS, PROTOCOLS = PUBLISHED["rows"], PUBLISHED["protocols"]
VALIDATE = BENCHMARKS / "validate.py"
SCRIPTS = sorted(p for p in BENCHMARKS.glob("*.py") if "__main__" in p.read_text())


def _load(name: str):
    if str(BENCHMARKS) not in sys.path:  # scripts import their neighbours
        sys.path.append(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def validate():
    return _load("validate")


def test_every_row_has_one_name_and_a_registered_model_or_a_reason():
    assert len({row["row"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        if row["model"] is None:
            assert row["no_command"].endswith("."), row["row"]
        else:
            assert posezoo.is_model(row["model"])


def test_every_evaluable_model_has_a_row():
    models = {row["model"] for row in ROWS}
    wanted = set(posezoo.list_models(task="pose", tags=True))
    wanted |= set(posezoo.list_models(task="classification", tags=True))
    ours = ("rendered", "bodies")
    missing = {n for n in wanted - models if posezoo.get_pretrained_cfg(n).tag not in ours}
    assert not missing


def test_rows_are_complete_and_say_what_is_unknown():
    for row in ROWS:
        assert row["source"].startswith("https://") and 0 < row["tolerance"] < 0.01
        assert row["status"] in ("reported", "not confirmed", "third party", "unknown")
        assert (row["status"] == "unknown") == (set(row["values"].values()) == {None})
        assert row["protocol"] in PROTOCOLS or "no_command" in row, row["row"]
        columns = set(row["values"]) | set(row.get("costs", ()))
        assert set(row.get("not_compared", ())) <= columns


@pytest.mark.parametrize("row", [r for r in ROWS if r["model"]], ids=lambda r: r["row"])
def test_row_agrees_with_the_configuration_of_its_model(row):
    cfg, protocol = posezoo.get_pretrained_cfg(row["model"]), PROTOCOLS[row["protocol"]]
    assert row["dataset"] == cfg.dataset
    assert protocol["bbox_padding"] == cfg.input.bbox_padding
    assert protocol["geometry"] == cfg.input.geometry
    if cfg.decode:
        assert protocol["decoding"] == cfg.decode.refine
        assert ("shifted by one cell" in protocol["flip_test"]) == cfg.decode.shift_heatmap
    if row["status"] == "reported" and cfg.metrics and "no_command" not in row:
        for name, value in cfg.metrics.values.items():
            assert row["values"].get(name) == value, name


def test_printed_sizes_and_costs_are_those_of_the_registry_unless_noted(validate):
    lines = [line for row in ROWS for line in validate.judge(row, None, "", [])]
    costs = [line for line in lines if line["metric"] in ("params (M)", "GMACs")]
    assert len(costs) > 20 and {line["verdict"] for line in costs} == {"PASS", "not compared"}


ROW = {
    "row": "r", "model": "uniformer_s_256x192.coco", "boxes": "gt", "tolerance": 0.002,
    "values": {"AP": 0.74, "AR": 0.8, "AP75": None}, "status": "reported", "not_compared": ["AR"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("ap", "status", "labels", "verdict"),
    [
        (0.742, "reported", [], "PASS"),
        (0.7379, "reported", [], "FAIL"),
        (0.7379, "third party", [], "differs (third party)"),
        (0.742, "not confirmed", [], "PASS"),
        (0.742, "reported", ["partial, not comparable: 4 images"], "partial, not comparable"),
        (0.742, "reported", ["not the published file (weights: x)"], "not the published file"),
    ],
)
def test_verdicts(validate, ap, status, labels, verdict):
    found = {"AP": ap, "AR": 0.1, "AP75": 0.5}
    lines = validate.judge(ROW | {"status": status}, found, "", labels)
    assert [line["verdict"] for line in lines] == [
        verdict,
        verdict if labels else "not compared",
        "no published value",
    ]


def test_report_prints_only_the_published_file_over_the_whole_set():
    is_row = _load("report").is_row
    model = "hrnet_xs_128x96.rendered"
    pinned = posezoo.get_pretrained_cfg(model).source.sha256
    record = {"model": model, "labels": [], "weights": {"origin_sha256": pinned}}
    assert is_row(record)
    assert not is_row(record | {"labels": ["partial, not comparable: 4 of 5000 images"]})
    assert not is_row(record | {"weights": {"origin_sha256": "0" * 64}})
    assert not is_row({"model": model, "weights": {}})


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script of the folder with arguments; give exit status, output and errors."""

    def run(script: Path, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(script), run_name="__main__")
        return int(done.value.code or 0), *capsys.readouterr()

    return run


def test_validate_refuses_a_missing_folder_before_it_fetches_weights(run_script, tmp_path):
    status, out, errors = run_script(VALIDATE, "all", "--data", tmp_path / "none")
    assert status == 2 and "is no folder" in errors


def test_validate_says_why_rows_cannot_be_measured_and_exits_0(run_script, tmp_path):
    status, out, errors = run_script(
        VALIDATE, "tmpose_b*", "pct.ochuman@val", "--data", tmp_path, "--format", "json"
    )
    assert status == 0, errors
    verdicts = {(line["row"], line["metric"]): line["verdict"] for line in json.loads(out)}
    assert verdicts["tmpose_b_256x192.coco@gt", "AP"].startswith("no weights")
    assert verdicts["pct.ochuman@val", "AP^OC"].startswith("no command")


def test_validate_refuses_rows_that_do_not_exist(run_script, tmp_path):
    status, out, errors = run_script(VALIDATE, "nothing*", "--data", tmp_path)
    assert status == 2 and "no row matches" in errors


def test_written_documents_are_up_to_date(run_script):
    status, out, errors = run_script(BENCHMARKS / "report.py", "--check")
    assert status == 0, out + errors


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script_explains_itself_and_is_short(run_script, script, monkeypatch):
    monkeypatch.chdir("/")
    status, out, errors = run_script(script, "--help")
    assert status == 0 and "usage" in out, errors
    assert len(script.read_text().splitlines()) < 200


@pytest.mark.slow
def test_trainings_side_by_side_leave_weights_and_survive_one_that_fails(tmp_path):
    script, out = BENCHMARKS / "train_bodies.py", tmp_path / "out"
    command = [
        sys.executable, str(script), "--minutes", "0.5", "--device", "cpu", "--workers", "1",
        "--out", str(out), "--runs", str(tmp_path / "runs"), "--run", "hrnet_s_128x96=3:1",
        "--run", "hrnet_s_192x144=4:1:missing", "--set", "batch_size=2",
    ]  # fmt: skip
    for _ in range(2):  # the second goes on
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert last["hrnet_s_128x96.3"]["weights"] and not last["hrnet_s_192x144.4"]["weights"]
    model = posezoo.create_model("hrnet_s_128x96")
    posezoo.load_checkpoint(model, out / "hrnet_s_128x96.3.safetensors")
    assert "goes on from" in (out / "hrnet_s_128x96.3.txt").read_text()


@pytest.mark.slow
def test_gpu_script_writes_after_each_step_and_survives_a_failing_one(tmp_path):
    """A device that is not there fails every item of every step, each in its own process."""
    for device, status in (("cpu", 0), ("meta:7", 1)):
        options = ["--device", device, "--quick", "--steps", "machine", "compiled"]
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / "gpu.py"), *options, "--out", str(tmp_path)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        results = json.loads((tmp_path / "results.json").read_text())["results"]
        failed = [row for rows in results.values() for row in rows if "failed" in row]
        assert bool(failed) == (device != "cpu") and set(results) == {"machine", "compiled"}
        assert "### compiled" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_bfloat16_moves_keypoints_that_were_learnt_by_heart_by_a_fraction_of_a_pixel():
    by_heart = _load("by_heart")
    row = by_heart.measure("hrnet_xs_128x96", by_heart.torch.device("cpu"), 200, 300)
    assert row["end"] == "learnt" and row["learnt"]["far"] < 2.5
    for part in ("learnt", "copies"):
        median, most, _, largest = row[part]["moves"]
        assert 0 < median < 0.05 and most < 0.15 and largest < 1
