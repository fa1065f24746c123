"""The folder of a run while it lasts: blocks of samples, each one file once it is done.

A process takes every n-th block, so shares need no padding. Blocks that are there already are not
done again, which makes them checkpoints. Whoever finds them all merges them and checks that every
sample occurs exactly once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import load_json
from ..weights.files import replacing
from .reading import BadImage, Rows
from .settings import Share

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
        count = len(paths)
        self.blocks = [range(i, min(i + _BLOCK, count)) for i in range(0, count, _BLOCK)]

    def open(self, identity: Mapping[str, Any], *, join: bool) -> None:
        """Make the folder, or make sure that the one that is there belongs to this run.

        Args:
            identity: what a run that goes on must have in common with the one before.
            join: whether to go on with an unfinished run.

        Raises:
            DataError: it cannot be written, or holds another run, or one that is not to be joined.
        """
        digest = hashlib.sha256("\n".join(map(str, self.paths)).encode()).hexdigest()
        wanted = json.loads(json.dumps({**identity, "samples": digest}))
        note = self.folder / "run.json"
        if not note.is_file():
            write_json(note, wanted)
            return
        found = load_json(note)
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

    def missing(self, share: Share) -> list[range]:
        """Return the blocks of a share that are not done yet."""
        mine = self.blocks[share.index :: share.count]
        return [block for block in mine if not self._path(block).is_file()]

    def write(self, block: range, results: Sequence[Rows | BadImage]) -> None:
        """Write the rows of a block's samples, in order."""
        entries = [
            {"sample": i, "bad": str(rows)}
            if isinstance(rows, BadImage)
            else {"sample": i, "rows": rows}
            for i, rows in zip(block, results)
        ]
        write_json(self._path(block), entries)

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
            DataError: blocks are missing, damaged or overlap, or no image could be used.
        """
        found: dict[int, Any] = {}
        for path in sorted(self.folder.glob("[0-9]*.json")):
            for entry in load_json(path):
                if entry["sample"] in found:
                    raise DataError(f"sample {entry['sample']} occurs twice in {self.folder}")
                found[entry["sample"]] = entry
        missing = sorted(set(range(len(self.paths))) - set(found))
        if missing or len(found) != len(self.paths):
            raise DataError(
                f"{len(missing)} of {len(self.paths)} samples are missing in {self.folder}, first "
                f"{missing[:1]}; run the other shares, or this one again with --resume"
            )
        ordered = [found[i] for i in range(len(self.paths))]
        bad = {str(self.paths[e["sample"]]): e["bad"] for e in ordered if "bad" in e}
        if len(bad) == len(set(self.paths)):
            first, reason = next(iter(bad.items()))
            raise DataError(f"none of the {len(bad)} images could be used, first {first}: {reason}")
        return [entry.get("rows", []) for entry in ordered], bad

    def remove(self) -> None:
        """Delete the blocks."""
        shutil.rmtree(self.folder)

    def _path(self, block: range) -> Path:
        return self.folder / f"{block.start:08d}.json"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file under another name and move it into place.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error}; give another --out, or make room"
        ) from error
