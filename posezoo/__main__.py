"""`python -m posezoo` is the command line; torchrun needs a module."""

from .cli.commands import main

main()
