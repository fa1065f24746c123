"""Tracking and smoothing on rendered films of three people who cross.

    python benchmarks/tracks.py --films 10

Each film has 300 frames of 270 x 480 pixels at 25 frames a second; its people are seen as by a
detector and a pose network (`posezoo.synthetic.noisy_poses`: jitter, missed people, poses of the
wrong person). A switch is an id that differs from the person's last one; it counts as "after
absence" if the person was not in the results for more than 12 frames. Roboflow's package `trackers`
is compared if it is installed, with its defaults and with settings that suit the films.

Smoothing is measured at keypoints in sight with a score above 0.3: the mean distance to the truth,
and the mean acceleration in pixels per frame squared, of moving people and of people at rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from posezoo.results import PoseResult
from posezoo.synthetic import FilmFrame, noisy_poses, render_film
from posezoo.tracking import OneEuroSmoother, SavitzkyGolaySmoother, Smoother, Tracker

Frame = tuple[PoseResult, np.ndarray, FilmFrame]
Update = Callable[[PoseResult], np.ndarray]

_ABSENT = 12  # frames
_RATE = 25.0
_PATIENT = {"lost_track_buffer": 60, "minimum_consecutive_frames": 1}
_EAGER = _PATIENT | {"track_activation_threshold": 0.5}
_LIBRARY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ByteTrackTracker", {}),
    ("ByteTrackTracker", _EAGER | {"high_conf_det_threshold": 0.5}),
    ("OCSORTTracker", {}),
    ("OCSORTTracker", _PATIENT),
    ("SORTTracker", {}),
    ("SORTTracker", _EAGER),
    ("BoTSORTTracker", {}),
    ("CBIoUTracker", {}),
    ("CBIoUTracker", _PATIENT),
)


def make_films(count: int, first: int) -> list[list[Frame]]:
    films = []
    for seed in range(first, first + count):
        rng = np.random.default_rng((7, seed))
        frames = []
        for frame in render_film(seed):
            slim = dataclasses.replace(frame, image=np.zeros((*frame.image.shape[:2], 0), np.uint8))
            frames.append((*noisy_poses(slim, rng), slim))
        films.append(frames)
    return films


def at_rest(film: list[Frame], seed: int) -> list[Frame]:
    """Return as many frames of the first picture that shows everybody."""
    still = max((frame for *_, frame in film), key=lambda frame: len(frame.ids))
    rng = np.random.default_rng((8, seed))
    return [(*noisy_poses(still, rng), still) for _ in film]


def ours() -> Update:
    tracker = Tracker()

    def update(result: PoseResult) -> np.ndarray:
        ids = tracker.update(result).ids
        assert ids is not None
        return ids

    return update


def of_library(name: str, settings: dict[str, Any]) -> Update:
    supervision = importlib.import_module("supervision")
    tracker = getattr(importlib.import_module("trackers"), name)(**settings)

    def update(result: PoseResult) -> np.ndarray:
        detections = supervision.Detections(
            xyxy=result.bboxes.astype(float),
            confidence=result.bbox_scores.astype(float),
            class_id=np.zeros(len(result), int),
            data={"person": np.arange(len(result))},
        )
        found = tracker.update(detections)
        ids = np.full(len(result), -1)
        if len(found):
            ids[found.data["person"]] = found.tracker_id
        return ids

    return update


def count_switches(films: list[list[Frame]], make: Callable[[], Update]) -> dict[str, int]:
    counts = {"switches": 0, "after_absence": 0, "without_id": 0, "ids": 0}
    for film in films:
        update, used = make(), set()
        last: dict[int, tuple[int, int]] = {}  # person -> frame, id
        for t, (result, people, _) in enumerate(film):
            for person, track in zip(people.tolist(), update(result).tolist()):
                if track < 0:
                    counts["without_id"] += 1
                    continue
                if person in last and last[person][1] != track:
                    is_back = t - last[person][0] > _ABSENT
                    counts["after_absence" if is_back else "switches"] += 1
                last[person] = t, track
                used.add(track)
        counts["ids"] += len(used)
    return counts


def measure(films: list[list[Frame]], make: Callable[[], Smoother] | None) -> dict[str, float]:
    """Return error (pixels) and acceleration (pixels per frame squared), with true ids."""
    errors, accelerations = [], []
    for film in films:
        frames = [
            (dataclasses.replace(result, ids=people), t / _RATE)
            for t, (result, people, _) in enumerate(film)
        ]
        if make is not None:
            smoother = make()
            frames = [done for frame in frames for done in smoother.push(*frame)]
            frames += smoother.flush()
        people_count = 1 + max(int(frame.ids.max(initial=0)) for *_, frame in film)
        found = np.full((len(film), people_count, 17, 2), np.nan)
        truth = found.copy()
        for t, (result, _) in enumerate(frames):
            _, people, frame = film[t]
            for i, person in enumerate(people):
                row = frame.keypoints[int(np.flatnonzero(frame.ids == person)[0])]
                shown = (row[:, 2] == 2) & (result.keypoint_scores[i] > 0.3)
                found[t, person, shown] = result.keypoints[i, shown]
                truth[t, person, shown] = row[shown, :2]
        errors.append(np.linalg.norm(found - truth, axis=-1))
        accelerations.append(np.linalg.norm(np.diff(found, 2, axis=0), axis=-1))
    return {
        "error": round(float(np.nanmean(np.concatenate(errors))), 2),
        "acceleration": round(float(np.nanmean(np.concatenate(accelerations))), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--first", type=int, default=10, help="seed of the first film")
    args = parser.parse_args()
    films = make_films(args.films, args.first)
    persons = sum(len(people) for film in films for _, people, _ in film)
    print(f"{args.films} films, {persons} persons in frames, {3 * args.films} true ids")
    rows: dict[str, Any] = {"ours": count_switches(films, ours)}
    if importlib.util.find_spec("trackers") is not None:
        for name, settings in _LIBRARY:
            label = name + (" tuned" if settings else "")
            rows[label] = count_switches(films, lambda n=name, s=settings: of_library(n, s))
    rest = [at_rest(film, seed) for seed, film in enumerate(films)]
    smoothers: dict[str, Callable[[], Smoother] | None] = {
        "as found": None,
        "one euro": OneEuroSmoother,
        "savitzky-golay": SavitzkyGolaySmoother,
    }
    for label, make in smoothers.items():
        rows[label] = {"moving": measure(films, make), "at rest": measure(rest, make)}
    for label, row in rows.items():
        print(f"{label:24s} {row}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
