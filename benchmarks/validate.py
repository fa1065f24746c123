"""Measure published rows and judge them: reported, measured, PASS or FAIL.

    python benchmarks/validate.py "uniformer_s_256x192.*" --data /datasets
    python benchmarks/validate.py all --data /datasets --format markdown

/datasets holds `coco/` (with the COCO-WholeBody annotations and the common detection file),
`mpii/` and `imagenet/`, each laid out as published. Rows are in published.json. Each measured
row is written to results/, from where report.py takes it.

Only values that the authors report can FAIL; others "differ". Only a run of the published file over
the whole data set is judged and written to results/. Exit code 1: a row fails, could not be run, or
images of it could not be read; 2: no such row.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch

import posezoo
from posezoo.datasets import DATA_SETS
from posezoo.errors import PoseZooError
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model

HERE = Path(__file__).parent
COLUMNS = ("row", "boxes", "metric", "reported", "measured", "difference", "tolerance", "verdict")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=["all"], help="row names or patterns, or all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--batch-size", type=int, default=64, help="crops or images per forward")
    parser.add_argument("--workers", type=int, default=4, help="threads that read images")
    parser.add_argument("--limit", type=int, help="first so many images: partial, not comparable")
    parser.add_argument("--format", choices=("table", "csv", "markdown", "json"), default="table")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    return args if args.data.is_dir() else parser.error(f"--data {args.data} is no folder")


def published(patterns: list[str]) -> list[dict[str, Any]]:
    """The rows whose name or model matches a pattern."""
    rows = json.loads((HERE / "published.json").read_text())["rows"]
    if patterns == ["all"]:
        return rows
    chosen = []
    for row in rows:
        names = (row["row"], row["model"] or "")
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names):
            chosen.append(row)
    return chosen


def obstacle(row: dict[str, Any]) -> str | None:
    """Why no run can give the row, if none can."""
    if "no_command" in row:
        return f"no command: {row['no_command']}"
    cfg = posezoo.get_pretrained_cfg(row["model"])
    return None if cfg.has_weights else f"no weights: {cfg.source.unavailable}"


def measure(row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The record of a run."""
    boxes = "det" if row["boxes"] == "det56.4" else row["boxes"]
    settings = EvaluationSettings(
        boxes=boxes, dtype=getattr(torch, args.dtype), limit=args.limit
    )  # fmt: skip
    run = RunOptions(
        device=args.device, batch_size=args.batch_size, workers=args.workers,
        progress=sys.stderr.isatty(), command=" ".join(["python", *sys.argv]),
    )  # fmt: skip
    model = posezoo.create_model(row["model"], pretrained=True)
    folder = args.data / DATA_SETS[row["dataset"]].folder
    record = evaluate_model(model, folder, settings, run)
    if record is None:
        raise SystemExit("validate.py runs in one process; for several use `posezoo eval`")
    return record.to_dict()


def keep(row: dict[str, Any], record: dict[str, Any], folder: Path) -> None:
    """Write a measured row to where report.py looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{row['row']}.json"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps({"row": row["row"], **record}, indent=1) + "\n")
    temporary.replace(target)


def judge(
    row: dict[str, Any], statistics: dict[str, Any] | None, why: str, labels: list[str]
) -> list[dict[str, Any]]:
    """One line per column; `why` is for what was not measured, `labels` for what is not the row."""
    found: dict[str, Any] = {k.lower(): v for k, v in (statistics or {}).items()}
    lines = [
        _line(row, metric, reported, found.get(metric.lower()), row["tolerance"], why, labels)
        for metric, reported in row["values"].items()
    ]
    if row["model"] is not None:
        cfg = posezoo.get_pretrained_cfg(row["model"])
        counted = {"params (M)": cfg.params, "GMACs": cfg.macs}
        units = {"params (M)": 1e6, "GMACs": 1e9}
        for metric, reported in row.get("costs", {}).items():
            decimals = len(str(reported).partition(".")[2])  # half of the last printed digit
            value = None if counted[metric] is None else counted[metric] / units[metric]
            lines.append(_line(row, metric, reported, value, 0.5 * 10**-decimals, why, []))
    return lines


def _line(
    row: dict[str, Any], metric: str, reported: float | None, found: float | None,
    tolerance: float, why: str, labels: list[str],
) -> dict[str, Any]:  # fmt: skip
    line = {"row": row["row"], "boxes": row["boxes"], "metric": metric, "reported": reported,
            "measured": found, "difference": None, "tolerance": tolerance}  # fmt: skip
    if found is None:
        return line | {"verdict": why}
    if reported is None:
        return line | {"verdict": "no published value"}
    line["difference"] = found - reported
    if labels:
        return line | {"verdict": re.split(r"[:(]", labels[0])[0].strip()}
    if metric in row.get("not_compared", ()):
        return line | {"verdict": "not compared"}
    if abs(found - reported) <= tolerance + 1e-9:
        return line | {"verdict": "PASS"}
    return line | {
        "verdict": "FAIL" if row["status"] == "reported" else f"differs ({row['status']})"
    }


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
    failed, lines = False, list[dict[str, Any]]()
    measured: dict[tuple[str, str], dict[str, Any]] = {}  # rows of one run differ in their source
    for row in rows:
        why, statistics, labels = obstacle(row), None, list[str]()
        run = (row["model"], row["boxes"])
        try:
            if why is None and run not in measured:
                measured[run] = measure(row, args)
        except PoseZooError as error:
            why, failed = f"error: {error}", True
        if why is None:
            record = measured[run]
            statistics, labels = record["statistics"], record["labels"]
            for label in labels:
                print(f"{row['row']}: {label}", file=sys.stderr)
            for reason in record["bad"].values():  # each names its file
                print(f"{row['row']}: not used: {reason}", file=sys.stderr)
                failed = True
            if not labels:
                keep(row, record, args.results)
        lines += judge(row, statistics, why or "", labels)
    print(render(lines, args.format))
    return int(failed or any(line["verdict"] == "FAIL" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
