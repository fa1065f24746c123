"""The folder of a run while it lasts, where its shares meet: `eval` and `predict` both use it.

`run.json` says which run it is, each share locks its part, and the last one to finish merges.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import load_json, write_text, writing
from .lock import BusyError, one_writer
from .shares import Share

__all__ = ["RunFolder", "check_same_run"]


class RunFolder:
    """The folder of an unfinished run.

    Args:
        folder: is made by the first share and removed by the one that merges.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
        """Note which run this is, or make sure that the folder belongs to it.

        Args:
            identity: what all parts of the run have in common, as JSON types.
            join: whether to go on with an unfinished run.

        Raises:
            DataError: it cannot be written, or holds another run, or one that is not to be joined.
        """
        note = self.folder / "run.json"
        found = _noted(note)
        if found is None:
            with writing(note):
                write_text(note, json.dumps(identity) + "\n")
            return
        check_same_run(found, identity, self.folder)
        if not join:
            raise DataError(
                f"{self.folder} holds an unfinished run of the same settings; give --resume to "
                "finish it, or delete the folder"
            )

    @contextmanager
    def merging(self, is_complete: Callable[[], bool]) -> Iterator[bool]:
        """Tell whether all parts are done and nobody else merges them; keep others out meanwhile.

        Args:
            is_complete: tells whether all parts are there. It is asked before others are kept
                out, so that nobody who sees a part missing keeps out the one that brings it, and
                again afterwards, since another may have merged in between.
        """
        with ExitStack() as stack:
            yield is_complete() and self._claim(stack) and is_complete()

    def _claim(self, stack: ExitStack) -> bool:
        lock = one_writer(self.folder.parent, f".{self.folder.name}.lock")
        try:
            stack.enter_context(lock)
        except BusyError:
            return False
        return True

    def remove(self) -> None:
        """Delete the folder; what a network file system keeps while it is open is left."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _noted(note: Path) -> dict[str, Any] | None:
    """Return what a file says about its run; None where it says nothing readable."""
    try:
        found = load_json(note)
    except DataError:
        return None
    return found if isinstance(found, dict) else None


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Check that an unfinished run is the one that is asked for.

    Args:
        found: what is noted of the unfinished run.
        wanted: the same of this one.
        where: is noted.

    Raises:
        DataError: they differ; the message says in what.
    """
    names = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    if names:
        raise DataError(
            f"{where} is of an unfinished run that differs in {', '.join(names)}; give the same "
            "options, another --out, or delete it"
        )
