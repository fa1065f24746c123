"""Reading JSON files, for every part of the package: nothing heavy is imported here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import DataError, PoseZooError

__all__ = ["load_json"]


def load_json(path: str | Path, error: type[PoseZooError] = DataError) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        error: what to raise; the kind that the caller's files have.

    Raises:
        PoseZooError: of that kind: the file is missing, unreadable or not complete JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError as cause:
        raise error(
            f"cannot read {path}: it does not exist; give the path of a JSON file"
        ) from cause
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:  # malformed JSON, or bytes that are not UTF-8
        raise error(
            f"cannot read {path}: it is not complete JSON ({cause}); it is truncated or damaged: "
            "fetch it again"
        ) from cause
