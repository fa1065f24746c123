"""`python -m posezoo.synthetic FOLDER` renders a data set."""

from .render import main

main()
