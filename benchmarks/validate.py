"""Measure published rows and judge them: reported, measured, PASS or FAIL.

    python benchmarks/validate.py "uniformer_s_256x192.*" --data /datasets
    python benchmarks/validate.py all --data /datasets --format markdown

/datasets holds `coco/` (with the COCO-WholeBody annotations and the common detection file),
`mpii/` and `imagenet/`, each laid out as published. Rows stand in published.json. Each measured
row is written to results/, from where report.py takes it. Exit code 1: a row is out of its
tolerance or could not be run.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch

import posezoo
from posezoo.errors import PoseZooError
from posezoo.evaluation.entry import evaluate_model

HERE = Path(__file__).parent
FOLDERS = {"coco": "coco", "coco_wholebody": "coco", "mpii": "mpii", "in1k": "imagenet"}
COLUMNS = ("row", "boxes", "metric", "reported", "measured", "difference", "tolerance", "verdict")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=["all"], help="row names or patterns, or all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--dtype", default="float32", help="float32 (default), bfloat16, float16")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4, help="threads that read images")
    parser.add_argument("--limit", type=int, help="first so many images: partial, not comparable")
    parser.add_argument("--format", choices=("table", "csv", "markdown", "json"), default="table")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args()


def published(patterns: list[str]) -> list[dict[str, Any]]:
    rows = json.loads((HERE / "published.json").read_text())["rows"]
    if patterns == ["all"]:
        return rows
    return [
        row for row in rows
        if any(fnmatch.fnmatchcase(row["row"], p) or row["model"].startswith(p) for p in patterns)
    ]  # fmt: skip


def measure(row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any] | str:
    """The record of a run, or the reason why there is none."""
    cfg = posezoo.get_pretrained_cfg(row["model"])
    if not cfg.has_weights:
        return f"no weights: {cfg.source.unavailable}"
    record = evaluate_model(
        posezoo.create_model(row["model"], pretrained=True),
        args.data / FOLDERS[row["dataset"]],
        boxes={"det56.4": "det"}.get(row["boxes"], row["boxes"]),
        device=args.device,
        dtype=getattr(torch, args.dtype),
        batch_size=args.batch_size,
        workers=args.workers,
        limit=args.limit,
        progress=sys.stderr.isatty(),
        command=" ".join(["python", *sys.argv]),
    )
    return record.to_dict() if record else "only a share was done"


def judge(row: dict[str, Any], statistics: dict[str, Any] | None, why: str) -> list[dict[str, Any]]:
    """One line per metric. Values are fractions; the tolerance is the largest difference."""
    lines = []
    for metric, reported in row["values"].items():
        found = (
            None if statistics is None else statistics.get(metric, statistics.get(metric.lower()))
        )
        line = {"row": row["row"], "boxes": row["boxes"], "metric": metric, "reported": reported,
                "measured": found, "difference": None, "tolerance": row["tolerance"]}  # fmt: skip
        if found is None:
            verdict = why
        elif reported is None:
            verdict = "no published value"
        elif metric in row.get("not_compared", ()):
            verdict = "not compared"
        else:
            line["difference"] = found - reported
            verdict = "PASS" if abs(found - reported) <= row["tolerance"] else "FAIL"
        lines.append(line | {"verdict": verdict})
    return lines


def shown(key: str, value: Any) -> str:
    if isinstance(value, float) and key != "verdict":
        return f"{value:+.4f}" if key == "difference" else f"{value:.4f}"
    return "-" if value is None else str(value)


def render(lines: list[dict[str, Any]], kind: str) -> str:
    if kind == "json":
        return json.dumps(lines, indent=1)
    cells = [[shown(key, line[key]) for key in COLUMNS] for line in lines]
    if kind == "csv":
        out = io.StringIO()
        csv.writer(out).writerows([COLUMNS, *cells])
        return out.getvalue().rstrip()
    widths = [max(len(row[i]) for row in [COLUMNS, *cells]) for i in range(len(COLUMNS))]
    if kind == "markdown":
        rule = ["-" * w for w in widths]
        rows = [COLUMNS, rule, *cells]
        return "\n".join(f"| {' | '.join(t.ljust(w) for t, w in zip(r, widths))} |" for r in rows)
    return "\n".join("  ".join(t.ljust(w) for t, w in zip(r, widths)) for r in [COLUMNS, *cells])


def main() -> int:
    args = parse()
    rows = published(args.rows)
    if not rows:
        print(f"no row matches {' '.join(args.rows)}; see published.json", file=sys.stderr)
        return 2
    lines, failed = [], False
    for row in rows:
        statistics, why = None, ""
        try:
            record = measure(row, args)
        except PoseZooError as error:
            record, failed = f"error: {error}", True
        if isinstance(record, str):
            why = record
        else:
            statistics = record["statistics"]
            if args.limit is None:
                args.results.mkdir(exist_ok=True)
                text = json.dumps({"row": row["row"], **record}, indent=1)
                (args.results / f"{row['row']}.json").write_text(text + "\n")
        lines += judge(row, statistics, why)
    print(render(lines, args.format))
    if args.limit is not None:
        print(f"partial, not comparable: the first {args.limit} images only")
    return int(failed or any(line["verdict"] == "FAIL" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
