"""ImageNet-1k: class folders or the development kit to samples, logits to accuracy, a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

import posezoo
from evaluation.made import evaluate
from posezoo.datasets import read_imagenet
from posezoo.errors import DataError, InputError
from posezoo.evaluation import (
    Share,
    evaluate_classification,
    read_imagenet_flat,
    read_imagenet_folders,
    score_logits,
)
from posezoo.zoo.model import Classifier

NAMES = ImageNetInfo("imagenet-1k").label_names()


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_1.JPEG").touch()
    return tmp_path


def test_class_folders_are_numbered_in_sorted_order_and_must_be_all(class_folders: Path) -> None:
    (class_folders / "n01443537" / "n01443537_0.JPEG").touch()
    samples = read_imagenet_folders(class_folders)
    assert len(samples) == 1001 and samples == read_imagenet(class_folders)
    assert [(s.path.name, s.label) for s in samples[:4]] == [
        ("n01440764_1.JPEG", 0), ("n01443537_0.JPEG", 1), ("n01443537_1.JPEG", 1),
        ("n01484850_1.JPEG", 2),
    ]  # fmt: skip
    assert samples[-1].label == 999
    (class_folders / "n01440764" / "n01440764_1.JPEG").unlink()
    with pytest.raises(DataError, match="n01440764"):
        read_imagenet_folders(class_folders)
    (class_folders / "n01440764").rename(class_folders / "tench")
    with pytest.raises(DataError, match="1 missing: n01440764; 1 unknown: tench"):
        read_imagenet_folders(class_folders)


def test_few_class_folders_are_refused_with_the_count(tmp_path: Path) -> None:
    (tmp_path / "n01443537").mkdir()
    message = "holds 1 class folders, not the 1000 .* 999 missing: n01440764, n01484850, .*…"
    with pytest.raises(DataError, match=message):
        read_imagenet_folders(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read_imagenet_folders(tmp_path / "none")


def test_classes_of_ones_own_are_folders_in_sorted_order(tmp_path: Path) -> None:
    for name in ("sit", "lie", "stand"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "1.jpg").touch()
    samples = read_imagenet(tmp_path, num_classes=3)
    assert [(s.path.parent.name, s.label) for s in samples] == [
        ("lie", 0),
        ("sit", 1),
        ("stand", 2),
    ]
    with pytest.raises(DataError, match="holds 3 class folders .lie, sit, stand .*has 4 classes"):
        read_imagenet(tmp_path, num_classes=4)
    hits = score_logits(torch.eye(3), torch.tensor([0, 2, 1]))
    assert hits[:, :2].tolist() == [[1, 1], [0, 1], [0, 1]]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Three validation images of the devkit's classes 1000, 1 and 2; IDs run backwards here."""
    for i in (1, 2, 3):
        (tmp_path / f"ILSVRC2012_val_{i:08d}.JPEG").touch()
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1000\n1\n2\n")
    (tmp_path / "synsets.txt").write_text("\n".join(reversed(NAMES)))
    return tmp_path


def test_flat_folder_takes_labels_through_the_synsets_or_meta_mat(flat: Path) -> None:
    samples = read_imagenet(flat)
    assert [s.label for s in samples] == [0, 999, 998]
    assert [s.path.name[-8:-5] for s in samples] == ["001", "002", "003"]
    names = [*reversed(NAMES), "n00001740"]  # a high-level synset comes after the 1000
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("num_children", "f8")]
    rows = [(i, name, float(i > 1000)) for i, name in enumerate(names, 1)]
    savemat(flat / "meta.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]})
    (flat / "synsets.txt").unlink()
    assert read_imagenet(flat) == samples


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("truth.txt", "1000\n0\n2\n", "line 2 is '0'; valid: an ILSVRC2012_ID from 1 to 1000"),
        ("truth.txt", "1000\n1001\n2\n", "line 2 is '1001'"),
        ("truth.txt", "1000\nn01440764\n2\n", "line 2 is 'n01440764'"),
        ("truth.txt", "1000\n1\n", "3 validation images, .* 2 lines; .* only one of them: 3"),
        ("synsets.txt", "n01440764\nx1\n", "lists 2 synsets, not the 1000 .* unknown: x1"),
        ("synsets.txt", "\n".join(NAMES), "sorted order, which is not that of ILSVRC"),
        ("meta.mat", "<html>", "cannot read .*meta.mat as a MATLAB file"),
    ],
)
def test_bad_devkit_lists_are_refused(name: str, text: str, message: str, flat: Path) -> None:
    (flat / "truth.txt").write_text("1000\n1\n2\n")
    (flat / name).write_text(text)
    synsets = flat / (name if name == "meta.mat" else "synsets.txt")
    with pytest.raises(DataError, match=message):
        read_imagenet_flat(flat, flat / "truth.txt", synsets)


def test_missing_devkit_files_are_named(flat: Path) -> None:
    truth, synsets = flat / "ILSVRC2012_validation_ground_truth.txt", flat / "synsets.txt"
    (flat / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(DataError, match="holds 2 validation images, .* only one of them: 2"):
        read_imagenet_flat(flat, truth, synsets)
    with pytest.raises(DataError, match="cannot read .*none.txt as text"):
        read_imagenet_flat(flat, flat / "none.txt", synsets)
    with pytest.raises(DataError, match="is not a folder"):
        read_imagenet_flat(flat / "none", truth, synsets)
    savemat(flat / "meta.mat", {"other": np.zeros(3)})
    with pytest.raises(DataError, match="is not meta.mat of the ILSVRC2012 development kit"):
        read_imagenet_flat(flat, truth, flat / "meta.mat")


def batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, 10, generator=generator)
    return logits, torch.randint(10, (size,), generator=generator)


def test_accuracy_is_that_of_all_images_and_the_loss_that_of_batches_of_128() -> None:
    logits, labels = batch(300)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    result = evaluate_classification(score_logits(logits, labels).double().numpy())
    assert result.top1 == pytest.approx((ranks < 1).double().mean().item())
    assert result.top5 == pytest.approx((ranks < 5).double().mean().item())
    losses = F.cross_entropy(logits, labels, reduction="none").double().numpy()
    means = [losses[:128].mean(), losses[128:256].mean(), losses[256:].mean()]
    assert result.loss == pytest.approx(np.mean(means), rel=1e-6)
    assert result.loss_per_image == pytest.approx(losses.mean(), rel=1e-6)
    assert result.loss != pytest.approx(result.loss_per_image, rel=1e-5)


def test_half_precision_logits_get_a_float32_loss() -> None:
    logits, labels = batch(64)
    expected = F.cross_entropy(logits.half().float(), labels, reduction="none")
    torch.testing.assert_close(score_logits(logits.half(), labels)[:, 2], expected)


def test_nothing_and_nan_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate_classification(np.zeros((0, 3)))
    logits, labels = batch(4)
    logits[2, 3] = float("nan")
    with pytest.raises(DataError, match="NaN .*first for image 2"):
        evaluate_classification(score_logits(logits, labels).double().numpy())


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [((4, 10), 3, "belong|expected"), ((0, 10), 0, "B above 0")],
)
def test_shapes_that_do_not_belong_together(logits, labels, words) -> None:
    with pytest.raises(InputError, match=words):
        score_logits(torch.zeros(logits), torch.zeros(labels, dtype=torch.long))


class Hue(Classifier):
    """Says the class whose number is the mean red value."""

    num_classes = 1000

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = posezoo.get_pretrained_cfg("uniformer_small")

    def forward(self, x: Tensor) -> Tensor:
        red = (x[:, 0].mean((1, 2)) * 0.229 + 0.485) * 255
        return -(red[:, None] - torch.arange(1000)).abs()


def test_run_in_shares_and_with_a_bad_image(tmp_path: Path) -> None:
    """30 images whose red value is their class, two of them wrong."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    order = np.random.default_rng(0).permutation(1000)
    (data / "synsets.txt").write_text("\n".join(NAMES[k] for k in order) + "\n")
    numbers = {int(k): i + 1 for i, k in enumerate(order)}
    lines = []
    for i in range(1, 31):
        red = i * 7 + (3 if i in (5, 9) else 0)
        file = data / f"ILSVRC2012_val_{i:08d}.JPEG"
        Image.new("RGB", (40, 50), (red,) * 3).save(file, quality=100, subsampling=0)
        lines.append(str(numbers[i * 7]))
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")
    record = evaluate(Hue(), data, batch_size=8)
    assert record.statistics["top1"] == pytest.approx(28 / 30)
    table = record.table()
    assert "in1k  float32  30 images, 30 results" in table and "93.3" in table
    for i in (1, 0):
        last = evaluate(Hue(), data, out=out, share=Share(index=i, count=2))
    assert last.statistics == record.statistics
    (data / "ILSVRC2012_val_00000005.JPEG").write_bytes(b"no")
    record = evaluate(Hue(), data)
    assert len(record.bad) == 1 and "count as empty: 1" in record.table()
    assert record.statistics["top1"] == pytest.approx(28 / 30)
