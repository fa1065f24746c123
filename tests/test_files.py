"""The one reader of JSON files."""

from __future__ import annotations

import pytest

from posezoo.errors import DataError, InputError
from posezoo.files import load_json, writing


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_in_any_unicode_encoding_is_read(tmp_path, encoding):
    file = tmp_path / "x.json"
    file.write_bytes('{"é[[": [1, "[[[["]}'.encode(encoding))
    assert load_json(file) == {"é[[": [1, "[[[["]}


def test_brackets_in_names_are_no_levels(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('["' + "[" * 300 + '\\"", "' + "{" * 300 + '"]')
    assert len(load_json(file)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 65 + "]" * 65, "is nested too deep; valid: up to 64 levels"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "is nested too deep"),
        ("[" * 100_000, "is nested too deep"),
        ("[[], " * 1000 + "1" + "]" * 1000, "is nested too deep"),
        ("[1" + "0" * 400 + "]", "has a number of 401 digits"),
        ('{"a": 1', "not complete JSON"),
        ("\x80", "not complete JSON"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_hostile_or_broken_file_is_one_error(tmp_path, text, message, encoding):
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("latin-1") if text == "\x80" else text.encode(encoding))
    with pytest.raises(DataError, match=f"cannot read {file}: .*{message}"):
        load_json(file)
    with pytest.raises(InputError):
        load_json(file, InputError)


def test_deepest_valid_file_is_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("[" * 64 + "]" * 64)
    assert load_json(file)


def test_full_disk_is_told_with_the_file(tmp_path):
    with pytest.raises(DataError, match="cannot write .*x: No space left on device; .*make room"):
        with writing(tmp_path / "x"), open("/dev/full", "w") as file:
            file.write("1")
