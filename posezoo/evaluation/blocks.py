"""Blocks of samples in the folder of a run, each one file once it is done.

A process takes every n-th block, so shares need no padding. Blocks that are there already are not
done again, which makes them checkpoints; each carries a checksum over the run and its rows, and
one that is damaged or of another run is done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import load_json, replacing, writing
from ..runs.folder import RunFolder
from ..runs.shares import Share
from .reading import BadImage, Rows

__all__ = ["BlockFolder", "write_json"]

_BLOCK = 16  # images per file


class BlockFolder:
    """The blocks of a run below its output folder.

    Args:
        out: the output folder.
        paths: the image of each sample.
        keeps_rows: whether rows stay in memory until they are merged, so that they need not be
            read again.
    """

    def __init__(self, out: Path, paths: Sequence[Path], *, keeps_rows: bool = False) -> None:
        self.out, self.paths, self.keeps_rows = out, paths, keeps_rows
        self.folder = out / "blocks"
        self.run = RunFolder(self.folder)
        self.identity = ""
        count = len(paths)
        self.blocks = [range(i, min(i + _BLOCK, count)) for i in range(0, count, _BLOCK)]
        self._kept: dict[int, list[dict[str, Any]]] = {}

    def locked(self, share: Share) -> AbstractContextManager[None]:
        """Keep other processes from writing the same; see `RunFolder.locked`."""
        return self.run.locked(share)

    def open(self, identity: Mapping[str, Any], *, join: bool) -> None:
        """Make the folder, or make sure that the one that is there belongs to this run.

        Args:
            identity: what a run that goes on must have in common with the one before.
            join: whether to go on with an unfinished run.

        Raises:
            DataError: it cannot be written, or holds another run, or one that is not to be joined.
        """
        digest = hashlib.sha256("\n".join(map(str, self.paths)).encode()).hexdigest()
        self.identity = json.dumps({**identity, "samples": digest}, sort_keys=True)
        self.run.open(json.loads(self.identity), join=join)

    def of(self, share: Share) -> list[range]:
        """Return the blocks of a share."""
        return self.blocks[share.index :: share.count]

    def missing(self, share: Share) -> list[range]:
        """Return the blocks of a share that are not done yet, or damaged."""
        return [block for block in self.of(share) if self._read(block) is None]

    def write(self, block: range, results: Sequence[Rows | BadImage]) -> None:
        """Write the rows of a block's samples, in order."""
        entries = [
            {"sample": i, "bad": str(rows)}
            if isinstance(rows, BadImage)
            else {"sample": i, "rows": rows}
            for i, rows in zip(block, results)
        ]
        text = json.dumps(entries)
        content = f'{{"checksum": "{self._checksum(block, text)}", "entries": {text}}}'
        _write(self._path(block), content)
        if self.keeps_rows:
            self._kept[block.start] = entries

    def merging(self) -> AbstractContextManager[bool]:
        """Tell whether all blocks are done and nobody else merges them; see `RunFolder.merging`."""
        return self.run.merging(lambda: all(self._path(block).is_file() for block in self.blocks))

    def merge(self) -> tuple[list[Rows], dict[str, str]]:
        """Return the rows of every sample, and the reason for each image that was not used.

        Raises:
            DataError: blocks are missing or damaged, or no image could be used.
        """
        ordered: list[dict[str, Any]] = []
        for block in self.blocks:
            entries = self._kept.get(block.start) or self._read(block)
            if entries is None:
                raise DataError(
                    f"samples {block.start} to {block.stop - 1} of {len(self.paths)} are missing "
                    f"in {self.folder}; run the other shares, or this one again with --resume"
                )
            ordered += entries
        bad = {str(self.paths[e["sample"]]): e["bad"] for e in ordered if "bad" in e}
        if len(bad) == len(set(self.paths)):
            first, reason = next(iter(bad.items()))
            raise DataError(f"none of the {len(bad)} images could be used, first {first}: {reason}")
        return [entry.get("rows", []) for entry in ordered], bad

    def remove(self) -> None:
        """Delete the blocks."""
        self.run.remove()

    def _read(self, block: range) -> list[dict[str, Any]] | None:
        """Return the entries of a block, None where it is not there, damaged or of another run."""
        try:
            content = load_json(self._path(block))
        except DataError:
            return None
        if not isinstance(content, dict) or set(content) != {"checksum", "entries"}:
            return None
        entries: list[dict[str, Any]] = content["entries"]
        valid = content["checksum"] == self._checksum(block, json.dumps(entries))
        return entries if valid else None

    def _checksum(self, block: range, entries: str) -> str:
        text = f"{self.identity} {block.start} {entries}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _path(self, block: range) -> Path:
        return self.folder / f"{block.start:08d}.json"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file under another name and move it into place.

    Raises:
        DataError: it cannot be written.
    """
    _write(path, json.dumps(value))


def _write(path: Path, text: str) -> None:
    with writing(path), replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
