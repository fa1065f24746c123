"""ImageNet accuracy from logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from posezoo.errors import DataError, InputError
from posezoo.evaluation import evaluate_classification, score_logits


def batch(size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 10, generator=generator)
    return logits, torch.randint(10, (size,), generator=generator)


def test_accuracy_is_that_of_all_images() -> None:
    logits, labels = batch(40)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    result = evaluate_classification(score_logits(logits, labels).double().numpy())
    assert result.top1 == pytest.approx((ranks < 1).double().mean().item())
    assert result.top5 == pytest.approx((ranks < 5).double().mean().item())


def test_loss_is_averaged_over_batches_of_128_unweighted_and_over_images() -> None:
    logits, labels = batch(300)
    losses = F.cross_entropy(logits, labels, reduction="none").double().numpy()
    result = evaluate_classification(score_logits(logits, labels).double().numpy())
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
    ("shapes", "words"),
    [
        (((4, 10), (3,)), "belong|expected"),
        (((0, 10), (0,)), "B above 0"),
        (((4, 3), (4,)), "top-5"),
    ],
)
def test_shapes_that_do_not_belong_together(shapes, words) -> None:
    logits, labels = torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.long)
    with pytest.raises(InputError, match=words):
        score_logits(logits, labels)
