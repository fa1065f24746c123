"""The first steps of trainings on rendered data: the loss, its pace, and the memory it takes.

    python benchmarks/training.py "tokenpose_t*" "tcformer_mta*" --steps 60 --plot curves.png
    python benchmarks/training.py all --device cuda --dtype bfloat16 --batch 0 --steps 5

Each recipe runs as it is, from random weights, but for the batch, the rate that goes with it (by
the square root), a short warm-up and no evaluation, in a process of its own. Batch 0 is what the
published training had on each of its 8 GPUs. Memory is the peak of the device's, or that of the
process beyond its imports on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from load import fresh, peak_mib
from PIL import Image

import posezoo
from posezoo.synthetic import render_scene, write_coco, write_mpii
from posezoo.training import RECIPES
from posezoo.training.loop import train

COLUMNS = ("recipe", "batch", "loss_first", "loss_last", "images_per_s", "peak_mib")
TOKENIZER = "pct_tokenizer_swin_base_woimgguide"


def data_for(name: str, folder: Path, images: int) -> Path:
    """Render a data set of the kind that a model learns from."""
    cfg = posezoo.get_pretrained_cfg(name)
    if cfg.task == "classification":
        from timm.data import ImageNetInfo

        for i, label in enumerate(ImageNetInfo("imagenet-1k").label_names()):
            (folder / "train" / label).mkdir(parents=True)
            picture = Image.fromarray(render_scene((1, i % images), (64, 64)).image)
            picture.save(folder / "train" / label / "1.jpg")
    elif cfg.dataset == "mpii":
        write_mpii(folder, images, 1, split="train")
    else:
        write_coco(folder, images, 1, split="train2017", skeleton=cfg.skeleton)
        write_coco(folder, 1, 2, split="val2017", skeleton=cfg.skeleton)  # is looked for
    return folder


def tokenizer_for(name: str, folder: Path) -> str:
    """Return a tokenizer for PCT's second stage: the one in the package, or a random one."""
    if name == TOKENIZER:
        return f"{TOKENIZER}.rendered"
    saved = posezoo.save_pretrained(posezoo.create_model(name), folder)
    return str(saved / "model.safetensors")


def measure(name: str, batch: int, steps: int, dtype: str, device: str) -> dict[str, Any]:
    """Train for some steps; return the losses of all of them and what they took."""
    recipe = RECIPES[name]
    batch = batch or max(1, recipe.batch_size // 8)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = data_for(name, folder / "data", images=max(24, batch))
        if recipe.tokenizer:
            tokenizer = tokenizer_for(recipe.tokenizer, folder / "tokenizer")
            recipe = dataclasses.replace(recipe, tokenizer=tokenizer)
        rate = recipe.lr * math.sqrt(min(1.0, batch / recipe.batch_size))
        recipe = dataclasses.replace(
            recipe, batch_size=batch, lr=rate, dtype=dtype, epochs=10**6, eval_every=10**6,
            warmup_steps=max(1, steps // 5), warmup_epochs=0, milestones=(), repeats=1,
        )  # fmt: skip
        before = peak_mib()  # the imports
        train(
            recipe, data, folder / "run", init="scratch", device=device, stop_after=steps,
            log_every=1,
        )  # fmt: skip
        rows = [json.loads(row) for row in (folder / "run" / "log.jsonl").read_text().splitlines()]
    peak = peak_mib() - before
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 2**20
    speeds = sorted(row["images_per_second"] for row in rows)
    return {
        "recipe": name,
        "batch": batch,
        "losses": [row["loss"] for row in rows],
        "images_per_s": speeds[len(speeds) // 2],
        "peak_mib": round(peak),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the loss of every recipe over its steps, and its mean over 10 of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    across = min(4, len(rows))
    down = -(-len(rows) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(3.2 * across, 2.4 * down), layout="constrained", squeeze=False
    )
    for axis, row in zip(axes.flat, rows):
        losses = row["losses"]
        means = [sum(losses[max(0, i - 9) : i + 1]) / min(10, i + 1) for i in range(len(losses))]
        axis.plot(range(1, len(losses) + 1), losses, linewidth=0.5, alpha=0.5)
        axis.plot(range(1, len(losses) + 1), means, linewidth=1.5)  # of 10 steps
        axis.set_title(f"{row['recipe']}, batch {row['batch']}", fontsize=8)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel("loss", fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in list(axes.flat)[len(rows) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="recipes or patterns; all")
    parser.add_argument("--steps", type=int, default=60, help="default: 60")
    parser.add_argument("--batch", type=int, default=4, help="images per step, default 4")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, help="PNG of the losses")
    args = parser.parse_args()
    patterns = ["*"] if args.names == ["all"] else args.names
    names = [n for n in RECIPES if any(fnmatch.fnmatch(n, p) for p in patterns)]
    if not names or args.steps < 1 or args.batch < 0:
        parser.error(f"no recipe {args.names}, or steps below 1, or a negative batch")
    rows = []
    print("  ".join([f"{COLUMNS[0]:<36}", *(f"{column:>12}" for column in COLUMNS[1:])]))
    for name in names:
        row = fresh(measure, name, args.batch, args.steps, args.dtype, args.device)
        few = max(1, args.steps // 10)  # the mean of the first and last tenth
        losses = row["losses"]
        ends = sum(losses[:few]) / few, sum(losses[-few:]) / few
        first, last = (f"{value:.4g}" for value in ends)
        cells = (row["batch"], first, last, row["images_per_s"], row["peak_mib"])
        print("  ".join([f"{name:<36}", *(f"{cell:>12}" for cell in cells)]), flush=True)
        rows.append(row)
    if args.plot:
        plot(rows, args.plot)
    print(json.dumps({"command": " ".join(sys.argv), "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
