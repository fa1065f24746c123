"""`python -m posezoo.synthetic FOLDER` renders a data set."""

from __future__ import annotations

from pathlib import Path

import click

from ..skeletons import COCO_17, COCO_WHOLEBODY_133
from .writing import write_coco, write_mpii

_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--kind", type=click.Choice(["coco", "wholebody", "mpii"]), default="coco", show_default=True
)
@click.option("--train", type=_COUNT, default=24000, show_default=True, help="Images to train on.")
@click.option("--val", type=_COUNT, default=400, show_default=True, help="Images to validate on.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True,
    help="Of validation; training has the next.",
)  # fmt: skip
def main(folder: Path, kind: str, train: int, val: int, seed: int) -> None:
    """Render a data set in the layout of COCO, COCO-WholeBody or MPII into FOLDER."""
    if kind == "mpii":
        click.echo(write_mpii(folder, val, seed))
        click.echo(write_mpii(folder, train, seed + 1, split="train"))
        return
    skeleton = COCO_17 if kind == "coco" else COCO_WHOLEBODY_133
    click.echo(write_coco(folder, val, seed, skeleton=skeleton))
    click.echo(write_coco(folder, train, seed + 1, split="train2017", skeleton=skeleton))


if __name__ == "__main__":
    main()
