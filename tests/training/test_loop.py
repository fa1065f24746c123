"""The loop: it learns, it goes on after a kill to the bit, two processes do what one does."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import posezoo
from posezoo.cli.commands import main
from posezoo.datasets.people import training_people
from posezoo.errors import DataError, InputError
from posezoo.synthetic.render import write_coco
from posezoo.training import Augmentation, Recipe, get_recipe, loop
from posezoo.training.data import EpochSampler
from posezoo.training.start import fill

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


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["objective"]


MASKED = dataclasses.replace(
    TINY, model="tokenpose_t_256x192", model_args={"mask_type": "random", "mask_ratio": 0.3}
)  # random inside the network


@pytest.mark.parametrize("recipe", [TINY, MASKED], ids=lambda r: r.model)
def test_killed_and_resumed_run_ends_bit_equal(data, tmp_path, recipe):
    whole = loop.train(recipe, data, tmp_path / "whole", device="cpu")
    parts = loop.train(recipe, data, tmp_path / "parts", device="cpu", stop_after=1)
    assert parts.step == 1 < whole.steps
    while parts.step < parts.steps:
        parts = loop.train(recipe, data, tmp_path / "parts", device="cpu", stop_after=2)
    assert parts.loss == whole.loss
    first, second = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_finished_run_does_nothing_more(data, tmp_path):
    recipe = dataclasses.replace(TINY, epochs=1)
    end = loop.train(recipe, data, tmp_path, device="cpu")
    before = _weights(tmp_path)
    again = loop.train(recipe, data, tmp_path, device="cpu")
    assert again.step == end.step == end.steps
    assert all(torch.equal(before[k], v) for k, v in _weights(tmp_path).items())


def test_folder_of_another_recipe_is_refused(data, tmp_path):
    loop.train(TINY, data, tmp_path, device="cpu", stop_after=1)
    with pytest.raises(InputError, match="another lr, sigma"):
        loop.train(dataclasses.replace(TINY, lr=1.0, sigma=3.0), data, tmp_path, device="cpu")


def test_accumulated_gradients_are_those_of_the_whole_batch(data, tmp_path):
    """Without BatchNorm the parts of a batch do not see each other."""
    recipe = dataclasses.replace(TINY, model="tokenpose_t_256x192", optimizer="adamw", epochs=1)
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
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    losses = []
    for count in (1, 2):
        launcher = [sys.executable]
        if count > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        done = subprocess.run(
            [*launcher, str(tmp_path / "run.py"), str(data), str(tmp_path / str(count))],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        rows = (tmp_path / str(count) / "log.jsonl").read_text().splitlines()
        losses.append([r["loss"] for r in map(json.loads, rows) if "loss" in r])
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
        training_people(data, cfg, posezoo.get_skeleton("coco"))


def test_command_trains_and_says_where_it_wrote(data, tmp_path):
    out = tmp_path / "run"
    command = ["train", "hrnet_xs_128x96", "--data", data, "--out", out]
    settings = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "dtype=float32"]
    result = CliRunner().invoke(main, [str(a) for a in (*command, *settings)])
    assert result.exit_code == 0, result.output
    assert f"written  {out}" in result.output and (out / "last.pt").is_file()


def test_frozen_parameters_stay(data, tmp_path):
    recipe = dataclasses.replace(TINY, epochs=1, frozen=("trunk.conv1.",))
    loop.train(recipe, data, tmp_path, device="cpu")
    torch.manual_seed(recipe.seed)
    fresh = posezoo.create_model(recipe.model).state_dict(prefix="model.")
    trained = _weights(tmp_path)
    assert torch.equal(trained["model.trunk.conv1.weight"], fresh["model.trunk.conv1.weight"])
    assert not torch.equal(trained["model.trunk.conv2.weight"], fresh["model.trunk.conv2.weight"])


def test_half_an_evaluation_left_behind_does_not_stop_the_next(data, tmp_path):
    (tmp_path / "eval" / "blocks").mkdir(parents=True)
    (tmp_path / "eval" / "blocks" / "run.json").write_text('{"model": "another"}')
    end = loop.train(dataclasses.replace(TINY, epochs=1), data, tmp_path, device="cpu")
    assert end.value is not None and end.best == end.value and end.metric == "AP"
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert (tmp_path / "curves.png").is_file()
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("AP" in row for row in rows) and any("loss" in row for row in rows)


def test_resumed_run_does_not_ask_for_what_it_started_from(data, tmp_path):
    donor = posezoo.save_pretrained(posezoo.create_model("hrnet_xs_128x96"), tmp_path / "donor")
    start, out = donor / "model.safetensors", tmp_path / "run"
    loop.train(TINY, data, out, init=str(start), device="cpu", stop_after=1)
    start.unlink()
    assert loop.train(TINY, data, out, init=str(start), device="cpu", stop_after=1).step == 2
