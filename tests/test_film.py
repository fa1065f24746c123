"""Rendered films: the same people in every frame, who move, cross, leave and come back."""

from __future__ import annotations

import numpy as np
import pytest

from posezoo.errors import InputError
from posezoo.synthetic import FilmFrame, noisy_poses, render_film


def _film(frames: int = 300) -> list[FilmFrame]:
    return list(render_film(2, frames=frames, size=(60, 100)))


def test_the_same_seed_gives_the_same_film() -> None:
    for a, b in zip(_film(6), _film(6)):
        assert a.image.tobytes() == b.image.tobytes()
        assert a.keypoints.tobytes() == b.keypoints.tobytes()


def test_people_move_little_from_frame_to_frame_cross_and_the_first_leaves_and_returns() -> None:
    film = _film()
    places = np.full((300, 3), np.nan)
    for t, frame in enumerate(film):
        assert frame.keypoints.shape == (len(frame.ids), 17, 3)
        places[t, frame.ids] = frame.bboxes[:, [0, 2]].mean(axis=1)
    steps = np.abs(np.diff(places, axis=0))
    assert (
        np.nanmedian(steps) < 3 and np.nanmax(np.ptp(places[~np.isnan(places[:, 1])], axis=0)) > 30
    )
    for a, b in ((0, 1), (0, 2), (1, 2)):
        sides = np.sign(places[:, a] - places[:, b])
        assert {-1.0, 1.0} <= set(sides[~np.isnan(sides)])
    is_there = ~np.isnan(places[:, 0])
    first, last = np.flatnonzero(is_there)[[0, -1]]
    assert (~is_there[first:last]).sum() > 20


def test_noisy_poses_are_near_the_truth_and_sometimes_missing() -> None:
    rng, errors, missing = np.random.default_rng(0), [], 0
    for frame in _film(60):
        result, ids = noisy_poses(frame, rng)
        missing += len(frame.ids) - len(ids)
        for i, person in enumerate(ids):
            truth = frame.keypoints[int(np.flatnonzero(frame.ids == person)[0])]
            seen = truth[:, 2] == 2
            errors.append(np.linalg.norm(result.keypoints[i, seen] - truth[seen, :2], axis=1))
            assert result.keypoint_scores[i, seen].min() > 0.5
    assert 0 < np.median(np.concatenate(errors)) < 1 and 0 < missing < 40


@pytest.mark.parametrize("bad", [{"frames": 0}, {"people": 0}, {"size": (20, 50)}], ids=str)
def test_films_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match="cannot render"):
        next(render_film(1, **bad))  # type: ignore[arg-type]
