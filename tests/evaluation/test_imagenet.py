from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from posezoo.errors import DataError, InputError
from posezoo.evaluation import ClassificationMeter


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 10, generator=generator),
            torch.randint(10, (size,), generator=generator),
        )
        for size in sizes
    ]


def test_accuracy_is_that_of_all_images_whatever_the_batches() -> None:
    meter = ClassificationMeter()
    parts = batches(8, 8, 3)
    for logits, labels in parts:
        meter.update(logits, labels)
    logits, labels = (torch.cat(column) for column in zip(*parts))
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    result = meter.result()
    assert result.top1 == pytest.approx((ranks < 1).double().mean().item())
    assert result.top5 == pytest.approx((ranks < 5).double().mean().item())
    assert (result.images, result.batches) == (19, 3)


def test_loss_is_averaged_over_batches_unweighted_and_over_images() -> None:
    meter = ClassificationMeter()
    parts = batches(8, 8, 3)
    for logits, labels in parts:
        meter.update(logits, labels)
    means = [F.cross_entropy(logits, labels).item() for logits, labels in parts]
    result = meter.result()
    assert result.loss == pytest.approx(sum(means) / 3, rel=1e-6)
    per_image = (8 * sum(means[:2]) + 3 * means[2]) / 19
    assert result.loss_per_image == pytest.approx(per_image, rel=1e-6)
    assert result.loss != pytest.approx(result.loss_per_image, rel=1e-4)


def test_half_precision_logits_get_a_float32_loss() -> None:
    ((logits, labels),) = batches(64)
    meter = ClassificationMeter()
    meter.update(logits.half(), labels)
    expected = F.cross_entropy(logits.half().float(), labels).item()
    assert meter.result().loss == pytest.approx(expected, rel=1e-6)


def test_no_batch_is_refused() -> None:
    with pytest.raises(DataError, match="no batch"):
        ClassificationMeter().result()


def test_logits_that_are_not_finite_are_refused() -> None:
    ((logits, labels),) = batches(4)
    logits[2, 1] = float("nan")
    meter = ClassificationMeter()
    meter.update(logits, labels)
    with pytest.raises(DataError, match="NaN or infinite logits"):
        meter.result()


@pytest.mark.parametrize(
    ("logits", "labels"), [((4, 10), (3,)), ((4, 10), (4, 1)), ((4,), (4,)), ((0, 10), (0,))]
)
def test_shapes_that_do_not_belong_together_are_refused(
    logits: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="expected .B, classes."):
        ClassificationMeter().update(torch.zeros(logits), torch.zeros(labels, dtype=torch.long))


def test_fewer_than_five_classes_are_refused() -> None:
    with pytest.raises(InputError, match="4 classes; top-5 needs"):
        ClassificationMeter().update(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))


@pytest.mark.cuda
def test_adding_a_batch_does_not_wait_for_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ((logits, labels),) = batches(64)
    on_cpu, on_gpu = ClassificationMeter(), ClassificationMeter("cuda")
    on_cpu.update(logits, labels)
    device_batch = logits.cuda(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu.update(*device_batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert on_gpu.result().top1 == on_cpu.result().top1
    assert on_gpu.result().loss == pytest.approx(on_cpu.result().loss, rel=1e-6)
