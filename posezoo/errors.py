"""The errors posezoo raises on purpose.

Each derives from `PoseZooError` and from the built-in kind it belongs to, so both
`except posezoo.errors.PoseZooError` and `except ValueError` work. A message says what was
wrong, the value, what is valid and what to do.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DataError",
    "ExportError",
    "InputError",
    "IntegrityError",
    "PoseZooError",
    "UnknownModelError",
    "WeightsUnavailableError",
]


class PoseZooError(Exception):
    """Base class of all errors raised on purpose."""


class UnknownModelError(PoseZooError, KeyError):
    """A model name, tag or skeleton name that is not registered."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class InputError(PoseZooError, ValueError):
    """An image, box, point or option outside what the function accepts."""


class DataError(PoseZooError, ValueError):
    """An annotation, detection or result file that cannot give a right number."""


class ExportError(PoseZooError, RuntimeError):
    """A written program that does not give the model's numbers."""


class CheckpointError(PoseZooError, RuntimeError):
    """A weights file that cannot be read or does not fit the model."""


class IntegrityError(CheckpointError):
    """A file whose content differs from its recorded hash."""


class WeightsUnavailableError(PoseZooError, RuntimeError):
    """Weights that were never published, or cannot be reached now."""
