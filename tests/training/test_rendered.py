"""Training on people that are rendered as they are needed: `--data render:SEED`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import posezoo
from posezoo.cli import main
from posezoo.errors import InputError
from posezoo.synthetic.bodies import write_people
from posezoo.training import Augmentation, get_recipe, loop
from posezoo.training.budget import TimeBudget
from posezoo.training.rendered import RenderedPeople
from posezoo.training.start import fill

RECIPE = dataclasses.replace(get_recipe("hrnet_s_128x96"), batch_size=4, warmup_steps=0)


def _train(out: Path, steps: int) -> dict[str, torch.Tensor]:
    """Train in a folder whose validation images are there already, fewer than usual."""
    if not out.exists():
        write_people(out / "rendered", 2, 9, height=64)
    loop.train(RECIPE, Path("render:3"), out, device="cpu", stop_after=steps)
    return torch.load(out / "last.pt", weights_only=True)["objective"]


@pytest.mark.slow
def test_stopped_training_goes_on_with_the_same_people(tmp_path):
    _train(tmp_path / "parts", 1)
    parts, whole = _train(tmp_path / "parts", 1), _train(tmp_path / "whole", 2)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_half_of_a_batch_is_second_views():
    cfg = posezoo.get_pretrained_cfg("hrnet_s_128x96")
    samples = RenderedPeople(cfg, Augmentation(), seed=1)
    several = samples.several([(0, 7)] * 5)
    batch = samples.collate(several)
    assert torch.equal(batch.labelled, torch.stack([points[:, 2] for _, points in several]) > 0)
    assert batch.images.shape == (5, 3, 128, 96) and batch.keypoints.shape == (5, 17, 2)
    known = batch.labelled[:3] & batch.labelled[3:].sum().bool()
    assert batch.labelled.any(1).all() and known.any()
    assert not torch.equal(batch.images[0], batch.images[3])
    again = samples.collate(samples.several([(0, 7)] * 5))
    assert torch.equal(again.images, batch.images)
    assert not torch.equal(samples.several([(1, 7)] * 5)[0][0], batch.images[0])


def test_whole_bodies_are_learned_with_faces_and_hands():
    cfg = posezoo.get_pretrained_cfg("hrnet_s_wholebody_256x192")
    samples = RenderedPeople(cfg, Augmentation(), seed=0)
    batch = samples.collate(samples.several([(0, 7)] * 8))
    assert batch.images.shape == (8, 3, 256, 192) and batch.keypoints.shape == (8, 133, 2)
    for start, stop in cfg.skeleton.parts.values():
        assert batch.labelled[:, start:stop].any()
    assert not batch.labelled[:, 23:91].any(1).all()  # somebody is seen from behind


@pytest.mark.parametrize("name", ["hrnet_s_wholebody_256x192", "tmpose_s_192x144"])
def test_networks_for_bodies_begin_with_the_packaged_trunk(name):
    donor = posezoo.create_model("hrnet_s_192x144.bodies", pretrained=True)
    model = posezoo.create_model(name)
    fill(model, get_recipe(name), None)
    wanted = donor.trunk.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in model.trunk.state_dict().items())


def test_a_training_of_some_minutes_ends_with_them_and_goes_on(tmp_path):
    write_people(tmp_path / "rendered", 2, 9, height=64)
    for step in (1, 2):
        end = loop.train(RECIPE, Path("render:3"), tmp_path, device="cpu", minutes=1e-6)
        assert end.step == step and not end.is_done
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    with pytest.raises(InputError, match="minutes is 0"):
        loop.train(RECIPE, Path("render:3"), tmp_path, device="cpu", minutes=0)


def test_the_share_of_a_time_budget_counts_from_the_first_step():
    seconds = iter([0.0, 20.0, 40.0, 60.0, 70.0, 70.0])
    budget = TimeBudget(1, lambda: next(seconds))
    assert [budget.share() for _ in range(3)] == [0.0, 0.5, 1.0]
    assert budget.share() == 1.0 and budget.is_over


@pytest.mark.parametrize("data", ["render:x", "render:", "render:-1", "render:1:"])
def test_a_seed_is_a_whole_number(data, tmp_path):
    arguments = ["train", "hrnet_s_128x96", "--data", data, "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, (InputError, SystemExit))
    assert (
        result.exit_code
        and "give render: and a whole number" in str(result.exception) + result.output
    )


def test_only_models_of_cocos_keypoints_learn_from_them(tmp_path):
    recipe = dataclasses.replace(RECIPE, model="tokenpose_l_d6_256x256")
    with pytest.raises(InputError, match="COCO's keypoints"):
        loop.train(recipe, Path("render:0"), tmp_path, init="scratch", device="cpu")


def test_the_deeper_network_starts_as_the_packaged_one():
    narrow = posezoo.create_model("hrnet_xs_192x144.rendered", pretrained=True).eval()
    deep = posezoo.create_model("hrnet_s_192x144").eval()
    fill(deep, get_recipe("hrnet_s_128x96"), None)
    images = torch.randn(1, 3, 192, 144)
    with torch.no_grad():
        assert torch.equal(narrow(images), deep(images))
