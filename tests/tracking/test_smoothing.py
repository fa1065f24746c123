"""Smoothing: calmer, nearer to the truth, nothing made up, and resumed to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from posezoo.errors import DataError, InputError
from posezoo.results import PoseResult
from posezoo.tracking import OneEuroSmoother, SavitzkyGolaySmoother, Smoother, Tracker

from .made import POSE, film, people

BOTH = pytest.mark.parametrize("make", [OneEuroSmoother, SavitzkyGolaySmoother])
Make = Callable[[], Smoother]


def _run(smoother: Smoother, frames: list[PoseResult], rate: float = 25.0) -> list[PoseResult]:
    out = [
        done for i, frame in enumerate(frames) for done in smoother.push(frame, i / rate)
    ] + smoother.flush()  # fmt: skip
    assert [time for _, time in out] == [i / rate for i in range(len(frames))]
    return [result for result, _ in out]


def _noisy(positions: NDArray[np.float64], sigma: float) -> list[PoseResult]:
    rng = np.random.default_rng(5)
    return [
        people((x, 50.0), ids=[1], shift=rng.normal(0, sigma, (1, 17, 2))) for x in positions
    ]  # fmt: skip


def _acceleration(frames: list[PoseResult]) -> float:
    points = np.stack([frame.keypoints for frame in frames]).astype(np.float64)
    return float(np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean())


def _error(frames: list[PoseResult], positions: NDArray[np.float64]) -> float:
    truth = [POSE + [x, 50.0] for x in positions]
    return float(
        np.mean([np.linalg.norm(f.keypoints[0] - t, axis=1) for f, t in zip(frames, truth)])
    )


@BOTH
def test_jitter_of_a_person_at_rest_goes_down_and_the_error_too(make: Make) -> None:
    positions = np.full(100, 200.0)
    frames = _noisy(positions, 2.0)
    smooth = _run(make(), frames)
    assert _acceleration(smooth) < 0.3 * _acceleration(frames)
    assert _error(smooth, positions) < 0.7 * _error(frames, positions)


@BOTH
def test_jitter_of_a_walking_person_goes_down(make: Make) -> None:
    positions = 50 + 3.0 * np.arange(100)
    frames = _noisy(positions, 2.0)
    smooth = _run(make(), frames)
    assert _acceleration(smooth) < 0.75 * _acceleration(frames)
    assert _error(smooth, positions) < 1.3 * _error(frames, positions)


def test_savitzky_golay_is_scipys_where_scipy_can_go() -> None:
    signal = pytest.importorskip("scipy.signal")
    frames = _noisy(200 + 80 * np.sin(np.arange(60) / 7), 1.0)
    raw = np.stack([frame.keypoints[0] for frame in frames]).astype(np.float64)
    for window, order in ((9, 2), (5, 1), (11, 4)):
        smooth = _run(SavitzkyGolaySmoother(window, order), frames)
        expected = signal.savgol_filter(raw, window, order, axis=0)
        half = window // 2
        found = np.stack([frame.keypoints[0] for frame in smooth])
        np.testing.assert_allclose(found[half:-half], expected[half:-half], rtol=1e-6)


def test_a_polynomial_stays_as_it_is_also_at_uneven_rates_and_over_gaps() -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.01, 0.08, 40))
    frames = [people((100 + 90 * t - 20 * t * t, 50 + 30 * t), ids=[7]) for t in times]
    frames[20] = people(ids=[])
    smoother, out = SavitzkyGolaySmoother(9, 2), []
    for frame, time in zip(frames, times):
        out += smoother.push(frame, float(time))
    out += smoother.flush()
    for (smooth, _), frame in zip(out, frames):
        np.testing.assert_allclose(smooth.keypoints, frame.keypoints, rtol=1e-5)


def test_one_euro_follows_its_equations() -> None:
    smoother = OneEuroSmoother(min_cutoff=1.0, beta=2.0, speed_cutoff=1.5)
    smoother.push(people((100, 50), ids=[1]), 0.0)
    ((smooth, _),) = smoother.push(people((110, 50), ids=[1]), 0.04)
    tau = 1 / (2 * np.pi * 1.5)
    speed = 0.9 * (10 / 0.04 / np.sqrt(4000)) / (1 + tau / 0.04)
    alpha = 0.9 / (1 + 1 / (2 * np.pi * (1 + 2 * speed)) / 0.04)
    expected = POSE[:, 0] + 100 + alpha * 10
    np.testing.assert_allclose(smooth.keypoints[0, :, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(smooth.keypoints[0, :, 1], POSE[:, 1] + 50, rtol=1e-5)


@BOTH
def test_points_that_were_not_found_come_out_as_they_went_in_and_move_nothing(make: Make) -> None:
    clean = [people((100, 50), ids=[1]) for _ in range(20)]
    broken = [people((100, 50), ids=[1], scores=np.full(17, 0.9)) for _ in range(20)]
    arrays = [(frame.keypoints, frame.keypoint_scores.copy()) for frame in broken]
    for i, (points, scores) in enumerate(arrays):
        if i % 3 == 1:
            points[0, 5], scores[0, 5] = 900.0, 0.1
            points[0, 6] = np.nan
        broken[i] = PoseResult(
            keypoints=points, keypoint_scores=scores, bboxes=clean[i].bboxes,
            bbox_scores=clean[i].bbox_scores, skeleton=clean[i].skeleton, image_size=(480, 640),
            ids=clean[i].ids,
        )  # fmt: skip
    for i, (smooth, frame) in enumerate(zip(_run(make(), broken), broken)):
        found = np.ones(17, bool)
        if i % 3 == 1:
            found[[5, 6]] = False
        np.testing.assert_array_equal(smooth.keypoints[0, ~found], frame.keypoints[0, ~found])
        np.testing.assert_allclose(smooth.keypoints[0, found], (POSE + [100, 50])[found], rtol=1e-5)
        np.testing.assert_array_equal(smooth.keypoint_scores, frame.keypoint_scores)


@BOTH
def test_a_low_score_moves_less(make: Make) -> None:
    def moved(score: float) -> float:
        frames = [people((100, 50), ids=[1]) for _ in range(9)]
        frames[4] = people((120, 50), ids=[1], scores=score)
        return float(_run(make(), frames)[4].keypoints[0, 0, 0] - POSE[0, 0] - 100)

    assert 0 < moved(0.35) < 0.8 * moved(0.9)


@BOTH
def test_people_do_not_mix_and_their_order_is_free(make: Make) -> None:
    frames = [
        people((100, 50), (300, 90), ids=[1, 2])
        if i % 2
        else people((300, 90), (100, 50), ids=[2, 1])
        for i in range(15)
    ]
    for smooth, frame in zip(_run(make(), frames), frames):
        np.testing.assert_allclose(smooth.keypoints, frame.keypoints, rtol=1e-5)


def test_one_euro_starts_afresh_after_a_gap() -> None:
    smoother = OneEuroSmoother(max_gap=0.5)
    smoother.push(people((0, 0), ids=[1]), 0.0)
    ((short, _),) = smoother.push(people((60, 0), ids=[1]), 0.5)
    assert short.keypoints[0, 0, 0] < POSE[0, 0] + 60
    ((long, _),) = smoother.push(people((0, 0), ids=[1]), 1.1)
    np.testing.assert_allclose(long.keypoints[0], POSE, rtol=1e-6)
    for i in range(40):
        smoother.push(people(ids=[]), 2.0 + i)
    assert smoother.state()["tracks"] == []


def test_savitzky_golay_holds_one_window_and_is_half_a_window_late() -> None:
    smoother = SavitzkyGolaySmoother(window=9)
    counts = [len(smoother.push(people((i, 0), ids=[1]), float(i))) for i in range(50)]
    assert counts == [0] * 4 + [1] * 46
    assert len(smoother.state()["frames"]) <= 9
    assert len(smoother.flush()) == 4 and smoother.flush() == []


@BOTH
@pytest.mark.parametrize("stop", [0, 3, 120])
def test_a_restored_smoother_goes_on_to_the_bit(make: Make, stop: int) -> None:
    tracker = Tracker()
    frames = [tracker.update(result) for result, _ in film()[:160]]
    whole, first, second = make(), make(), make()
    expected = _run(whole, frames)
    out = [r for i in range(stop) for r in first.push(frames[i], i / 25)]
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    out += [r for i in range(stop, 160) for r in second.push(frames[i], i / 25)] + second.flush()
    assert [r.keypoints.tobytes() for r, _ in out] == [r.keypoints.tobytes() for r in expected]


@BOTH
def test_frames_without_ids_or_out_of_order_are_refused(make: Make) -> None:
    smoother = make()
    with pytest.raises(InputError, match=r"Tracker\(\).update\(result\)"):
        smoother.push(people((0, 0)), 0.0)
    with pytest.raises(InputError, match=r"two persons of a frame have one id: \[3, 3\]"):
        smoother.push(people((0, 0), (9, 9), ids=[3, 3]), 0.0)
    smoother.push(people((0, 0), ids=[1]), 1.0)
    for time in (1.0, 0.5, float("nan")):
        with pytest.raises(InputError, match="times of frames must rise"):
            smoother.push(people((0, 0), ids=[1]), time)
    with pytest.raises(DataError, match="not a state of"):
        smoother.restore({"frames": 3})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SavitzkyGolaySmoother(8), "window is 8; valid: an odd number"),
        (lambda: SavitzkyGolaySmoother(1), "window is 1"),
        (lambda: SavitzkyGolaySmoother(5, 4), "order is 4; valid: 0 to 3 for 5 frames"),
        (lambda: OneEuroSmoother(min_cutoff=0), "min_cutoff is 0; valid: a positive number"),
        (lambda: OneEuroSmoother(beta=-1), "beta is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()
