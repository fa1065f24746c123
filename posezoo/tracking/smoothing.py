"""Keypoints of a film without jitter, track by track and keypoint by keypoint.

`OneEuroSmoother` looks back only and answers at once, for cameras. `SavitzkyGolaySmoother` also
looks ahead, half a window, and is better where that may be: in films. Both go by the keypoint
scores: what was hardly found moves nothing, and where nothing was found nothing is made up. Such
keypoints come out as they went in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..results import PoseResult

__all__ = ["OneEuroSmoother", "SavitzkyGolaySmoother", "Smoother"]

Array = NDArray[np.float64]
Timed = tuple[PoseResult, float]
"""A result with ids, and the time of its frame in seconds."""


class Smoother(Protocol):
    """Frames in, smooth frames out, in the same order, some of them later."""

    def push(self, result: PoseResult, time: float) -> list[Timed]:
        """Take the next frame; return those that are finished.

        Args:
            result: a frame with ids, as `Tracker.update` returns it.
            time: of the frame, in seconds; later than that of the frame before.

        Raises:
            InputError: no ids, two persons of one id, or a time that is not later.
        """

    def flush(self) -> list[Timed]:
        """Return the frames that wait for more: the film is over."""

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on, in plain JSON types."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another smoother of the same settings was, to the bit."""


@dataclasses.dataclass
class _Filter:
    """One person: smooth keypoints (K, 2), their speeds (K, 2), and when (K,) they were seen."""

    points: Array
    speeds: Array
    times: Array


class OneEuroSmoother:
    """The 1€ filter (Casiez, Roussel and Vogel, CHI 2012): calm at rest, prompt in motion.

    A low-pass filter whose cutoff is `min_cutoff + beta * speed`. Two things are of our own.
    Speeds are in body sizes (square root of the box's area) per second, of both axes together, so
    that the same settings fit every resolution and direction. And the weight of a new point is
    multiplied by its score, if that is below 1; below `threshold` it is 0.

    Args:
        min_cutoff: Hz, at rest; lower is calmer and later.
        beta: Hz per body size a second; higher is prompter in motion.
        speed_cutoff: Hz, of the low-pass filter of the speed.
        threshold: keypoint score below which a point does not count.
        max_gap: seconds after which a keypoint that comes back starts afresh.

    Raises:
        InputError: a setting that is not positive.
    """

    def __init__(
        self,
        min_cutoff: float = 1.0,
        beta: float = 10.0,
        speed_cutoff: float = 1.0,
        threshold: float = 0.3,
        max_gap: float = 0.5,
    ) -> None:
        for name, value in (
            ("min_cutoff", min_cutoff), ("speed_cutoff", speed_cutoff), ("max_gap", max_gap),
        ):  # fmt: skip
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}; valid: a positive number")
        if not (math.isfinite(beta) and beta >= 0):
            raise InputError(f"beta is {beta}; valid: 0 or a positive number")
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self.threshold, self.max_gap = threshold, max_gap
        self._filters: dict[int, _Filter] = {}
        self._time = -math.inf

    def push(self, result: PoseResult, time: float) -> list[Timed]:
        """Return the frame, smooth; see `Smoother.push`."""
        ids = _checked(result, time, self._time)
        self._time = time
        smooth = result.keypoints.copy()
        for i, track in enumerate(ids):
            is_found = _found(result, i, self.threshold)
            x1, y1, x2, y2 = result.bboxes[i].astype(np.float64).tolist()
            size = math.sqrt(max(1.0, (x2 - x1) * (y2 - y1)))  # NaN gives 1
            if track not in self._filters:
                nothing = np.zeros(result.keypoints.shape[1:])
                self._filters[track] = _Filter(nothing, nothing, np.full(len(nothing), -math.inf))
            self._step(
                self._filters[track],
                result.keypoints[i].astype(np.float64),
                np.where(is_found, result.keypoint_scores[i].astype(np.float64), 0).clip(0, 1),
                size,
            )
            smooth[i][is_found] = self._filters[track].points[is_found]
        self._filters = {
            track: kept for track, kept in self._filters.items()
            if time - kept.times.max() <= self.max_gap
        }  # fmt: skip
        return [(dataclasses.replace(result, keypoints=smooth), time)]

    def _step(self, kept: _Filter, points: Array, weights: Array, size: float) -> None:
        """Move a person's state on to its points (K, 2) of now; weight 0 is a gap."""
        elapsed = self._time - kept.times  # (K,), infinite if never seen
        counts = weights > 0
        starts = (counts & (elapsed > self.max_gap))[:, None]
        goes_on = (counts & (elapsed <= self.max_gap))[:, None]
        seconds = np.where(goes_on[:, 0], elapsed, 1.0)[:, None]
        weight = weights[:, None]
        points = np.where(counts[:, None], points, 0)
        change = (points - kept.points) / (seconds * size)
        speeds = kept.speeds + weight * _alpha(self.speed_cutoff, seconds) * (change - kept.speeds)
        cutoff = self.min_cutoff + self.beta * np.linalg.norm(speeds, axis=1, keepdims=True)
        moved = kept.points + weight * _alpha(cutoff, seconds) * (points - kept.points)
        kept.points = np.where(starts, points, np.where(goes_on, moved, kept.points))
        kept.speeds = np.where(starts, 0, np.where(goes_on, speeds, kept.speeds))
        kept.times = np.where(counts, self._time, kept.times)

    def flush(self) -> list[Timed]:
        """Return nothing: no frame waits."""
        return []

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on, in plain JSON types."""
        return {
            "time": _finite(self._time),
            "tracks": [
                {
                    "id": track,
                    "points": kept.points.tolist(),
                    "speeds": kept.speeds.tolist(),
                    "times": [_finite(time) for time in kept.times.tolist()],
                }
                for track, kept in self._filters.items()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another smoother of the same settings was, to the bit.

        Raises:
            DataError: not such a state.
        """
        try:
            filters = {
                int(track["id"]): _Filter(
                    np.array(track["points"], np.float64).reshape(-1, 2),
                    np.array(track["speeds"], np.float64).reshape(-1, 2),
                    np.array([_time(time) for time in track["times"]]),
                )
                for track in state["tracks"]
            }
            self._time, self._filters = _time(state["time"]), filters
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a state of OneEuroSmoother: {error}") from error


class SavitzkyGolaySmoother:
    """Savitzky and Golay (1964): the value of a polynomial fitted to a window around each frame.

    The fit is of least squares over the true times of the frames, weighted by the keypoint
    scores; a frame in which the keypoint was not found has weight 0. With equal scores and a
    steady rate this is `scipy.signal.savgol_filter`, which knows neither scores, gaps nor uneven
    rates. At the ends of the film, and where a track begins or ends, the window is cut; with too
    few points left for a fit they stay as they are. A frame comes out `window // 2` frames after
    it went in; only `window` frames are held.

    Args:
        window: frames, an odd number; longer is calmer, and blurs quick motion.
        order: of the polynomial.
        threshold: keypoint score below which a point does not count.

    Raises:
        InputError: an even or small window, or an order that it does not allow.
    """

    def __init__(self, window: int = 9, order: int = 2, threshold: float = 0.3) -> None:
        if window < 3 or window % 2 == 0:
            raise InputError(f"window is {window}; valid: an odd number of frames from 3 on")
        if not 0 <= order < window - 1:
            raise InputError(f"order is {order}; valid: 0 to {window - 2} for {window} frames")
        self.window, self.order, self.threshold = window, order, threshold
        self._frames: list[Timed] = []  # at most one window
        self._done = 0  # of them have been returned

    def push(self, result: PoseResult, time: float) -> list[Timed]:
        """Take the frame; return the one that is finished now, if any; see `Smoother.push`."""
        _checked(result, time, self._frames[-1][1] if self._frames else -math.inf)
        self._frames.append((result, time))
        return [self._next()] if len(self._frames) - self._done > self.window // 2 else []

    def flush(self) -> list[Timed]:
        """Return the frames that wait for more: the film is over."""
        rest = [self._next() for _ in self._frames[self._done :]]
        self._frames, self._done = [], 0
        return rest

    def _next(self) -> Timed:
        """Return the first frame that has not been returned, smooth, and drop what is too old."""
        result, time = self._frames[self._done]
        smooth = result.keypoints.copy()
        assert result.ids is not None  # push has checked
        for i, track in enumerate(result.ids.tolist()):
            self._fit(track, time, smooth[i], _found(result, i, self.threshold))
        self._done += 1
        if self._done > self.window // 2:
            self._frames, self._done = self._frames[1:], self._done - 1
        return dataclasses.replace(result, keypoints=smooth), time

    def _fit(self, track: int, now: float, out: NDArray[Any], is_found: NDArray[np.bool_]) -> None:
        """Replace the found points of `out` (K, 2), a person now, by those of the fit."""
        rows, times = [], []
        for result, time in self._frames:
            assert result.ids is not None
            for i in np.flatnonzero(result.ids == track):
                scores = np.minimum(result.keypoint_scores[i].astype(np.float64), 1)
                weights = np.where(_found(result, int(i), self.threshold), scores, 0)
                points = np.where(weights[:, None] > 0, result.keypoints[i], 0)
                rows.append(np.concatenate([points, weights[:, None]], axis=1))
                times.append(time - now)
        reach = max(map(abs, times))
        if not reach:
            return
        data = np.stack(rows)  # (W, K, 3)
        powers = np.vander(np.array(times) / reach, self.order + 1, increasing=True)  # (W, P)
        fits = is_found & ((data[..., 2] > 0).sum(axis=0) >= self.order + 2)
        points, weights = data[:, fits, :2], data[:, fits, 2]
        normal = np.einsum("wp,wk,wq->kpq", powers, weights, powers)
        right = np.einsum("wp,wk,wkc->kpc", powers, weights, points)
        out[fits] = np.linalg.solve(normal, right)[:, 0]

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on, in plain JSON types."""
        return {
            "done": self._done,
            "frames": [{"time": t, "result": result.to_dict()} for result, t in self._frames],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another smoother of the same settings was, to the bit.

        Raises:
            DataError: not such a state.
        """
        try:
            frames = [
                (PoseResult.from_dict(frame["result"]), float(frame["time"]))
                for frame in state["frames"]
            ]
            done = int(state["done"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a state of SavitzkyGolaySmoother: {error}") from error
        if not 0 <= done <= len(frames) <= self.window:
            raise DataError(
                f"the state holds {len(frames)} frames, {done} of them done; this smoother holds "
                f"up to {self.window}"
            )
        self._frames, self._done = frames, done


def _checked(result: PoseResult, time: float, last: float) -> list[int]:
    """Return the ids of a frame that follows one at time `last`."""
    if result.ids is None:
        raise InputError("smoothing needs to know who is who; give Tracker().update(result)")
    ids: list[int] = result.ids.tolist()
    if len(set(ids)) != len(ids):
        raise InputError(f"two persons of a frame have one id: {sorted(ids)}")
    if not (math.isfinite(time) and time > last):
        raise InputError(f"the time is {time} s after {last} s; times of frames must rise")
    return ids


def _found(result: PoseResult, person: int, threshold: float) -> NDArray[np.bool_]:
    """Tell which keypoints (K,) of a person count."""
    scores = result.keypoint_scores[person]
    with np.errstate(invalid="ignore"):
        is_scored = (scores >= threshold) & (scores > 0) & np.isfinite(scores)
    found: NDArray[np.bool_] = is_scored & np.isfinite(result.keypoints[person]).all(axis=1)
    return found


def _alpha(cutoff: float | Array, seconds: Array) -> Array:
    """Return the weight of a new value in a low-pass filter of so many Hz (the paper's alpha)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


def _finite(time: float) -> float | None:
    return time if math.isfinite(time) else None


def _time(value: float | None) -> float:
    return -math.inf if value is None else float(value)
