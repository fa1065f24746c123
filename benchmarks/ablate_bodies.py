"""What each part of the rendered people is worth: short trainings, each without one of them.

    python benchmarks/ablate_bodies.py --out runs/ablation --photos shared/photos

Each is a training of 12,288 samples, evaluated on 400 rendered pictures of another seed that have
everything and on the COCO and MPII photographs of a folder, with two seeds. Rows that are in
results.json of --out are not made again, so the same command goes on. It ends in Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import photographs
import torch

from posezoo.files import replacing
from posezoo.synthetic.bodies import crowd, photographer, poses, rooms, wardrobe, write_people
from posezoo.training import rendered
from posezoo.training.loop import train
from posezoo.training.recipes import get_recipe
from posezoo.zoo.recipe import override

EPOCHS, EPOCH = 2, 6_144  # samples
START = "hrnet_xs_192x144.rendered"
IMAGES, SEED = 400, 1_000_000  # of the validation set
UPRIGHT = ("standing", "resting", "walking")
PERSONAL = ("skin", "hair", "eye")  # colours that are not those of clothes

sample_rooms, sample_outfits = rooms.sample_rooms, wardrobe.sample_outfits


def nothing(*given: Any) -> None:
    """Put no furniture and no things into a scene."""


def one_color(*given: Any) -> rooms.Rooms:
    """Return what looks the same everywhere."""
    drawn = sample_rooms(*given)
    return replace(
        drawn, flat=drawn.flat.clamp(min=0), view=drawn.view * torch.tensor([1, 1, 0, 0])
    )


def alone(rng: np.random.Generator, is_beside: bool) -> Any:
    """Send people who would be beside somebody a kilometre away."""
    frame = np.eye(4)[:3]
    frame[:2, 3] = 1000.0 * is_beside
    return frame


def one_outfit(rng: np.random.Generator, traits: dict[str, Any], atlas: int) -> wardrobe.Outfits:
    """Dress everybody in what the first of another generator wears."""
    drawn = sample_outfits(rng, traits, atlas)
    same = sample_outfits(np.random.default_rng(0), traits, atlas)
    colors = same.colors[:1].expand_as(drawn.colors).clone()
    for name in PERSONAL:
        colors[:, wardrobe.COLORS.index(name)] = drawn.colors[:, wardrobe.COLORS.index(name)]
    return wardrobe.Outfits(settings=same.settings[:1].expand_as(drawn.settings), colors=colors)


@contextmanager
def without_scenes() -> Iterator[None]:
    with (
        patch.object(rooms, "sample_rooms", one_color),
        patch.object(crowd, "furnish", nothing),
        patch.object(photographer, "scatter", nothing),
        patch.object(crowd, "_frame", alone),
    ):
        yield


@contextmanager
def upright_only() -> Iterator[None]:
    shares = {
        name: replace(cluster, share=cluster.share * (name in UPRIGHT))
        for name, cluster in poses.CLUSTERS.items()
    }
    with patch.dict(poses.CLUSTERS, shares):
        yield


@contextmanager
def without_clothes_changed() -> Iterator[None]:
    with patch.object(wardrobe, "sample_outfits", one_outfit):
        yield


@contextmanager
def without_filters() -> Iterator[None]:
    with patch.object(rendered, "_RESTYLED", 0.0):
        yield


@contextmanager
def everything() -> Iterator[None]:
    yield


STEPS: dict[str, tuple[str, Callable[[], Any]]] = {
    "everything": ("hrnet_s_128x96", everything),
    "one colour behind, nothing and nobody about": ("hrnet_s_128x96", without_scenes),
    "standing and walking only": ("hrnet_s_128x96", upright_only),
    "one outfit for all": ("hrnet_s_128x96", without_clothes_changed),
    "no random filters": ("hrnet_s_128x96", without_filters),
    "0.7 instead of 1.8 M parameters": ("hrnet_xs_128x96", everything),
}


def evaluate(weights: Path, network: str, folder: Path, photos: Path) -> dict[str, float]:
    """Return AP, AP50 and OKS, in percent, on the rendered pictures and the photographs."""
    model = photographs.load_model(str(weights), network)
    sets = {
        "rendered": (folder / "annotations/person_keypoints_val2017.json", folder / "val2017"),
        "COCO": (photos / "coco/test_coco.json", photos / "coco"),
    }
    row = {}
    for name, (labels, images) in sets.items():
        people = photographs.coco_people(labels)
        found = photographs.average_precision(model, labels, images)
        row |= {f"{name} {key}": 100 * value for key, value in found.items()}
        numbers = photographs.summarise(people, photographs.find(model, people, images))
        row[f"{name} OKS"] = 100 * numbers["OKS"]
    people = photographs.mpii_people(photos / "mpii/test_mpii.json")
    found = photographs.find(model, people, photos / "mpii")
    return row | {"MPII OKS": 100 * photographs.summarise(people, found)["OKS"]}


def learn(step: str, seed: int, out: Path, photos: Path) -> dict[str, Any]:
    """Train without one part, and evaluate."""
    network, context = STEPS[step]
    recipe = override(
        replace(get_recipe("hrnet_s_128x96"), model=network, start=START),
        {"epochs": str(EPOCHS), "eval_every": str(EPOCHS)},
    )
    run = out / f"{list(STEPS).index(step)}.{seed}"
    run.mkdir(exist_ok=True)
    if not (run / "rendered").exists():
        (run / "rendered").symlink_to((out / "rendered").resolve())
    with context(), patch.object(rendered, "_EPOCH", EPOCH):
        train(recipe, Path(f"render:{seed}"), run, device="cpu")
    row = evaluate(run / "best/model.safetensors", network, out / "rendered", photos)
    return {"step": step, "seed": seed, **{key: round(value, 1) for key, value in row.items()}}


def markdown(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])[2:]
    lines = ["| |" + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for step in STEPS:
        found = [row for row in rows if row["step"] == step]
        cells = [", ".join(f"{row[column]:.1f}" for row in found) for column in columns]
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--photos", type=Path, required=True, help="holds coco/ and mpii/")
    parser.add_argument("--seed", type=int, action="append", help="default 61 and 62")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "rendered/annotations").exists():
        write_people(args.out / "rendered", IMAGES, SEED)
    file = args.out / "results.json"
    rows = json.loads(file.read_text()) if file.is_file() else []
    for seed in args.seed or (61, 62):
        for step in STEPS:
            if any(row["step"] == step and row["seed"] == seed for row in rows):
                continue
            rows.append(learn(step, seed, args.out, args.photos))
            print(json.dumps(rows[-1]), flush=True)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(rows, indent=1))
    print(markdown(rows))


if __name__ == "__main__":
    main()
