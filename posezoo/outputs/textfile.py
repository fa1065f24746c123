"""Text files that grow frame by frame and are complete at any moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_text, writing
from ..streaming.found import FrameResult
from .formats import TextFormat
from .sink import Sink

__all__ = ["FilePerInput", "StandardOutput", "TextFile", "TextSink", "UnitTexts", "merge_texts"]


class TextFile:
    """Texts with `joint` between them, after `head` and before `tail`, which moves on.

    Args:
        path: the file.
        head: written first.
        joint: written between texts.
        tail: written last.
        length: bytes that are kept of a file that is there; 0 begins anew.

    Raises:
        DataError: it cannot be written, or is shorter than that.
    """

    def __init__(
        self, path: Path, head: str = "", joint: str = "", tail: str = "", length: int = 0
    ) -> None:
        self.path = path
        self._head, self._joint, self._tail = head.encode(), joint.encode(), tail.encode()
        self.length = length or len(self._head)
        if length and (not path.is_file() or path.stat().st_size < length):
            raise DataError(
                f"{path} has fewer than the {length} bytes that the unfinished run wrote; bring it "
                "back, or delete the run's .progress file to begin anew"
            )
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "r+b" if length else "wb")  # noqa: SIM115  see close
            if not length:
                self._file.write(self._head)
            self._finish()

    def write(self, text: str) -> None:
        """Add a text; it is in the file when this returns."""
        data = text.encode(errors="backslashreplace")  # names of files that are no Unicode
        if not data:
            return
        if self.length > len(self._head):
            data = self._joint + data
        with writing(self.path):
            self._file.seek(self.length)
            self._file.write(data)
            self.length += len(data)
            self._finish()

    def _finish(self) -> None:
        self._file.seek(self.length)
        self._file.write(self._tail)
        self._file.truncate()
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with writing(self.path):
            self._file.close()


class TextSink(Sink):
    """One file with the texts of all frames."""

    def __init__(self, path: Path, form: TextFormat) -> None:
        self.path, self.form = path, form
        self._length = 0
        self._file: TextFile | None = None

    def restore(self, state: Any) -> None:
        self._length = state["length"]

    def begin(self, unit: int) -> None:
        self._open()

    def _open(self) -> TextFile:
        if self._file is None:
            form = self.form
            self._file = TextFile(self.path, form.head, form.joint, form.tail, self._length)
        return self._file

    def write(self, frames: Sequence[FrameResult]) -> None:
        file = self._open()
        for found in frames:
            file.write(self.form.text(found))

    def checkpoint(self) -> Any:
        return {"length": self._open().length}

    def close(self) -> None:
        self._open().close()


class UnitTexts(Sink):
    """A file of texts per unit, for several processes; `merge_texts` puts them together."""

    def __init__(self, folder: Path, form: TextFormat) -> None:
        self.folder, self.form = folder, form
        self._length = 0
        self._file: TextFile | None = None

    def restore(self, state: Any) -> None:
        self._length = state["length"]

    def begin(self, unit: int) -> None:
        path = self.folder / f"{unit:08d}.txt"
        self._file = TextFile(path, joint=self.form.joint, length=self._length)
        self._length = 0

    def write(self, frames: Sequence[FrameResult]) -> None:
        assert self._file is not None
        for found in frames:
            self._file.write(self.form.text(found))

    def checkpoint(self) -> Any:
        return {"length": 0 if self._file is None else self._file.length}

    def end(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def close(self) -> None:
        self.end()


class FilePerInput(Sink):
    """A JSON file per photo, and JSON lines per film.

    Args:
        files: of each source.
        form: of the texts.
    """

    def __init__(self, files: Mapping[str, Path], form: TextFormat) -> None:
        self.files, self.form = files, form
        self._length = 0
        self._film: TextFile | None = None

    def restore(self, state: Any) -> None:
        self._length = state["length"]

    def write(self, frames: Sequence[FrameResult]) -> None:
        for found in frames:
            path = self.files[found.source]
            if found.time is None:
                with writing(path):
                    write_text(path, self.form.text(found))
                continue
            if self._film is None:
                self._film = TextFile(path, length=self._length)
                self._length = 0
            self._film.write(self.form.text(found))

    def checkpoint(self) -> Any:
        return {"length": 0 if self._film is None else self._film.length}

    def end(self) -> None:
        if self._film is not None:
            self._film.close()
        self._film = None

    def close(self) -> None:
        self.end()


class StandardOutput(Sink):
    """Texts to standard output, as they come."""

    def __init__(self, form: TextFormat) -> None:
        self.form = form

    def write(self, frames: Sequence[FrameResult]) -> None:
        try:
            sys.stdout.write("".join(map(self.form.text, frames)))
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read has seen enough
            raise
        except OSError as error:
            raise DataError(
                f"cannot write standard output: {error.strerror}; make room, or give --out"
            ) from error


def merge_texts(folder: Path, units: int, path: Path, form: TextFormat) -> None:
    """Write one file from those of all units.

    Raises:
        DataError: it cannot be written, or one of them is missing.
    """
    with writing(path):
        file = TextFile(path.with_name(f".{path.name}.merged"), form.head, form.joint, form.tail)
        for unit in range(units):
            file.write((folder / f"{unit:08d}.txt").read_text(encoding="utf-8"))
        file.close()
        os.replace(file.path, path)
