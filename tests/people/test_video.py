"""Films are read and written frame by frame, each frame at its time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av")

import av

from people import make_film, moving, picture
from posezoo.errors import DataError, InputError
from posezoo.media import Camera, Film
from posezoo.media.film import FilmWriter
from posezoo.media.frames import FrameChoice
from posezoo.media.video import frame_rate, read_video


def _center(image):
    """x of the bright square of `moving`."""
    return float(np.nonzero(image[40, :, 0] > 150)[0].mean()) - 9.5


def test_frames_come_back_in_order_with_their_times(tmp_path):
    frames = list(read_video(Film(make_film(tmp_path / "clip.mp4", 40))))
    assert [frame.index for frame in frames] == list(range(40))
    assert np.allclose([frame.time for frame in frames], np.arange(40) / 25, atol=1e-3)
    assert all(abs(_center(frame.image) - frame.index) < 1 for frame in frames)
    assert frame_rate(tmp_path / "clip.mp4") == 25


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_a_variable_rate_stays(tmp_path, ending):
    times = [0, 0.04, 0.08, 1.5, 1.54, 3.0]
    with FilmWriter(tmp_path / f"v{ending}", Fraction(25)) as film:
        for i, time in enumerate(times):
            film.write(moving(i), time)
            if i == 2:
                film.close_part()
    found = [frame.time for frame in read_video(Film(tmp_path / f"v{ending}"))]
    assert np.allclose(found, times, atol=2e-3)
    assert [path.name for path in tmp_path.iterdir()] == [f"v{ending}"]  # parts are gone


def test_choice_of_frames(tmp_path):
    film = Film(make_film(tmp_path / "clip.mp4", 40))

    def chosen(**options):
        return [frame.index for frame in read_video(film, FrameChoice(**options))]

    assert chosen(every=10) == [0, 10, 20, 30]
    assert chosen(start=0.5, stop=0.8) == list(range(13, 20))
    assert chosen(every=3, start=0.5, limit=2) == [15, 18]
    late = list(read_video(film, FrameChoice(start=9)))
    assert len(late) == 1 and "no frame from second 9 on; it has 40 frames" in str(late[0].error)
    for bad in (
        {"every": 0},
        {"start": -1},
        {"start": float("nan")},
        {"start": 2, "stop": 2},
        {"limit": 0},
    ):
        with pytest.raises(InputError, match="valid: "):
            FrameChoice(**bad)


def test_rotation_in_the_file_is_applied(tmp_path):
    with av.open(str(make_film(tmp_path / "clip.mp4", 3))) as source:
        with av.open(str(tmp_path / "turned.mp4"), "w") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            stream.set_display_rotation(90)
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    plain = next(iter(read_video(Film(tmp_path / "clip.mp4")))).image
    turned = next(iter(read_video(Film(tmp_path / "turned.mp4")))).image
    assert turned.shape == (120, 90, 3)
    assert np.array_equal(turned, np.rot90(plain))


def test_a_damaged_middle_costs_its_frames(tmp_path):
    path = tmp_path / "clip.mp4"
    with FilmWriter(path, Fraction(25)) as film:
        for i in range(60):
            film.write(picture(i), i / 25)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40_000] = np.random.default_rng(0).bytes(40_000)
    path.write_bytes(data)
    frames = list(read_video(Film(path)))
    bad = [frame.index for frame in frames if frame.error is not None]
    assert 0 < len(bad) < 10 and all(20 < index < 40 for index in bad)
    assert [frame.index for frame in frames] == list(range(60))
    path = make_film(tmp_path / "clip.mkv", 100)  # the rest of this one cannot be found again
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(range(200)) * 2
    path.write_bytes(data)
    assert "seconds: it was cut short, or is damaged" in str(list(read_video(Film(path)))[-1].error)


def test_a_film_cut_short_says_so(tmp_path):
    path = make_film(tmp_path / "clip.mp4", 60)
    with av.open(str(path)) as source:  # an index at the front, as on the web
        with av.open(str(tmp_path / "web.mp4"), "w", options={"movflags": "faststart"}) as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    whole = (tmp_path / "web.mp4").read_bytes()
    (tmp_path / "web.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    frames = list(read_video(Film(tmp_path / "web.mp4")))
    assert "web.mp4" in str(frames[-1].error) and "of 60 frames" in str(frames[-1].error)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="clip.mp4: .*damaged or cut short"):
        list(read_video(Film(path)))


def test_what_is_no_film_is_named(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no film at all")
    with av.open(str(tmp_path / "none.mkv"), "w") as out:
        out.add_stream("libx264", rate=25)
        out.start_encoding()
    with av.open(str(tmp_path / "sound.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    for name, words in (
        ("empty.mp4", "is empty"), ("text.mp4", "it is no video"), ("sound.mkv", "no video stream"),
        ("gone.mp4", "no video file at"), ("none.mkv", "cannot read .*none.mkv: End of file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            list(read_video(Film(tmp_path / name)))
    with pytest.raises(InputError, match="camera 97 cannot be opened"):
        list(read_video(Camera(97)))


def test_parts_survive_and_are_joined_to_the_same_film(tmp_path):
    def write(film, frames):
        for i in frames:
            film.write(moving(i), i / 25)
            if i % 10 == 9:
                film.close_part()

    with FilmWriter(tmp_path / "whole.mp4", Fraction(25)) as whole:
        write(whole, range(40))
    interrupted = FilmWriter(tmp_path / "again.mp4", Fraction(25))
    write(interrupted, range(27))  # killed: two parts are finished
    with FilmWriter(tmp_path / "again.mp4", Fraction(25), parts=2) as again:
        write(again, range(20, 40))
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_film_keeps_the_size_of_its_first_frame(tmp_path):
    path = tmp_path / "film.mp4"
    film = FilmWriter(path, Fraction(25))
    film.write(moving(0)[:, :101], 0)
    film.close_part()
    with FilmWriter(path, Fraction(25), parts=1) as film:
        film.write(moving(0)[:40, :81], 1)
        film.write(moving(0)[:, :100], 2)
    images = [frame.image for frame in read_video(Film(path))]
    assert [image.shape for image in images] == [(90, 100, 3)] * 3
    assert images[1][:15].max() < 20 and images[1][45].mean() > 30  # black above and below
    with FilmWriter(path, Fraction(25)) as film:
        film.write(np.full((1, 1, 3), 200, np.uint8), 0)
    assert next(read_video(Film(path))).image.shape == (2, 2, 3)


def test_films_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="valid endings: .mp4"):
        FilmWriter(tmp_path / "film.gif", Fraction(25))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        FilmWriter(tmp_path / "file" / "film.mp4", Fraction(25))
