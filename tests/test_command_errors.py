"""What the command line says when something goes wrong: one line, and a status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from posezoo.cli import main
from posezoo.errors import DataError, InputError


@pytest.fixture
def failing(request):
    """A command that raises the error of the test."""

    @click.command("fail")
    def fail() -> None:
        raise request.param

    main.add_command(fail)
    yield
    del main.commands["fail"]


@pytest.mark.parametrize(
    ("failing", "status", "line"),
    [
        (InputError("first\n  second:\nthird"), 2, "first. second: third"),
        (DataError("a.json: row 3"), 1, "a.json: row 3"),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 1, "No space left: /x/y"),
        (OSError(errno.ENOSPC, "No space left"), 1, "No space left"),
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError: by zero; `posezoo --debug"),
    ],
    indirect=["failing"],
)
def test_an_error_is_one_line_and_a_status(failing, status, line):
    result = CliRunner().invoke(main, ["fail"])
    assert result.exit_code == status
    assert result.output.startswith(f"posezoo: error: {line}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("failing", [ZeroDivisionError("x")], indirect=True)
def test_debug_shows_where(failing):
    result = CliRunner().invoke(main, ["--debug", "fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_reader_that_has_seen_enough_hears_nothing():
    listing = subprocess.Popen(
        [sys.executable, "-m", "posezoo", "list", "--tags", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert listing.stdout is not None and listing.stderr is not None
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.wait(timeout=60)


@pytest.mark.parametrize("encoding", ["latin-1", "cp437", "cp850"])
def test_help_is_printed_on_terminals_that_know_few_characters(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "posezoo", "predict", "--help"],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0 and b"--draw" in done.stdout
