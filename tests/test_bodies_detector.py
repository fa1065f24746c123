"""The packaged person detector: how it learns, and what it makes of its network's maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_iou

from posezoo import load_checkpoint
from posezoo.cli import main
from posezoo.detectors import build_detector
from posezoo.detectors.bodies import (
    CELL,
    SIZE,
    WEIGHTS,
    BodiesDetector,
    boxes_of,
    build_network,
)
from posezoo.errors import InputError, IntegrityError
from posezoo.training.detector import Photos, detector_loss, second_views, train_detector
from posezoo.training.detector.__main__ import main as train
from posezoo.weights.locate import ASSETS

CELLS = SIZE // CELL
BOXES = torch.tensor([[[40.0, 60, 120, 220], [150, 20, 210, 90], [0, 0, 0, 0]]])


def maps_of(boxes: Tensor) -> Tensor:
    """Return maps (1, 5, 64, 64) that tell of the boxes (1, M, 4), pixels, and of nothing else."""
    maps = torch.full((1, 5, CELLS, CELLS), -9.0)
    for left, top, right, bottom in (boxes[0] / CELL).tolist():
        if right <= left:
            continue
        x, y = int((left + right) / 2), int((top + bottom) / 2)
        maps[0, 0, y, x] = 9
        for row in range(max(0, y - 8), min(CELLS, y + 9)):
            for column in range(max(0, x - 8), min(CELLS, x + 9)):
                far = (column + 0.5 - left, row + 0.5 - top, right - column - 0.5,
                       bottom - row - 0.5)  # fmt: skip
                if min(far) > 0:
                    wanted = torch.tensor(far) / 16
                    maps[0, 1:, row, column] = wanted.expm1().log()  # softplus undone
    return maps


class Fixed(nn.Module):
    """A network that answers the same maps, and keeps what it was given."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return self.maps.expand(len(images), -1, -1, -1)


def test_the_loss_of_right_maps_is_small_and_grows_with_every_fault() -> None:
    right = maps_of(BOXES)
    lowest = detector_loss(right, BOXES)
    assert lowest < 0.3
    moved = BOXES + torch.tensor([8.0, 0, 8, 0]) * (BOXES > 0)
    missed = torch.cat([BOXES, torch.tensor([[[10.0, 100, 35, 180]]])], 1)
    wider = BOXES.clone()
    wider[0, 0, 2] += 30
    for other in (moved, missed, wider, BOXES[:, 1:]):
        assert detector_loss(right, other) > lowest + 0.1


def test_people_too_small_to_be_found_cost_nothing_either_way() -> None:
    small = torch.tensor([[[200.0, 200, 206, 211]]])
    told = torch.cat([BOXES, small], 1)
    for maps in (maps_of(BOXES), maps_of(told)):
        assert detector_loss(maps, told) < 0.3
    assert detector_loss(maps_of(told), BOXES) > 1


def test_nobody_in_a_batch_is_a_loss_that_can_be_learnt_from() -> None:
    maps = torch.zeros(2, 5, CELLS, CELLS, requires_grad=True)
    detector_loss(maps, torch.zeros(2, 3, 4)).backward()
    assert maps.grad is not None and bool(maps.grad.isfinite().all())
    assert bool((maps.grad[:, 0] > 0).all())


def test_boxes_come_back_in_the_pixels_of_the_photo() -> None:
    detector = BodiesDetector(Fixed(maps_of(BOXES)), "cpu", 0.5)
    image = np.zeros((256, 512, 3), np.uint8)  # at half its size, 64 rows of black above it
    (boxes, scores), _ = detector.detect([image, image])
    whole = (BOXES[0, :2] - torch.tensor([0, 64.0, 0, 64])) * 2
    expected = whole.clamp(min=0).minimum(torch.tensor([512.0, 256, 512, 256]))
    order = np.argsort(boxes[:, 0])
    np.testing.assert_allclose(boxes[order], expected, atol=0.01)
    np.testing.assert_allclose(scores, 0.9999, atol=1e-3)


def test_a_photo_is_shown_whole_in_its_shape_with_black_beside_it() -> None:
    network = Fixed(maps_of(BOXES))
    BodiesDetector(network, "cpu", 0.5)(np.full((120, 60, 3), 255, np.uint8))
    black = network.seen.amin()
    inside = (network.seen[0, 0] > black + 1).nonzero()
    assert inside.amin(0).tolist() == [0, 64] and inside.amax(0).tolist() == [255, 191]


def test_of_boxes_that_overlap_the_best_is_kept_and_the_threshold_holds() -> None:
    maps = maps_of(BOXES)
    maps[0, 0, 34, 22] = 5  # beside the middle of the first
    maps[0, 0, 13, 45] = 0  # the second is as likely as not
    detector = BodiesDetector(Fixed(maps), "cpu", 0.6)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    boxes, scores = detector(image)
    np.testing.assert_allclose(boxes, BOXES[0, :1], atol=0.01)
    detector.threshold = 0.4
    assert len(detector(image)[0]) == 2


def test_second_views_keep_boxes_around_people() -> None:
    images, people = torch.zeros(24, 3, 64, 64), torch.zeros(24, 4, 4)
    for i in range(24):
        x, y = 3 + i, 30 - i
        images[i, :, y : y + 20, x : x + 12] = 1
        people[i, 0] = torch.tensor([x, y, x + 12, y + 20])
    views, boxes = second_views(images, people, np.random.default_rng(1))
    counts = (boxes[..., 2] > 0).sum(1)
    assert set(counts.tolist()) == {1, 4}
    for view, rows in zip(views, boxes):
        left = view.amax(0) > 0.02
        for x1, y1, x2, y2 in rows[rows[:, 2] > 0].round().int().tolist():
            assert left[y1:y2, x1:x2].float().mean() > 0.9
            left[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
        assert not left.any()


@pytest.fixture(scope="module")
def photos() -> Photos:
    return Photos(5, 16)


def test_the_packaged_weights_find_large_people(photos: Photos) -> None:
    images, boxes = photos[0]
    detector = build_detector("bodies")
    large = found = 0
    for image, rows in zip(images[:8], boxes[:8]):
        own = rows[(rows[:, 2:] - rows[:, :2]).amax(1) > 0.3 * SIZE]
        kept = torch.from_numpy(detector(image.permute(1, 2, 0).numpy().copy())[0])
        large += len(own)
        found += int((box_iou(own, kept) > 0.5).any(1).sum()) if len(kept) else 0
    assert large >= 5 and found >= 0.7 * large


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / WEIGHTS).write_bytes((ASSETS / WEIGHTS).read_bytes()[:-1] + b"x")
    monkeypatch.setattr("posezoo.detectors.bodies.ASSETS", tmp_path)
    with pytest.raises(IntegrityError):
        build_detector("bodies")


def test_a_photo_is_predicted_offline_in_one_line(photos: Photos, tmp_path: Path) -> None:
    images, _ = photos[0]
    file = tmp_path / "photo.png"
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file)
    result = CliRunner().invoke(main, ["predict", str(file), "--model", "hrnet_s_192x144.bodies"])
    assert result.exit_code == 0, result.output
    assert "1 photo, " in result.output and "no people" not in result.output


def test_rendered_photos_come_with_a_box_for_everyone(photos: Photos) -> None:
    images, boxes = photos[0]
    assert images.shape == (16, 3, SIZE, SIZE) and boxes.shape == (16, 16, 4)
    known = boxes[..., 2] > boxes[..., 0]
    assert known.any(1).float().mean() > 0.8
    share = ((boxes[..., 2:] - boxes[..., :2]).amax(-1) / SIZE)[known]
    assert share.min() < 0.3 and share.max() > 0.6
    again, same = Photos(5, 16)[0]
    assert torch.equal(images, again) and torch.equal(boxes, same)
    assert not torch.equal(photos[1][0], images)


def test_a_training_writes_weights_that_another_goes_on_from(tmp_path: Path) -> None:
    out, said = tmp_path / "new" / "detector.safetensors", []
    options = {"seed": 1, "minutes": 0.001, "out": out, "batch_size": 2, "device": "cpu"}
    assert train_detector(**options, report=said.append) == 1  # type: ignore[arg-type]
    assert f"--init {out} --first 1" in said[-1] and out.stat().st_mode & 0o044
    network = build_network()
    load_checkpoint(network, out)
    assert boxes_of(network.eval()(torch.zeros(1, 3, SIZE, SIZE))).shape == (1, CELLS, CELLS, 4)
    torch.manual_seed(1)
    moved = [
        not torch.equal(a, b.half().float())
        for a, b in zip(network.parameters(), build_network().parameters())
    ]
    assert any(moved)
    options |= {"init": str(out), "first": 1, "minutes": 60, "stop": lambda: True}
    assert train_detector(**options, report=said.append) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0"], "minutes is 0"),
        (["--batch-size", "3"], "batch_size is 3; give an even number"),
        (["--lr", "nan"], "lr is nan"),
        (["--init", "none.safetensors"], "no such file"),
        (["--init", "tokenpose_xs_128x96.rendered"], "fills 41%"),
        (["--device", "gpu"], "device is 'gpu'"),
        (["--out", "."], "it is no file"),
    ],
)
def test_bad_options_of_a_training_are_told_in_a_line_before_it_starts(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--seed", "1", "--minutes", "1", "--out", "f.safetensors", "--device", "cpu", *options]
    result = CliRunner().invoke(train, given)
    assert result.exit_code in (1, 2) and words in result.output
    assert result.output.startswith("posezoo: error: ") and result.output.count("\n") == 1
    assert not list(tmp_path.glob("*.*"))


def test_images_of_any_size_are_looked_at_together_and_others_refused() -> None:
    detector = BodiesDetector(Fixed(maps_of(BOXES)), "cpu", 0.5)
    images = [np.zeros(size, np.uint8) for size in ((256, 512, 3), (90, 60, 3), (1, 1, 3))]
    together = detector.detect(images)
    for image, (boxes, _) in zip(images, together):
        np.testing.assert_array_equal(boxes, detector(image)[0])
    assert detector.detect([]) == []
    for bad in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)):
        with pytest.raises(InputError, match="give uint8 RGB"):
            detector(bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="from 0 to 1"):
        build_detector("bodies", threshold=float("nan"))


def test_a_detector_that_cannot_be_loaded_leaves_earlier_results_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    out = tmp_path / "out.csv"
    out.write_text("earlier\n")
    monkeypatch.setattr("posezoo.detectors.bodies.ASSETS", tmp_path)
    options = ["--model", "hrnet_s_192x144.bodies", "--out", str(out)]
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "photo.png"), *options])
    assert result.exit_code == 1 and "install posezoo again" in result.output
    assert out.read_text() == "earlier\n" and len(list(tmp_path.glob("*.*"))) == 2
