"""Rendered people on other devices than the CPU, and in worker processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from standins.device import FAR, StandInDevice
from torch import Tensor
from torch.utils.data import DataLoader

import posezoo
from posezoo.errors import InputError
from posezoo.synthetic.bodies import Photographer, Shots
from posezoo.training import Augmentation
from posezoo.training.data import EpochSampler, Guarded
from posezoo.training.rendered import RenderedPeople

SIZE = (96, 72)


def _assert_alike(found: Shots, expected: Shots) -> None:
    """Rounding may move what is at edges."""
    difference = (found.images.float() - expected.images.float()).abs()
    assert difference.mean() < 3
    assert torch.equal(found.keypoints[..., 2] > 0, expected.keypoints[..., 2] > 0)
    assert (found.keypoints - expected.keypoints)[..., :2].abs().max() < 0.05
    assert (found.boxes - expected.boxes).abs().max() < 2


def test_all_tensors_are_on_the_device_and_shots_on_the_cpu():
    expected = Photographer(3, SIZE).shoot(0, 8)
    with StandInDevice() as device:
        shots = Photographer(3, SIZE, device=FAR).shoot(0, 8)
    assert all(type(value) is Tensor for value in vars(shots).values())
    _assert_alike(shots, expected)
    assert 20 < sum(device.waits.values()) < 40


@pytest.mark.cuda
def test_cuda_renders_the_people_of_the_cpu():
    photographer = Photographer(3, SIZE, device="cuda")
    shots = photographer.shoot(0, 8)
    _assert_alike(shots, Photographer(3, SIZE).shoot(0, 8))
    again = Photographer(3, SIZE, device="cuda").shoot(0, 8)
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(shots).items())
    assert photographer.shoot(1, 70).images.shape == (70, 3, *SIZE)


def test_second_views_are_made_on_the_device_too():
    cfg = posezoo.get_pretrained_cfg("hrnet_s_128x96")
    expected = RenderedPeople(cfg, Augmentation(), 3).several([(0, 0)] * 4)
    with StandInDevice():
        samples = RenderedPeople(cfg, Augmentation(), 3, FAR).several([(0, 0)] * 4)
    for (image, points), (other, wanted) in zip(samples, expected):
        assert type(image) is Tensor and type(points) is Tensor
        assert (image - other).abs().mean() < 0.05
        assert torch.allclose(points, wanted, atol=0.05)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="device is 'gpu'"):
        Photographer(0, SIZE, device="gpu")


@pytest.mark.slow
def test_workers_make_the_same_batches():
    cfg = posezoo.get_pretrained_cfg("hrnet_s_128x96")
    people = RenderedPeople(cfg, Augmentation(), 1)
    sampler = EpochSampler(len(people), 4, 0)
    sampler.last_step = 2
    samples = Guarded(people)
    batches = [
        list(DataLoader(
            samples, batch_sampler=sampler, num_workers=workers, collate_fn=samples.collate,
            multiprocessing_context="spawn" if workers else None,
        ))
        for workers in (0, 2)
    ]  # fmt: skip
    assert len(batches[0]) == 2
    for one, other in zip(*batches):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.keypoints, other.keypoints)


def test_photographers_are_sent_without_what_they_made():
    photographer = Photographer(3, SIZE, augmentation=Augmentation(scale=0.3))
    first = photographer.shoot(0, 2)
    sent = pickle.dumps(photographer)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).shoot(0, 2).images, first.images)


def test_textures_are_drawn_by_one_process_for_all():
    photographer = Photographer(3, SIZE)
    first, second = (pickle.loads(pickle.dumps(photographer)) for _ in range(2))
    shots = first.shoot(0, 2)
    (file,) = Path(first.__dict__["_shared"]).iterdir()
    written = file.stat().st_mtime_ns
    assert torch.equal(second.shoot(0, 2).images, shots.images)
    assert file.stat().st_mtime_ns == written and torch.equal(
        photographer.shoot(0, 2).images, shots.images
    )
