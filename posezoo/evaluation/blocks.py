"""The folder of a run while it lasts: blocks of samples, each one file once it is done.

A process takes every n-th block, so shares need no padding. Blocks that are there already are not
done again, which makes them checkpoints; each carries a checksum over the run and its rows, and
one that is damaged or of another run is done again. Whoever finds them all merges them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import load_json, writing
from ..lock import one_writer
from ..shares import Share
from ..weights.files import replacing
from .reading import BadImage, Rows

__all__ = ["BlockFolder", "write_json"]

_BLOCK = 16  # images per file


class BlockFolder:
    """The blocks of a run below its output folder.

    Args:
        out: the output folder.
        paths: the image of each sample.
    """

    def __init__(self, out: Path, paths: Sequence[Path]) -> None:
        self.out, self.paths = out, paths
        self.folder = out / "blocks"
        self.identity = ""
        count = len(paths)
        self.blocks = [range(i, min(i + _BLOCK, count)) for i in range(0, count, _BLOCK)]

    @contextmanager
    def locked(self, share: Share) -> Iterator[None]:
        """Keep others from writing the same: any run beside a whole one, and the same share twice.

        Raises:
            DataError: another process does, or the folder cannot be written.
        """
        with one_writer(self.folder, shared=share.count > 1):
            with one_writer(self.folder, f"share-{share.index}-of-{share.count}.lock"):
                yield

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
        wanted = json.loads(self.identity)
        note = self.folder / "run.json"
        found = self._noted(note)
        if found is None:
            write_json(note, wanted)
            return
        if found != wanted:
            keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
            raise DataError(
                f"{self.out} holds an unfinished run that differs in {', '.join(keys)}; "
                "give another --out, or delete its blocks"
            )
        if not join:
            raise DataError(
                f"{self.out} holds an unfinished run of the same settings; give --resume to finish "
                "it, or delete its blocks"
            )

    def _noted(self, note: Path) -> dict[str, Any] | None:
        """Return what the folder says about its run; None where nothing readable does."""
        try:
            found = load_json(note)
        except DataError:
            return None
        return found if isinstance(found, dict) else None

    def missing(self, share: Share) -> list[range]:
        """Return the blocks of a share that are not done yet, or damaged."""
        mine = self.blocks[share.index :: share.count]
        return [block for block in mine if self._read(block) is None]

    def write(self, block: range, results: Sequence[Rows | BadImage]) -> None:
        """Write the rows of a block's samples, in order."""
        entries = [
            {"sample": i, "bad": str(rows)}
            if isinstance(rows, BadImage)
            else {"sample": i, "rows": rows}
            for i, rows in zip(block, results)
        ]
        checksum = self._checksum(block, entries)
        write_json(self._path(block), {"checksum": checksum, "entries": entries})

    def claim(self) -> bool:
        """Tell whether all blocks are done and no other process has begun to merge them."""
        if not all(self._path(block).is_file() for block in self.blocks):
            return False
        try:
            (self.folder / "merging").touch(exist_ok=False)
        except OSError:  # another process merges, or has merged and removed the folder
            return False
        return True

    def merge(self) -> tuple[list[Rows], dict[str, str]]:
        """Return the rows of every sample, and the reason for each image that was not used.

        Raises:
            DataError: blocks are missing or damaged, or no image could be used.
        """
        ordered: list[dict[str, Any]] = []
        for block in self.blocks:
            entries = self._read(block)
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
        shutil.rmtree(self.folder)

    def _read(self, block: range) -> list[dict[str, Any]] | None:
        """Return the entries of a block, None where it is not there, damaged or of another run."""
        try:
            content = load_json(self._path(block))
        except DataError:
            return None
        if not isinstance(content, dict) or set(content) != {"checksum", "entries"}:
            return None
        entries: list[dict[str, Any]] = content["entries"]
        return entries if content["checksum"] == self._checksum(block, entries) else None

    def _checksum(self, block: range, entries: Any) -> str:
        text = f"{self.identity} {block.start} {json.dumps(entries)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _path(self, block: range) -> Path:
        return self.folder / f"{block.start:08d}.json"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file under another name and move it into place.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
