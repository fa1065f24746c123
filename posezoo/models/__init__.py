"""The model families. Importing this package registers every model, and does nothing else."""

from . import uniformer  # noqa: F401
