"""`posezoo train`: a recipe and a data set in, weights out."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..training.loop import Progress

__all__ = ["train"]

_SECONDS = 30.0  # between two lines where there is no terminal


@click.command(short_help="Train or fine-tune a model by its recipe.")
@click.argument("recipe")
@click.option(
    "--data",
    required=True,
    type=options.PATH,
    callback=options.folder_or_rendering,
    help="Folder of the data set, or render:SEED for people rendered as they are needed, or "
    "render:SEED:FOLDER for half of them before photos of a folder.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; one that is there goes on.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option(
    "--init", help="Start: a name with weights, a file, or scratch; default: as it was published."
)
@click.option(
    "--skeleton",
    type=options.PATH,
    help="Keypoints of your own: JSON with name, keypoint_names, sigmas, flip_pairs, limbs.",
)
@click.option(
    "--minutes",
    type=float,
    help="End after so long; the learning rate falls over this time instead of over the epochs.",
)
@options.category
@options.device
@options.workers("Processes", smallest=0, default=0)
def train(
    recipe: str,
    data: Path,
    out: Path,
    settings: tuple[str, ...],
    init: str | None,
    skeleton: Path | None,
    minutes: float | None,
    category: str | None,
    device: str | None,
    workers: int,
) -> None:
    """Train the architecture RECIPE as it was published, or with changes.

    Own keypoints: posezoo train RECIPE --init NAME --skeleton mine.json --data DIR --out DIR,
    where the data is laid out as COCO is.

    Many GPUs: torchrun --nproc-per-node N -m posezoo train RECIPE …
    """
    from ..runs.stopping import Stop
    from ..skeletons import Skeleton
    from ..training import loop
    from ..training.recipes import get_recipe, override

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pairs = dict(text.partition("=")[::2] for text in settings)
    chosen = override(get_recipe(recipe), pairs)
    own = None if skeleton is None else Skeleton.from_json(skeleton)
    with Stop() as stop, _reporting() as report:
        end = loop.train(
            chosen, data, out, init=init, skeleton=own, category=category, device=device,
            more_epochs="epochs" in pairs, workers=workers, minutes=minutes, report=report,
            stop=lambda: stop.requested,
        )  # fmt: skip
    if stop.requested and not end.is_done:
        click.echo(
            f"posezoo: stopped at step {end.step} of {end.steps}, which {out} has; the same "
            "command goes on from there",
            err=True,
        )
        sys.exit(stop.status)
    if end.value is not None and end.best is not None:
        values = f"{100 * end.value:.1f} at the end, {100 * end.best:.1f} at best"
        click.echo(f"{end.metric} {values}")
    if minutes is not None and not end.is_done:
        click.echo(f"time over at step {end.step}; for more: the same command")
    else:
        click.echo(f"finished {end.step} of {end.steps} steps; for more: --set epochs=N")
    click.echo(f"written  {out}")
    if importlib.util.find_spec("matplotlib") is None:
        click.echo("no curves.png: pip install 'posezoo[train]'")


@contextmanager
def _reporting() -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows progress: a bar in a terminal, else lines."""
    from tqdm import tqdm

    is_terminal = sys.stderr.isatty()
    printed, told = -_SECONDS, None  # when a line was printed, and with which value
    with tqdm(unit="step", disable=not is_terminal) as bar:

        def report(progress: Progress) -> None:
            nonlocal printed, told
            value = "" if progress.value is None else f"{100 * progress.value:.1f}"
            loss = "" if progress.loss is None else f"loss {progress.loss:.3g}"
            text = ", ".join(filter(None, [loss, value and f"{progress.metric} {value}"]))
            bar.total = progress.steps
            bar.update(progress.step - bar.n)
            bar.set_description(text, refresh=False)
            now = time.monotonic()
            is_news = progress.value != told or progress.step == progress.steps
            if not is_terminal and text and (is_news or now - printed >= _SECONDS):
                printed, told = now, progress.value
                click.echo(f"step {progress.step} of {progress.steps}: {text}", err=True)

        yield report
