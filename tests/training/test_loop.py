"""The loop: it learns, it goes on after a kill to the bit, two processes do what one does."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from families import SMALL, registered, smaller
from PIL import Image
from standins.processes import run
from standins.signals import sent_when

import posezoo
from posezoo.cli import main
from posezoo.datasets.people import training_people
from posezoo.errors import CheckpointError, DataError, InputError
from posezoo.runs.lock import one_writer
from posezoo.synthetic import write_coco
from posezoo.training import Augmentation, Recipe, get_recipe, loop
from posezoo.training.checkpoint import require_space
from posezoo.training.data import EpochSampler
from posezoo.training.start import fill
from training.left import are_equal, log_of, losses_of, weights_of

TINY = Recipe(
    model="hrnet_xs_128x96", epochs=3, batch_size=4, lr=1e-3, sigma=1.5, rounded=False,
    augmentation=Augmentation(rotation=10.0, scale=0.1), eval_every=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    write_coco(folder, 5, seed=1, size=(128, 128), split="train2017")
    write_coco(folder, 2, seed=2, size=(128, 128))
    return folder


TOKENPOSE = "small_tokenpose_t_256x192"


@pytest.fixture
def tokenpose() -> Recipe:
    """Of a network without BatchNorm."""
    with registered(smaller("tokenpose_t_256x192", **SMALL["tokenpose_t_256x192"])):
        yield dataclasses.replace(TINY, model=TOKENPOSE)


def test_killed_and_resumed_run_ends_bit_equal(data, tmp_path, tokenpose):
    """Random inside the network; others are below, where they stop."""
    mask = {"mask_type": "random", "mask_ratio": 0.3}
    recipe = dataclasses.replace(tokenpose, model_args=mask)
    whole = loop.train(recipe, data, tmp_path / "whole", device="cpu")
    parts = loop.train(recipe, data, tmp_path / "parts", device="cpu", stop_after=1)
    assert parts.step == 1 < whole.steps
    while parts.step < parts.steps:
        parts = loop.train(recipe, data, tmp_path / "parts", device="cpu", stop_after=2)
    assert parts.loss == whole.loss
    assert are_equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))


def test_accumulated_gradients_are_those_of_the_whole_batch(data, tmp_path, tokenpose):
    """Without BatchNorm the parts of a batch do not see each other."""
    recipe = dataclasses.replace(tokenpose, optimizer="adamw", epochs=1)
    ends = [
        loop.train(dataclasses.replace(recipe, accumulate=n), data, tmp_path / str(n), device="cpu")
        for n in (1, 3)
    ]
    assert ends[0].loss == pytest.approx(ends[1].loss, rel=1e-4)


@pytest.mark.slow
def test_two_processes_do_what_one_does(data, tmp_path):
    """A network without BatchNorm, the same global batch: the same losses within rounding."""
    script = (
        "import sys, dataclasses; from pathlib import Path\n"
        "from posezoo.training import loop; from training.test_loop import TINY\n"
        "recipe = dataclasses.replace(TINY, model='tokenpose_t_256x192', epochs=2)\n"
        "loop.train(recipe, Path(sys.argv[1]), Path(sys.argv[2]), device='cpu', log_every=1)\n"
    )
    (tmp_path / "run.py").write_text(script)
    losses = []
    for count in (1, 2):
        run(count, tmp_path / "run.py", data, tmp_path / str(count))
        losses.append(losses_of(tmp_path / str(count)))
    assert len(losses[0]) >= 2 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_batches_of_processes_make_up_the_batch_of_one():
    whole = list(EpochSampler(23, 6, seed=4))
    parts = [list(EpochSampler(23, 6, seed=4, index=i, count=2)) for i in range(2)]
    for batch, first, second in zip(whole, *parts):
        assert sorted(batch) == sorted(first + second)
    assert len({index for batch in whole for _, index in batch}) == 18


def test_too_few_people_for_a_batch_are_refused():
    with pytest.raises(DataError, match="set batch_size lower"):
        EpochSampler(3, 4, seed=0)


def test_start_is_taken_as_far_as_it_fits(tmp_path):
    donor = posezoo.create_model("hrnet_xs_128x96", num_keypoints=5)
    posezoo.save_pretrained(donor, tmp_path)
    file = str(tmp_path / "model.safetensors")
    model = posezoo.create_model("hrnet_xs_128x96")
    fill(model, get_recipe("hrnet_xs_128x96"), file)
    assert torch.equal(model.trunk.conv1.weight, donor.trunk.conv1.weight)
    assert model.num_keypoints == 17


def test_recipe_without_its_start_asks_for_it():
    with pytest.raises(InputError, match="--init scratch"):
        fill(posezoo.create_model("hrnet_xs_128x96"), get_recipe("hmp_swin_base"), None)


def test_labels_of_another_model_are_refused(data):
    cfg = posezoo.get_pretrained_cfg("uniformer_small")
    with pytest.raises(InputError, match="no crops of people"):
        training_people(data, cfg)


def test_frozen_parameters_stay(data, tmp_path):
    recipe = dataclasses.replace(TINY, epochs=1, frozen=("trunk.conv1.",))
    loop.train(recipe, data, tmp_path, device="cpu")
    torch.manual_seed(recipe.seed)
    fresh = posezoo.create_model(recipe.model).state_dict(prefix="model.")
    trained = weights_of(tmp_path)
    assert torch.equal(trained["model.trunk.conv1.weight"], fresh["model.trunk.conv1.weight"])
    assert not torch.equal(trained["model.trunk.conv2.weight"], fresh["model.trunk.conv2.weight"])


def test_half_an_evaluation_left_behind_does_not_stop_the_next(data, tmp_path):
    (tmp_path / "eval" / "blocks").mkdir(parents=True)
    (tmp_path / "eval" / "blocks" / "run.json").write_text('{"model": "another"}')
    end = loop.train(dataclasses.replace(TINY, epochs=1), data, tmp_path, device="cpu")
    assert end.value is not None and end.best == end.value and end.metric == "AP"
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert (tmp_path / "curves.png").is_file()
    assert any("AP" in row for row in log_of(tmp_path)) and losses_of(tmp_path)


def test_resumed_run_does_not_ask_for_what_it_started_from(data, tmp_path):
    donor = posezoo.save_pretrained(posezoo.create_model("hrnet_xs_128x96"), tmp_path / "donor")
    start, out = donor / "model.safetensors", tmp_path / "run"
    loop.train(TINY, data, out, init=str(start), device="cpu", stop_after=1)
    start.unlink()
    assert loop.train(TINY, data, out, init=str(start), device="cpu", stop_after=1).step == 2


def _annotations(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"person_keypoints_{split}.json"


@pytest.fixture
def copied(data, tmp_path) -> Path:
    """The data set in a folder that a test may change."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def _change(file: Path, **fields: object) -> None:
    content = json.loads(file.read_text())
    for row in content["annotations"]:
        row |= fields
    file.write_text(json.dumps(content))


def _break_validation(folder: Path) -> None:
    _annotations(folder, "val2017").write_text("{")


def _empty_validation(folder: Path) -> None:
    _change(_annotations(folder, "val2017"), keypoints=[0] * 51, num_keypoints=0)


def _truncate(folder: Path) -> None:
    (folder / "val2017/000000000001.jpg").write_bytes(b"no image")


def _resize(folder: Path) -> None:
    file = folder / "train2017/000000000002.jpg"
    Image.open(file).resize((64, 64)).save(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: _annotations(folder, "val2017").unlink(), "no person_keypoints_val2017"),
        (_break_validation, "person_keypoints_val2017.json: it is not complete JSON"),
        (_empty_validation, "person_keypoints_val2017.json holds no box to evaluate"),
        (_truncate, "1 of 2 images cannot be used, first: .*val2017/000000000001.jpg"),
        (_resize, "1 of 5 images cannot be used, first: .*000000000002.jpg is 64x64 .* 128x128"),
        (lambda folder: (folder / "train2017/000000000001.jpg").unlink(), "1 of 5 images are miss"),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_run_will_need_is_checked_before_its_first_step(
    copied, tmp_path, change, message, restarted
):
    out = tmp_path / "run"
    if restarted:
        loop.train(TINY, copied, out, device="cpu", stop_after=1)
    change(copied)
    with pytest.raises(DataError, match=message):
        loop.train(TINY, copied, out, device="cpu")
    assert restarted == out.exists()


def test_disk_without_room_is_told_before_the_first_step(tmp_path):
    objective = torch.nn.Module()
    objective.register_buffer("huge", torch.empty(10**14, device="meta"))
    with pytest.raises(DataError, match="has .* MB free, and the run needs 880000000; make room"):
        require_space(tmp_path / "a/b", objective, averaged=False)


def test_image_that_cannot_be_decoded_ends_the_run_with_its_name(copied, tmp_path):
    file, out = copied / "train2017/000000000003.jpg", tmp_path / "run"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2000])  # the header is right
    for workers in (0, 1):
        with pytest.raises(DataError) as caught:
            loop.train(TINY, copied, out, device="cpu", workers=workers)
        text = str(caught.value)
        assert str(file) in text and "goes on from step" in text and "Traceback" not in text
    file.write_bytes(whole)
    end = loop.train(TINY, copied, out, device="cpu")
    assert end.is_done and end.value is not None


def test_stopped_run_goes_on_bit_equal_also_where_an_evaluation_was_interrupted(data, tmp_path):
    recipe = dataclasses.replace(TINY, eval_every=1)
    whole = loop.train(recipe, data, tmp_path / "whole", device="cpu", log_every=1)
    out, stops = tmp_path / "parts", 0
    for allowed in (0, 1, 2, 1, 3, 1000):
        stop = functools.partial(next, iter([False] * allowed), True)
        end = loop.train(recipe, data, out, device="cpu", log_every=1, stop=stop)
        stops += not end.is_done
    assert stops >= 4 and end == whole
    assert are_equal(weights_of(tmp_path / "whole"), weights_of(out))
    rows, others = (
        [(row["step"], row.get("loss"), row.get("AP")) for row in log_of(folder)]
        for folder in (tmp_path / "whole", out)
    )
    assert rows == others


def test_run_goes_on_only_with_what_it_began_with(copied, tmp_path):
    out = tmp_path / "run"
    loop.train(TINY, copied, out, device="cpu", stop_after=1)
    with pytest.raises(InputError, match="another start"):
        loop.train(TINY, copied, out, device="cpu", init="hrnet_xs_128x96")
    with pytest.raises(InputError, match="another lr, sigma"):
        loop.train(dataclasses.replace(TINY, lr=1.0, sigma=3.0), copied, out, device="cpu")
    moved = copied.rename(tmp_path / "moved")  # the same content elsewhere is the same data
    assert loop.train(TINY, moved, out, device="cpu", stop_after=1).step == 2
    _change(_annotations(moved, "val2017"), area=300.0)
    with pytest.raises(InputError, match="another validation data"):
        loop.train(TINY, moved, out, device="cpu")
    _change(_annotations(moved, "train2017"), bbox=[5, 5, 90, 100])
    with pytest.raises(InputError, match="another training data .*, validation data"):
        loop.train(TINY, moved, out, device="cpu")


def test_more_epochs_are_allowed_when_they_are_asked_for(data, tmp_path):
    short, long = (dataclasses.replace(TINY, epochs=n) for n in (1, 2))
    assert loop.train(short, data, tmp_path, device="cpu").is_done
    with pytest.raises(InputError, match="another epochs; .* for more epochs --set epochs=N"):
        loop.train(long, data, tmp_path, device="cpu")
    end = loop.train(long, data, tmp_path, device="cpu", more_epochs=True)
    assert end.is_done and end == loop.train(long, data, tmp_path, device="cpu", more_epochs=True)
    with pytest.raises(InputError, match="another epochs"):
        loop.train(short, data, tmp_path, device="cpu", more_epochs=True)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_cut_checkpoint_and_log_are_told_or_mended(data, tmp_path, damage):
    loop.train(TINY, data, tmp_path, device="cpu", stop_after=2, log_every=1)
    log, file = tmp_path / "log.jsonl", tmp_path / "last.pt"
    rows = log.read_text()
    log.write_text(rows + '{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    assert loop.train(TINY, data, tmp_path, device="cpu", stop_after=0).step == 2
    assert log.read_text() == rows
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match="last.pt is damaged, .* delete it to begin again"):
        loop.train(TINY, data, tmp_path, device="cpu")


def test_folder_has_one_writer(data, tmp_path):
    with (
        one_writer(tmp_path),
        pytest.raises(DataError, match=f"another run .process {os.getpid()}"),
    ):
        loop.train(TINY, data, tmp_path, device="cpu")
    assert loop.train(TINY, data, tmp_path, device="cpu", stop_after=1).step == 1
    assert not (tmp_path / "writer.lock").exists()


def test_left_over_environment_is_told(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(InputError, match="torchrun did not start this process; unset both"):
        loop.train(TINY, data, tmp_path, device="cpu")


def test_signal_stops_the_command_which_then_goes_on_and_says_when_it_is_finished(data, tmp_path):
    out = tmp_path / "run"
    command = [
        "train",
        "hrnet_xs_128x96",
        "--data",
        str(data),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--set",
        "batch_size=4",
        "--set",
        "dtype=float32",
        "--set",
        "epochs=100000",
    ]
    with sent_when(signal.SIGTERM, (out / "last.pt").is_file):
        result = CliRunner().invoke(main, command)
    told = result.output
    assert result.exit_code == 143 and "stopped at step" in told and "nan" not in told, told
    step = torch.load(out / "last.pt", weights_only=True)["step"]
    assert f"stopped at step {step} of " in told and f"step {step}" in told


def test_command_trains_and_says_what_it_does_without_a_terminal(data, tmp_path, caplog):
    """Twice: a finished run does nothing more."""
    out = tmp_path / "run"
    command = ["train", "hrnet_xs_128x96", "--data", data, "--out", out, "--device", "cpu"]
    for setting in ("epochs=1", "batch_size=4", "dtype=float32"):
        command += ["--set", setting]
    weights = []
    for _ in range(2):
        assert "is finished: step" not in caplog.text
        with caplog.at_level("INFO"):
            result = CliRunner().invoke(main, [str(a) for a in command])
        assert result.exit_code == 0, result.output
        for text in ("step 1 of 1: loss ", "finished 1 of 1 steps", f"written  {out}"):
            assert text in result.output
        weights.append(weights_of(out))
    assert "is finished: step" in caplog.text
    assert are_equal(*weights)
