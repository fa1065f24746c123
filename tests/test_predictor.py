"""From images and boxes to results: forms of input, batches, bad input."""

from __future__ import annotations

import subprocess
import sys
import weakref
from typing import NamedTuple

import numpy as np
import pytest
import torch
from evaluation import made
from PIL import Image
from standins.device import FAR, StandInDevice
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import posezoo
from posezoo import PosePredictor
from posezoo.errors import InputError
from posezoo.inflight import Batch, CropRequest, Rows

BOXES = np.array([[10.0, 20.0, 90.0, 150.0], [30.0, 5.0, 120.0, 110.0], [0.0, 0.0, 60.0, 60.0]])


class Brightest(made.Brightest):
    """Remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images):
        self.batches.append(len(images))
        return super().forward(images)


@pytest.fixture
def network():
    return Brightest()


@pytest.fixture(scope="module")
def picture():
    """Dark noise with one white spot at (64, 80)."""
    noise = np.random.default_rng(0).integers(0, 60, (200, 160, 3), np.uint8)
    noise[77:84, 61:68] = 255
    return noise


def test_keypoints_land_where_the_picture_says(network, picture):
    result = PosePredictor(network)(picture, BOXES[:2])
    assert len(result) == 2 and result.image_size == (200, 160)
    assert np.abs(result.keypoints - [64, 80]).max() < 2.5
    np.testing.assert_array_equal(result.bboxes, BOXES[:2])
    np.testing.assert_array_equal(result.bbox_scores, [1, 1])


def test_path_pillow_and_numpy_give_the_same_result(network, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "p.png")
    predictor = PosePredictor(network)
    forms = [picture, Image.fromarray(picture), tmp_path / "p.png", str(tmp_path / "p.png")]
    results = [predictor(form, BOXES).keypoints for form in forms]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_images_are_read_as_batches_need_them(network, picture):
    alive = []

    class Photos(list):
        def __iter__(self):
            for _ in range(len(self)):
                image = picture.copy()
                alive.append(weakref.ref(image))
                assert sum(ref() is not None for ref in alive) <= 5
                yield image

    photos = Photos([None] * 40)
    results = PosePredictor(network, batch_size=4).predict_batch(photos, [BOXES[:1]] * 40)
    assert len(results) == len(alive) == 40


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_batches_fill_across_images(network, picture, batch_size):
    images = [picture, picture[:150], np.ascontiguousarray(picture[:, :130])]
    boxes = [BOXES, np.zeros((0, 4)), BOXES[:2]]
    results = PosePredictor(network, batch_size=batch_size).predict_batch(images, boxes)
    assert [len(r) for r in results] == [3, 0, 2]
    full, rest = divmod(5, batch_size)
    assert network.batches == [2 * batch_size] * full + ([2 * rest] if rest else [])
    alone = [PosePredictor(network)(i, b).keypoints for i, b in zip(images, boxes)]
    for one, other in zip(results, alone):
        np.testing.assert_array_equal(one.keypoints, other)


def test_no_boxes_give_an_empty_result_without_running(network, picture):
    for empty in (np.zeros((0, 4)), []):
        result = PosePredictor(network)(picture, empty)
        assert len(result) == 0 and result.keypoints.shape == (0, 17, 2)
    assert network.batches == []


def test_without_detector_the_whole_image_is_one_box(network, picture):
    result = PosePredictor(network, detector=None)(picture)
    np.testing.assert_array_equal(result.bboxes, [[0, 0, 160, 200]])


def test_detector_is_asked_only_for_images_without_boxes(network, picture):
    calls = []

    def detector(image):
        calls.append(image.shape)
        return BOXES[:1], np.array([0.7])

    predictor = PosePredictor(network, detector=detector)
    predictor(picture, BOXES)
    assert calls == []
    result = predictor(picture)
    assert calls == [picture.shape]
    np.testing.assert_allclose(result.bbox_scores, [0.7], rtol=1e-6)


def test_flip_test_follows_the_recipe_unless_told(network, picture):
    PosePredictor(network)(picture, BOXES)
    PosePredictor(network, flip_test=False)(picture, BOXES)
    assert network.batches == [6, 3]


def test_double_precision_runs_the_network_in_double(picture):
    class Typed(Brightest):
        def forward(self, images):
            self.seen = images.dtype
            return super().forward(images)

    for dtype in (torch.float64, torch.float32):
        network = Typed()
        predictor = PosePredictor(network, dtype=dtype)
        predictor(picture, BOXES)
        assert predictor.model.seen == dtype
        assert network.unused.dtype == torch.float32  # the given network stays as it was


def test_requests_are_read_as_batches_need_them(network, picture):
    """A loader must not be drained before the first result."""
    predictor = PosePredictor(network, batch_size=2)
    read = []

    def requests():
        for i in range(10):
            read.append(i)
            yield predictor.request(picture, BOXES[:2])

    results = predictor.predict_crops(requests())
    next(results)
    assert len(read) <= 3
    assert isinstance(predictor.request(picture, BOXES), CropRequest)


def test_images_are_not_held_until_their_batch_is_full(network, picture):
    """Only their crops wait: 80-megapixel photos have 240 MB each."""
    alive: list[int] = []
    given: list[weakref.ref[np.ndarray]] = []

    def photos():
        for _ in range(6):
            alive.append(sum(reference() is not None for reference in given))
            photo = np.array(picture)
            given.append(weakref.ref(photo))
            yield photo, None, None
            del photo

    predictor = PosePredictor(network, detector=None, batch_size=64)
    assert len(list(predictor.predict_each(photos()))) == 6
    assert max(alive) <= 2


@pytest.mark.parametrize("kept_pixels", [0, 40_000, 10**9])
def test_crops_of_a_batch_do_not_depend_on_how_many_are_cut_together(picture, kept_pixels):
    predictor = PosePredictor("hrnet_xs_192x144.rendered")
    images = [picture, picture[:150], picture[:, :130].copy()]
    asked, expected, alive = [], [], []

    class Noted(type(predictor.convention)):
        def crop_matrices(self, centers, *others):
            asked.append(len(centers))
            return super().crop_matrices(centers, *others)

    batch = Batch(predictor.crop, Noted(), kept_pixels)
    for image in images:
        request = predictor.request(image, BOXES)
        matrices = predictor.convention.crop_matrices(
            request.centers, request.box_sizes, predictor.cfg.input.size
        )
        on_device = torch.tensor(image)
        alive.append(weakref.ref(on_device))
        batch.add(on_device, request, Rows(3, 17), slice(0, 3))
        expected.append(predictor.crop(on_device, matrices))
        del on_device
    waiting = [reference() is not None for reference in alive]
    assert waiting == [kept_pixels == 10**9] * 2 + [kept_pixels > 0]
    assert batch.count == 9 and torch.equal(batch.crops(), torch.cat(expected))
    assert asked == {0: [3, 3, 3], 40_000: [6, 3], 10**9: [9]}[kept_pixels]


_GROWTH = """
import sys, numpy as np, torch
from PIL import Image
from posezoo import PosePredictor

def megabytes():
    with open("/proc/self/status") as status:
        return int(status.read().split("VmRSS:")[1].split()[0]) >> 10

Image.new("RGB", (4000, 3000), "gray").save(sys.argv[1])
predictor = PosePredictor("hrnet_xs_192x144.rendered", batch_size=8)
boxes = [[[0, 0, 1000, 2000], [100, 100, 2000, 2500]]]
kept = predictor.predict_batch(sys.argv[1:] * 8, boxes * 8)
before = megabytes()
kept += predictor.predict_batch(sys.argv[1:] * 32, boxes * 32)
print(megabytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_photos_leave_no_holes_in_memory(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", _GROWTH, str(tmp_path / "photo.png")]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 350, grown  # a thousand where kept results were between pieces of 30 MB


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.array([1.0, 2, 3, 4]), r"shape \(4,\)"),
        ([[5, 5, 5, 50]], "area"),
        ([[50, 50, 20, 60]], "area"),
        ([[1, 2, np.nan, 4]], "NaN"),
        ([[1, 2, np.inf, 4]], "NaN, infinity"),
        ([[500, 500, 600, 600]], "outside|overlap"),
        ("boxes", "numbers"),
    ],
)
def test_bad_boxes_are_refused_before_anything_runs(network, picture, boxes, words):
    with pytest.raises(InputError, match=words):
        PosePredictor(network)(picture, boxes)
    assert network.batches == []


def test_bad_scores_and_counts(network, picture):
    predictor = PosePredictor(network)
    with pytest.raises(InputError, match="bbox_scores must be 3"):
        predictor(picture, BOXES, np.ones(2))
    with pytest.raises(InputError, match="finite"):
        predictor(picture, BOXES, np.array([1, np.nan, 1]))
    with pytest.raises(InputError, match="without bboxes"):
        predictor(picture, None, np.ones(2))
    with pytest.raises(InputError, match="1 sets of boxes"):
        predictor.predict_batch([picture, picture], [BOXES])


def test_what_is_no_pose_model_is_refused(network):
    with pytest.raises(InputError, match="uniformer_small.in1k is not a pose model"):
        PosePredictor(posezoo.create_model("uniformer_small"))
    with pytest.raises(InputError, match="Linear is not a pose model"):
        PosePredictor(nn.Linear(1, 1))
    with pytest.raises(InputError, match="batch_size"):
        PosePredictor(network, batch_size=0)
    with pytest.raises(InputError, match="floating-point"):
        PosePredictor(network, dtype=torch.int32)
    with pytest.raises(InputError, match="unknown detector 'yolo'"):
        PosePredictor(network, detector="yolo")(np.zeros((9, 9, 3), np.uint8))
    network.num_keypoints = 21
    with pytest.raises(InputError, match="21 keypoints"):
        PosePredictor(network)


def test_predictor_and_its_caller_leave_each_other_alone(picture):
    """Training mode, statistics, type and a second predictor change nothing."""
    torch.manual_seed(0)
    model = posezoo.create_model("hrnet_xs_128x96")
    predictor = PosePredictor(model)
    expected = predictor(picture, BOXES).keypoints
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert np.array_equal(predictor(picture, BOXES).keypoints, expected)
    assert model.training and all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    double = PosePredictor(model, dtype=torch.float64)
    np.testing.assert_allclose(double(picture, BOXES).keypoints, expected, atol=1e-2)
    assert np.array_equal(predictor(picture, BOXES).keypoints, expected)
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("one", ["photo.jpg", np.zeros((9, 9, 3), np.uint8)], ids=["name", "array"])
def test_one_image_where_a_list_belongs_is_refused(network, one):
    with pytest.raises(InputError, match="give a list of images"):
        PosePredictor(network).predict_batch(one)


def test_wrapped_models_and_boxes_with_gradients_are_taken(network, picture):
    expected = PosePredictor(network)(picture, BOXES).keypoints
    wrapped = nn.DataParallel(network)
    boxes = torch.tensor(BOXES, requires_grad=True)
    assert np.array_equal(PosePredictor(wrapped)(picture, boxes).keypoints, expected)


def test_name_of_a_model_loads_its_weights(hub):
    with pytest.raises(posezoo.errors.WeightsUnavailableError):
        PosePredictor("uniformer_b_384x288")


class _Regresses(Brightest):
    """Answers like PCT: coordinates and token logits."""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = posezoo.get_pretrained_cfg("pct_swin_base")

    def forward(self, images):
        means = images.mean((2, 3))[:, :1, None]  # (B, 1, 1)
        return _Output(means.expand(-1, 17, 2) + 128, means.expand(-1, 34, 8) + 7)


class _Output(NamedTuple):
    keypoints: Tensor
    logits: Tensor


class _Waits(TorchDispatchMode):
    """Collects operations whose result the host, or the size of a tensor, depends on."""

    names = ("item", "local_scalar", "is_nonzero", "nonzero", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ()
        masks = [i for i in indices if isinstance(i, Tensor) and i.dtype == torch.bool]
        if name.strip("_").startswith(self.names) or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["uniformer_s_256x192", "tmpose_b_256x192", "pct_swin_base"])
def test_run_asks_for_nothing_that_cuda_would_have_to_wait_for(picture, name):
    network = _Regresses() if name == "pct_swin_base" else Brightest()
    network.pretrained_cfg = posezoo.get_pretrained_cfg(name)
    predictor = PosePredictor(network, batch_size=2)
    requests = [predictor.request(picture, BOXES) for _ in range(3)]
    with _Waits() as waits:
        found = list(predictor.predict_crops(requests))
    assert len(found) == 3 and waits.found == []
    with _Waits() as waits, torch.inference_mode():  # the net has no holes
        float(torch.ones(2).max())
        torch.arange(4)[torch.tensor([True, False, True, False])]
    assert waits.found == ["item", "index"]


@pytest.mark.parametrize("name", ["uniformer_s_256x192", "tmpose_b_256x192", "pct_swin_base"])
def test_run_on_a_device_waits_for_results_only_and_equals_the_cpu(picture, name):
    network = _Regresses() if name == "pct_swin_base" else Brightest()
    network.pretrained_cfg = posezoo.get_pretrained_cfg(name)
    del network.unused  # the stand-in has no parameters
    here = PosePredictor(network, batch_size=4)
    images = [picture, picture[:150], np.ascontiguousarray(picture[:, :130])] * 2
    requests = [here.request(image, BOXES) for image in images]
    expected = list(here.predict_crops(requests))
    with StandInDevice() as device:
        there = PosePredictor(network, device=FAR, batch_size=4)
        found = list(there.predict_crops(requests))
    assert device.waits == {"cpu": 5}  # once a batch
    for (points, scores), (others, values) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(points, others)
        np.testing.assert_array_equal(scores, values)


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_cuda_run_copies_without_waiting_and_equals_the_cpu(picture, device):
    if int(device[-1]) >= torch.cuda.device_count():
        pytest.skip("needs a second GPU, which is not the current device")
    requests = [PosePredictor(Brightest()).request(picture, BOXES)] * 5
    expected = list(PosePredictor(Brightest(), device="cpu").predict_crops(requests))
    predictor = PosePredictor(Brightest(), device=device, batch_size=4)
    list(predictor.predict_crops(requests))  # page-locked memory is there from now on
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(predictor.predict_crops(requests))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (points, scores), (there, values) in zip(expected, found):
        np.testing.assert_allclose(points, there, atol=1e-3)
        np.testing.assert_allclose(scores, values, atol=1e-5)
