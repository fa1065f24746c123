"""Reading images: metadata that must not matter, recorded sizes, deep pixels, other files."""

from __future__ import annotations

import logging
import os
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from posezoo.errors import InputError
from posezoo.images import load_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def _exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of entries (tag, type, count, data), written by hand: Pillow refuses odd ones."""
    rows, rest = b"", b""
    after = 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in entries:
        if len(data) > 4:
            data, rest = struct.pack("<I", after + len(rest)), rest + data
        rows += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    return head + rows + struct.pack("<I", 0) + rest


def _saved(path, orientation=1, *entries):
    exif = _exif((0x0112, 3, 1, struct.pack("<H", orientation)), *entries)
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        (0x011A, 10, 1, struct.pack("<ii", -1, 0)),  # a resolution of -1 / 0
        (0x8298, 7, 2, b"\x00\xff"),  # a copyright that is no text
        (0x011B, 2, 4, b"abc\0"),  # a resolution that is a text
        (0x8769, 4, 1, b"\xff\xff\xff\x7f"),  # more tags, beyond the end of the file
    ],
)
def test_other_exif_tags_do_not_matter(tmp_path, entry):
    assert (load_image(_saved(tmp_path / "p.png", 3, entry)) == PIXELS[::-1, ::-1]).all()


def test_orientation_that_is_no_number_is_upright(tmp_path):
    exif = _exif((0x0112, 2, 4, b"odd\0"))
    Image.fromarray(PIXELS).save(tmp_path / "p.png", exif=exif)
    assert (load_image(tmp_path / "p.png") == PIXELS).all()


def test_png_with_much_text_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 3_000_000, zip=True)
    Image.fromarray(PIXELS).save(tmp_path / "p.png", pnginfo=info)
    assert (load_image(tmp_path / "p.png") == PIXELS).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_labels_follow_the_frame_that_has_the_recorded_size(tmp_path, orientation):
    path = _saved(tmp_path / "p.png", orientation)
    upright = load_image(path)
    assert (load_image(path, recorded_size=(6, 9)) == PIXELS).all()  # as it is stored
    if orientation in (6, 8):
        assert (load_image(path, recorded_size=(9, 6)) == upright).all()
    with pytest.raises(InputError, match=r"p.png is .*annotated as 12x18: .*resized"):
        load_image(path, recorded_size=(12, 18))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_white_of_a_deep_image_is_that_of_its_bits(tmp_path, bits, caplog):
    white = (1 << bits) - 1
    values = np.array([[0, white // 3, white]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with caplog.at_level(logging.WARNING):
        assert load_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 85, 255]
    assert (f"{bits}-bit values" in caplog.text) == (bits < 16)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\x00\x00\x00\x18ftypheic", "HEIC photo.*pillow-heif"),
        (b"\x00\x00\x00\x18ftypisom", "is a video"),
        (b"\x1a\x45\xdf\xa3 matroska", "is a video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "is a video"),
        (b"%PDF-1.7", "is a PDF"),
        (b"<!DOCTYPE html>", "is a web page or an SVG drawing"),
        (b"", "is empty"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, head, words):
    (tmp_path / "p.jpg").write_bytes(head and head + bytes(64))
    with pytest.raises(InputError, match=words):
        load_image(tmp_path / "p.jpg")


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_empty_pillow_image_is_named(size):
    with pytest.raises(InputError, match=f"empty: {size[0]} x {size[1]} pixels"):
        load_image(Image.new("RGB", size))


def test_pipe_and_folder_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="no regular file"):
        load_image(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)


def test_array_is_the_only_large_copy_beside_pillows_own(tmp_path):
    Image.new("RGB", (2000, 2000), (9, 9, 9)).save(tmp_path / "large.png")
    tracemalloc.start()
    try:
        array = load_image(tmp_path / "large.png")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * array.nbytes


def test_large_image_is_read_in_strips_as_it_is(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (1700, 1301, 3), np.uint8)  # four strips and a part of one
    Image.fromarray(pixels).save(tmp_path / "large.png", compress_level=1)
    assert np.array_equal(load_image(tmp_path / "large.png"), pixels)
