"""What keeping fewer visual tokens saves, and how far the output moves (TokenPose, TMPose).

    python benchmarks/mask_curve.py "tmpose*" --mask-ratio 1 .8 .6 .4 --plot curve.png
    python benchmarks/mask_curve.py tokenpose_b_256x192 --checkpoint best.pth --mask-type zone

Times, units and multiply-adds are those of timing.py; a unit is the time of a 1024^3 matrix
product. Agreement is with the same weights unmasked, on the same seeded noise: the correlation of
the heatmaps and the mean distance of the decoded keypoints in input pixels. Without --checkpoint
the weights are random, and then agreement says nothing about accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from load import fresh
from timing import make_case, measure, memory_of, multiply_adds, summarise

import posezoo

COLUMNS = {
    "model": "model",
    "mask_ratio": "kept",
    "batch": "batch",
    "ms_per_person": "ms/person",
    "units": "units",
    "gmacs": "GMACs",
    "peak_mib": "peak MiB",
    "correlation": "correlation",
    "distance_px": "moved px",
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="model names or patterns")
    parser.add_argument("--mask-ratio", type=float, nargs="+", default=[1.0, 0.8, 0.6, 0.4])
    parser.add_argument("--mask-type", default="uniform", help="uniform, random, zone or block")
    parser.add_argument("--checkpoint", type=Path, help="weights, for a single model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="persons per forward")
    parser.add_argument("--persons", type=int, default=16, help="inputs of the comparison")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--warmup", type=int, default=2, help="untimed rounds (default 2)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--plot", type=Path, help="write the figure here (PNG)")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    args = parser.parse_args()

    return args


@torch.inference_mode()
def agreement(name: str, args: argparse.Namespace) -> dict[float, dict[str, float]]:
    """Compare every ratio with the unmasked network: correlation, and distance in pixels."""
    torch.manual_seed(0)
    model: Any = posezoo.create_model(name, checkpoint=args.checkpoint).to(args.device)
    codec = posezoo.build_codec(model.pretrained_cfg)
    size = model.pretrained_cfg.input.size
    images = torch.randn(args.persons, 3, *size).to(args.device).split(max(args.batch))

    def run(ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
        model.set_mask(args.mask_type, ratio)
        heatmaps = torch.cat([model(x) for x in images])  # (B, K, h, w)
        return heatmaps, codec.decode(heatmaps)[0]

    full, full_points = run(1.0)
    found = {}
    for ratio in args.mask_ratio:
        heatmaps, points = run(ratio)
        pair = torch.stack([full.flatten(), heatmaps.flatten()]).double()
        found[ratio] = {
            "correlation": round(float(torch.corrcoef(pair)[0, 1]), 4),
            "distance_px": round(float((points - full_points).norm(dim=-1).mean()), 2),
        }
    return found


def costs(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every ratio and batch size of a model interleaved; one row each."""
    device = torch.device(args.device)
    cases = []
    for ratio in args.mask_ratio:
        mask = {"mask_type": args.mask_type, "mask_ratio": ratio}
        macs = multiply_adds(name, **mask)
        for batch in args.batch:
            case = make_case(name, batch, "float32", "torch", device, **mask)
            cases.append(case | {"mask": mask, "macs": macs})
    with torch.inference_mode():
        measure(cases, device, rounds=args.rounds, warmup=args.warmup)
    rows = []
    for case in cases:
        if device.type == "cpu":
            case |= fresh(memory_of, case["model"], case["batch"], **case["mask"])
        row = summarise(case, case["macs"], 8192 if device.type == "cuda" else 1024)
        row |= {"mask_ratio": case["mask"]["mask_ratio"], "mask_type": args.mask_type}
        row["ms_per_person"] = round(row["median_ms"] / case["batch"], 2)
        rows.append(row | {"gmacs": round(case["macs"] / 1e9, 2)})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [list(COLUMNS.values())] + [[str(row.get(k, "-")) for k in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(t.rjust(w) for t, w in zip(line, widths)) for line in lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw cost and agreement over the ratio, one line per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batch = max(row["batch"] for row in rows)
    panels = [
        ("ms_per_person", f"ms per person (batch {batch})"),
        ("gmacs", "GMACs per person"),
        ("correlation", "correlation with unmasked heatmaps"),
        ("distance_px", "keypoint distance to unmasked, input px"),
    ]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), sharex=True, layout="constrained")
    for axis, (key, label) in zip(axes.flat, panels):
        for name in dict.fromkeys(row["model"] for row in rows):
            points = sorted(
                (row["mask_ratio"], row[key])
                for row in rows
                if row["model"] == name and row["batch"] == batch
            )
            axis.plot(*zip(*points), marker="o", label=name)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if key != "correlation":
            axis.set_ylim(0, 1.08 * max(row[key] for row in rows if row["batch"] == batch) or 1)
    for axis in axes[1]:
        axis.set_xlabel("share of visual tokens kept")
    axes[0, 1].legend(fontsize=8)
    figure.suptitle(f"mask type {rows[0]['mask_type']}")
    figure.savefig(path, dpi=120)


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    names = posezoo.list_models(args.names)
    if not names or (args.checkpoint and len(names) > 1):
        sys.exit(f"{' '.join(args.names)} matches {len(names)} models")
    rows = []
    for name in names:
        found = agreement(name, args)
        rows += [row | found[row["mask_ratio"]] for row in costs(name, args)]
    print(table(rows))
    record = {"command": " ".join(sys.argv), "weights": str(args.checkpoint or "random")}
    record |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    if args.plot:
        plot(rows, args.plot)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
