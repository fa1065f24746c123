"""`posezoo train`: a recipe and a data set in, weights out."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from . import options

__all__ = ["train"]


@click.command()
@click.argument("recipe")
@options.data
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; resumes.",
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
@options.device
@options.workers("Processes", smallest=0, default=0)
def train(
    recipe: str,
    data: Path,
    out: Path,
    settings: tuple[str, ...],
    init: str | None,
    skeleton: Path | None,
    device: str | None,
    workers: int,
) -> None:
    """Train the architecture RECIPE as it was published, or with changes.

    Own keypoints: posezoo train RECIPE --init NAME --skeleton mine.json --data DIR --out DIR,
    where the data is laid out as COCO is.

    Many GPUs: torchrun --nproc-per-node N -m posezoo train RECIPE …
    """
    from tqdm import tqdm

    from ..skeletons import Skeleton
    from ..training import loop
    from ..training.recipes import get_recipe, override

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pairs = dict(text.partition("=")[::2] for text in settings)
    chosen = override(get_recipe(recipe), pairs)
    with tqdm(unit="step", disable=not sys.stderr.isatty()) as bar:

        def report(progress: loop.Progress) -> None:
            bar.total = progress.steps
            bar.update(progress.step - bar.n)
            value = "" if progress.value is None else f"{100 * progress.value:.1f}"
            text = f"loss {progress.loss:.3g}" + (value and f", {progress.metric} {value}")
            bar.set_description(text, refresh=False)

        end = loop.train(
            chosen, data, out, init=init, device=device, workers=workers, report=report,
            skeleton=None if skeleton is None else Skeleton.from_json(skeleton),
        )  # fmt: skip
    if end.value is not None and end.best is not None:
        values = f"{100 * end.value:.1f} at the end, {100 * end.best:.1f} at best"
        click.echo(f"{end.metric} {values}")
    click.echo(f"written  {out}")
