"""`python -m posezoo` is the command line; torchrun needs a module."""

from .cli import main

main()
